"""Scores of forecasts: additive statistics, the metrics computed from their means, confidence intervals and baselines."""
