"""Reading analyses and forecasts of others."""
