"""The prior that a recipe chooses, and the trained networks of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices
from wsdcast.runs.artefact import require
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FEW_STEPS, FINE_TUNED, GENERATOR, MOMENTS
from wsdcast.sampling.priors import prior_maker
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import Moments, PriorOf, fixed_moments, persistence_moments, standard_moments, warm_start
from wsdcast.weather.climate import change_std, climatology
from wsdcast.weather.forcings import Surroundings, surroundings
from wsdcast.weather.harmonic_transform import weather_path
from wsdcast.weather.networks import generator_model, moments_model, sizes_of
from wsdcast.weather.noise_fields import NoiseFields, noise_fields_of
from wsdcast.weather.objective_sections import FROM_FLOW, ObjectiveName
from wsdcast.weather.recipe import Recipe


def fixed_or_given(recipe: Recipe, record: Analysis, given: Moments | None) -> Moments:
    """Moments that do not come from the moments network: 0 and 1, the climatology at each point, persistence, or a user's model.

    Args:
        recipe: its ``generator.prior`` is standard, climatology, persistence or given.
        record: its training split gives the climatology, and the size of the change in 6 h.
        given: the user's model, ``given(context) -> (mean, std)``. The context (batch, channel, latitude, longitude) is that of
            :meth:`wsdcast.weather.samples.Samples.context`. Mean and std (batch, variable, latitude, longitude) are those of the state 6 h
            later. All are normalised: in units of each variable's standard deviation. An artefact does not record which model it was made
            with, so a run with another model needs another run directory.

    Raises:
        UserError: if the prior is ``given`` and there is no model.
    """
    if recipe.generator.prior == "given":
        if given is None:
            raise UserError(
                "prior given: the moments come from a model of yours; call wsdcast.train and wsdcast.rollout with moments=MODEL"
            )
        return _checked(given, len(record.variables))
    if recipe.generator.prior == "climatology":
        return fixed_moments(*(field.to(devices.device()) for field in climatology(record)))
    if recipe.generator.prior == "persistence":
        return persistence_moments(change_std(record).to(devices.device()))
    return standard_moments(len(record.variables))


def _checked(given: Moments, channels: int) -> Moments:
    """The user's model, with a check of each result.

    The model raises UserError unless it returns a mean and a std of the shape of the state, and, on a CPU, unless the std is positive.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        result = given(context)
        expected = (context.shape[0], channels, *context.shape[2:])
        if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(x, Tensor) and x.shape == expected for x in result)):
            raise UserError(f"prior given: the model must return mean and std, each a tensor of shape {tuple(expected)}")
        mean, std = (values.to(context.dtype) for values in result)  # a model may compute in bfloat16
        if std.device.type == "cpu" and not (std > 0).all():
            raise UserError("prior given: the model's std is not positive everywhere")
        # On a GPU this test would make the host wait at every step. There a NaN stops the member, or the training.
        return mean, torch.where(std > 0, std, torch.nan)

    return moments


class FewEvaluations(NamedTuple):
    """A network that makes a certain number of evaluations.

    Attributes:
        network: the network.
        objective: what it was trained for. A fine-tuned network has the objective of the network that it was trained from.
    """

    network: UNet
    objective: ObjectiveName


@dataclass(frozen=True)
class Trained:
    """The networks of a run, ready to sample.

    Attributes:
        generator: p'_theta.
        moments: from a context to mean and std: h_phi, or the function that replaces it.
        prior_of: from a context to the prior that generation starts from.
        forcings: the forcings of the record's grid.
        path: the path that the generator was trained on.
        ours: True if the moments come from this package, False if they come from a user's model.
        few: the networks of few evaluations, by the number of evaluations. The flow's generator makes all other numbers.
        noise_fields: makes the fields that a generator of the objective ``crps`` reads; None if it reads numbers.
    """

    generator: UNet
    moments: Moments
    prior_of: PriorOf
    forcings: Surroundings
    path: Path = STRAIGHT
    ours: bool = True
    few: Mapping[int, FewEvaluations] = field(default_factory=dict)
    noise_fields: NoiseFields | None = None


def trained(
    recipe: Recipe, directory: FilePath, record: Analysis, given: Moments | None = None, names: Collection[str] | None = None
) -> Trained:
    """Load the networks of a run directory, as :func:`assembled` does.

    Raises:
        UserError: if they are missing or were made from another recipe.
    """
    return assembled(recipe, record, lambda network, name: load_network(network, require(recipe, directory, name, "train")), given, names)


def assembled(
    recipe: Recipe,
    record: Analysis,
    load: Callable[[nn.Module, str], object],
    given: Moments | None = None,
    names: Collection[str] | None = None,
) -> Trained:
    """Make the networks of a recipe and load their weights.

    Args:
        recipe: the recipe that they were trained with.
        record: has the grid and the static fields.
        load: loads the weights of an artefact, named as in a run directory, into an untrained network.
        given: the user's model for the prior ``given``.
        names: the artefacts whose networks are loaded; default: all of the recipe. The generator is always loaded.

    Raises:
        UserError: if ``load`` does.
    """
    forcings = surroundings(record, recipe.forcings, devices.device())
    sizes = sizes_of(record, forcings)
    generator = generator_model(recipe.generator, *sizes, noise=recipe.crps.noise)
    if recipe.generator.needs_moments_network:
        network = moments_model(recipe.moments, *sizes)
        if recipe.generator.reads_frozen_moments:
            load(generator, GENERATOR)
            load(network, MOMENTS)
        else:
            load(nn.ModuleDict({"moments": network, "generator": generator}), GENERATOR)
        moments: Moments = network
    else:
        load(generator, GENERATOR)
        moments = fixed_or_given(recipe, record, given)
    prior_of, path = warm_start(moments, prior_maker(recipe.generator.prior)), weather_path(recipe.generator, record.grid)
    few = few_evaluations(recipe, generator, sizes, load, recipe.networks if names is None else names)
    return Trained(generator, moments, prior_of, forcings, path, recipe.generator.prior != "given", few, noise_fields_of(recipe, record))


def few_evaluations(
    recipe: Recipe, generator: UNet, sizes: tuple[bool, int, int, int], load: Callable[[nn.Module, str], object], names: Collection[str]
) -> dict[int, FewEvaluations]:
    """Make the networks of few evaluations and load their weights.

    Args:
        recipe: the recipe that they were trained with.
        generator: the generator of the recipe; with the objective ``crps`` it makes one evaluation itself.
        sizes: from :func:`wsdcast.weather.networks.sizes_of`.
        load, names: as for :func:`assembled`.

    Returns:
        The networks by their numbers of evaluations.
    """
    objective, few = recipe.generator.objective, dict[int, FewEvaluations]()
    if objective == "crps":
        few[1] = FewEvaluations(generator, objective)
    for name, numbers in ((FEW_STEPS, recipe.few_numbers), (FINE_TUNED, (recipe.fine_tune.nfe,))):
        if name in recipe.networks and name in names:
            network = generator_model(recipe.generator, *sizes, few_steps=objective in FROM_FLOW, noise=recipe.crps.noise)
            load(network, name)
            few |= dict.fromkeys(numbers, FewEvaluations(network, objective))
    return few
