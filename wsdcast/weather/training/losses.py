"""The loss of ensembles with the settings of a recipe."""

from __future__ import annotations

from wsdcast.data.store.analysis import Analysis
from wsdcast.runs import devices
from wsdcast.warmstart.crps import EnsembleLoss, ensemble_loss
from wsdcast.weather.climate import change_std
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.recipe import Recipe


def loss_of_ensembles(recipe: Recipe, record: Analysis) -> EnsembleLoss:
    """The loss of ensembles of a recipe, on the device. Each channel is in units of its change in 6 h."""
    weights, scale = (tensor.to(devices.device()) for tensor in (area_weights(record), change_std(record)))
    return ensemble_loss(weights, scale, recipe.crps.alpha, recipe.crps.spectral_weight)
