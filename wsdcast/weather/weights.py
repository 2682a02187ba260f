"""The weights of the channels in the losses of both networks (docs/training.md), and the loss of ensembles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from wsdcast.data.store.analysis import Analysis
from wsdcast.data.variables import name_and_level
from wsdcast.data.winds import winds_of
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.crps import EnsembleLoss, ensemble_loss
from wsdcast.weather.climate import change_std, zonal_amplitude
from wsdcast.weather.forcings import area_weights
from wsdcast.weather.recipe import Recipe

OF_DATA_STD = ("standard", "features-only", "mean-only", "climatology")
"""Priors whose standard deviation is that of the data, so that the generator's error is in units of it."""


def moments_weights(recipe: Recipe, record: Analysis) -> Tensor | None:
    """The weights of the channels in the loss of the moments network, (channel, 1, 1), of mean 1; None if all are 1.

    The likelihood divides errors by the predicted standard deviation. A standard deviation that the recipe fixes does not do that.

    Raises:
        UserError: if ``training.weights`` names a channel that is not forecast.
    """
    return channel_weights(recipe.training.weights, record, by_difference=isinstance(recipe.moments.std, float))


def generator_weights(recipe: Recipe, record: Analysis) -> Tensor | None:
    """The same for the generator. A predicted standard deviation of the prior divides its errors; others do not."""
    is_fixed = recipe.generator.needs_moments_network and isinstance(recipe.moments.std, float)
    return channel_weights(recipe.training.weights, record, by_difference=is_fixed or recipe.generator.prior in OF_DATA_STD)


def channel_weights(factors: Mapping[str, float], record: Analysis, by_difference: bool) -> Tensor | None:
    """The weights of the channels in a loss of squared errors, (channel, 1, 1), of mean 1, on the device; None if all are 1.

    As in GraphCast (Lam et al. 2023, supplement 4.2), the levels of a variable are weighted by their pressure, and errors are divided by
    the standard deviation of the difference of states 6 h apart. The two components of a wind have the same weight.

    Args:
        factors: further factors by channel, or by variable for all of its levels.
        record: the record, on whose training split the differences were computed.
        by_difference: whether errors are still to be divided by the standard deviation of the difference.

    Raises:
        UserError: if ``factors`` names a channel that is not forecast.
    """
    names = record.variables
    bases, levels = zip(*map(name_and_level, names), strict=True)
    if unknown := [name for name in factors if name not in (*names, *bases)]:
        raise UserError(f"training.weights: {unknown[0]} is not forecast, only {', '.join(names)}")
    weights = np.ones(len(names))
    if by_difference:
        squares = (record.difference_std[: len(names)] / record.std[: len(names)]).astype(np.float64) ** 2
        for wind in winds_of(names):
            pair = [names.index(wind.u), names.index(wind.v)]
            squares[pair] = squares[pair].mean()
        known = np.isfinite(squares) & (squares > 0)  # an older store does not have them, and a record of single states has none
        weights[known] = 1 / squares[known]
    for base in set(bases):
        on_levels = [number for number, (each, level) in enumerate(zip(bases, levels, strict=True)) if each == base and level]
        pressures = np.array([levels[number] for number in on_levels], dtype=np.float64)
        weights[on_levels] *= pressures / (pressures.mean() if on_levels else 1)
    weights *= [factors.get(name, factors.get(base, 1.0)) for name, base in zip(names, bases, strict=True)]
    weights /= weights.mean()
    return None if np.allclose(weights, 1, rtol=1e-12) else torch.from_numpy(weights.astype(np.float32)).to(devices.device())[:, None, None]


def loss_of_ensembles(recipe: Recipe, record: Analysis) -> EnsembleLoss:
    """The loss of ensembles of a recipe, on the device. Each channel is in units of its change in 6 h over its weight.

    The part of the loss that is of zonal waves has no weights of channels.
    """
    tensors = area_weights(record), change_std(record), zonal_amplitude(record)
    weights, scale, amplitude = (tensor.to(devices.device()) for tensor in tensors)
    if (of_channels := channel_weights(recipe.training.weights, record, by_difference=False)) is not None:
        scale = scale / of_channels
    return ensemble_loss(weights, scale, amplitude, recipe.crps.alpha, recipe.crps.spectral_weight)
