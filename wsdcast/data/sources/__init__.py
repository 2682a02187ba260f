"""Readers of analyses and forecasts that others wrote."""
