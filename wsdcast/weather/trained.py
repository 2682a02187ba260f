"""The trained networks of a run, ready to sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import NamedTuple

from torch import nn

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices
from wsdcast.runs.artefact import require
from wsdcast.runs.names import FEW_STEPS, FINE_TUNED, GENERATOR, MOMENTS
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import PRIOR_MAKERS, Moments, PriorOf, warm_start
from wsdcast.weather.forcings import ForcingFields, forcings_of
from wsdcast.weather.harmonic_transform import weather_path
from wsdcast.weather.networks import Sizes, generator_model, moments_model, sizes_of
from wsdcast.weather.noise_fields import NoiseFields, noise_fields_of
from wsdcast.weather.objective_sections import FROM_FLOW, ObjectiveName
from wsdcast.weather.priors import fixed_or_given
from wsdcast.weather.recipe import Recipe


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
    forcings: ForcingFields
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


@devices.own_torch_settings()
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
    forcings = forcings_of(record, recipe.forcings, devices.device())
    sizes = sizes_of(record, forcings)
    generator = generator_model(recipe.generator, sizes, noise=recipe.crps.noise)
    if recipe.generator.needs_moments_network:
        network = moments_model(recipe.moments, sizes)
        if recipe.generator.reads_frozen_moments:
            load(generator, GENERATOR)
            load(network, MOMENTS)
        else:
            load(nn.ModuleDict({"moments": network, "generator": generator}), GENERATOR)
        moments: Moments = network
    else:
        load(generator, GENERATOR)
        moments = fixed_or_given(recipe, record, given)
    prior_of, path = warm_start(moments, PRIOR_MAKERS[recipe.generator.prior]), weather_path(recipe.generator, record.grid)
    few = few_evaluations(recipe, generator, sizes, load, recipe.networks if names is None else names)
    return Trained(generator, moments, prior_of, forcings, path, recipe.generator.prior != "given", few, noise_fields_of(recipe, record))


def few_evaluations(
    recipe: Recipe, generator: UNet, sizes: Sizes, load: Callable[[nn.Module, str], object], names: Collection[str]
) -> dict[int, FewEvaluations]:
    """Make the networks of few evaluations and load their weights; return them by their numbers of evaluations.

    ``load`` and ``names`` are those of :func:`assembled`. With the objective ``crps`` the generator makes one evaluation itself.
    """
    objective, few = recipe.generator.objective, dict[int, FewEvaluations]()
    if objective == "crps":
        few[1] = FewEvaluations(generator, objective)
    for name, numbers in ((FEW_STEPS, recipe.few_numbers), (FINE_TUNED, (recipe.fine_tune.nfe,))):
        if name in recipe.networks and name in names:
            network = generator_model(recipe.generator, sizes, few_steps=objective in FROM_FLOW, noise=recipe.crps.noise)
            load(network, name)
            few |= dict.fromkeys(numbers, FewEvaluations(network, objective))
    return few
