"""Ensemble forecasts: the autoregression, how it is run and written, and its initial times."""
