"""The weather model: recipe, forcings, networks, priors, forecast, stages."""
