"""The loss of ensembles with the settings of a recipe."""

from __future__ import annotations

from wsdcast.data.store.analysis import Analysis
from wsdcast.runs import devices
from wsdcast.warmstart.crps import EnsembleLoss, ensemble_loss
from wsdcast.weather.climate import change_std, zonal_amplitude
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.weights import channel_weights


def loss_of_ensembles(recipe: Recipe, record: Analysis) -> EnsembleLoss:
    """The loss of ensembles of a recipe, on the device. Each channel is in units of its change in 6 h over its weight.

    The part of the loss that is of zonal waves has no weights of channels.
    """
    tensors = area_weights(record), change_std(record), zonal_amplitude(record)
    weights, scale, amplitude = (tensor.to(devices.device()) for tensor in tensors)
    if (of_channels := channel_weights(recipe.training.weights, record, by_difference=False)) is not None:
        scale = scale / of_channels
    return ensemble_loss(weights, scale, amplitude, recipe.crps.alpha, recipe.crps.spectral_weight)
