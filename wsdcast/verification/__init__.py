"""Scores: statistics that add up, metrics computed from them, baselines."""
