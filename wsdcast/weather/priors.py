"""Which prior a recipe starts from, and the trained networks behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices
from wsdcast.runs.artefact import require
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import GENERATOR, MOMENTS
from wsdcast.sampling.starts import start_of
from wsdcast.warmstart.ablations import fixed_moments, standard_moments
from wsdcast.warmstart.moments import MINIMUM_STD
from wsdcast.warmstart.prior import Moments, PriorOf, warm_start
from wsdcast.weather.forcings import Surroundings, surroundings
from wsdcast.weather.networks import CHANNELS, generator_model, moments_model
from wsdcast.weather.recipe import Recipe

STATES = 64
"""Of the record that are in memory at a time for its climatology."""


def rank_told(recipe: Recipe) -> int:
    """How many patterns of correlation the generator of a recipe is told of."""
    network = recipe.generator.needs_moments_network and recipe.generator.prior != "mean-only"
    return recipe.moments.rank if network else 0


def fixed_or_given(recipe: Recipe, record: Analysis, given: Moments | None) -> Moments:
    """Moments that no network of ours predicts: (0, 1), those of the record at each point, or a user's model.

    Args:
        recipe: whose ``generator.prior`` is standard, climatology or given.
        record: its training part gives the climatology.
        given: the user's model, ``given(context) -> (mean, std)``, all in units of the wind's standard deviation: the context
            (batch, channel, latitude, longitude) is as in :meth:`wsdcast.weather.samples.Samples.context`, mean and std
            (batch, 2, latitude, longitude) are of the state 6 h later. Nothing tells one model from another: train another one in another
            run directory.

    Raises:
        UserError: if there is no model though the recipe says so.
    """
    if recipe.generator.prior == "given":
        if given is None:
            raise UserError(
                "prior given: the moments come from a model of yours; call wsdcast.train and wsdcast.rollout with moments=MODEL"
            )
        return _checked(given)
    if recipe.generator.prior == "climatology":
        return fixed_moments(*(field.to(devices.device()) for field in climatology(record)))
    return standard_moments(CHANNELS)


def climatology(record: Analysis) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the training part at each point, in units of the wind's own, each (channel, latitude, longitude).

    A few states are in memory at a time. Sums are in double precision.
    """
    chosen = np.flatnonzero(record.part("train"))
    total, squares = np.zeros((2, *record.wind.shape[1:]))
    for first in range(0, chosen.size, STATES):
        states = record.normalise(record.wind[chosen[first : first + STATES]]).astype(np.float64)
        total += states.sum(axis=0)
        squares += (states**2).sum(axis=0)
    mean = total / chosen.size
    std = np.sqrt(np.maximum(squares / chosen.size - mean**2, MINIMUM_STD**2))
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32))


def _checked(given: Moments) -> Moments:
    """A user's model that is refused when it returns anything but a mean and a positive std of the shape of the state."""

    def moments(context: Tensor) -> tuple[Tensor, ...]:
        found = given(context)
        expected = (context.shape[0], CHANNELS, *context.shape[2:])
        if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(x, Tensor) and x.shape == expected for x in found)):
            raise UserError(f"prior given: the model must return mean and std, each a tensor of shape {tuple(expected)}")
        mean, std = (values.to(context.dtype) for values in found)  # also where it computes in bfloat16
        if std.device.type == "cpu" and not (std > 0).all():
            raise UserError("prior given: the model's std is not positive everywhere")
        # The host does not stop at every step to ask a GPU: there NaN stops the member, or the training.
        return mean, torch.where(std > 0, std, torch.nan)

    return moments


@dataclass(frozen=True)
class Trained:
    """The networks of a run, ready to sample.

    Attributes:
        generator: p'_theta.
        moments: h_phi, or what stands for it; mean and std, and factors of a correlated prior.
        prior_of: what generation starts from.
        beside: what contexts have beside the wind.
        ours: whether the moments come from this package, not from a user's model.
    """

    generator: nn.Module
    moments: Moments
    prior_of: PriorOf
    beside: Surroundings
    ours: bool = True


def trained(recipe: Recipe, directory: Path, record: Analysis, given: Moments | None = None) -> Trained:
    """Load the networks of a run directory.

    Raises:
        UserError: if they are not there or were made from another recipe.
    """
    poles, beside = record.grid.includes_poles, surroundings(record, recipe.forcings, devices.device())
    path = require(recipe, directory, GENERATOR, "train")
    generator: nn.Module = generator_model(recipe.generator, poles, beside.channels, rank_told(recipe))
    if recipe.generator.needs_moments_network:
        network = moments_model(recipe.moments, poles, beside.channels)
        if recipe.generator.reads_frozen_moments:
            load_network(network, require(recipe, directory, MOMENTS, "train"))
            load_network(generator, path)
        else:
            load_network(nn.ModuleDict({"moments": network, "generator": generator}), path)
        moments: Moments = network
    else:
        load_network(generator, path)
        moments = fixed_or_given(recipe, record, given)
    return Trained(generator, moments, warm_start(moments, start_of(recipe.generator.prior)), beside, recipe.generator.prior != "given")
