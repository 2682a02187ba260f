"""Ensemble forecasts: initial times, the autoregression, ensembles of several initial times at once, and the store they are written to."""
