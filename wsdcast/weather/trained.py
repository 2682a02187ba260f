"""The trained networks of a run, ready to sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from torch import nn

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.unet import UNet
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices
from wsdcast.runs.artefact import require
from wsdcast.runs.names import FEW_STEPS, FINE_TUNED, GENERATOR, MOMENTS
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import PRIOR_MAKERS, Moments, PriorOf, frozen_prior
from wsdcast.weather.forcings import ForcingFields, forcings_of
from wsdcast.weather.harmonic_transform import weather_path
from wsdcast.weather.networks import generator_model, moments_model, sizes_of
from wsdcast.weather.noise_fields import NoiseFields, noise_fields_of
from wsdcast.weather.objective_sections import FROM_FLOW, ObjectiveName
from wsdcast.weather.priors import fixed_or_given
from wsdcast.weather.recipe import Recipe

AFTER_GENERATOR = (FEW_STEPS, FINE_TUNED)
"""Networks that are trained after the generator."""


@dataclass(frozen=True)
class Trained:
    """The networks of a run, ready to sample.

    Attributes:
        generator: p'_theta; untrained with the objective ``none``.
        moments: from a context to mean and std: h_phi, or the function that replaces it.
        prior_of: from a context to the prior that generation starts from.
        forcings: the forcings of the record's grid.
        path: the path that the generator was trained on.
        ours: True if the moments come from this package, False if they come from a user's model.
        objective: what the networks were trained for. A fine-tuned network has the objective of the network that it was trained from.
        few: the networks of few evaluations, by the number of evaluations. The flow's generator makes all other numbers.
        noise_fields: makes the fields that a generator of the objective ``crps`` reads; None if it reads numbers.
    """

    generator: UNet
    moments: Moments
    prior_of: PriorOf
    forcings: ForcingFields
    path: Path = STRAIGHT
    ours: bool = True
    objective: ObjectiveName = "flow"
    few: Mapping[int, UNet] = field(default_factory=dict)
    noise_fields: NoiseFields | None = None


def trained(
    recipe: Recipe, directory: FilePath, record: Analysis, given: Moments | None = None, after: Collection[str] = AFTER_GENERATOR
) -> Trained:
    """Load the networks of a run directory, as :func:`assembled` does.

    Raises:
        UserError: if they are missing or were made from another recipe.
    """
    return assembled(recipe, record, lambda network, name: load_network(network, require(recipe, directory, name)), given, after)


@devices.own_torch_settings()
def assembled(
    recipe: Recipe,
    record: Analysis,
    load: Callable[[nn.Module, str], object],
    given: Moments | None = None,
    after: Collection[str] = AFTER_GENERATOR,
) -> Trained:
    """Make the networks of a recipe and load their weights.

    Args:
        recipe: the recipe that they were trained with.
        record: has the grid and the static fields.
        load: loads the weights of an artefact, named as in a run directory, into an untrained network.
        given: the user's model for the prior ``given``.
        after: the networks after the generator that are loaded, of those that the recipe has.

    Raises:
        UserError: if ``load`` does.
    """
    forcings = forcings_of(record, recipe.forcings, devices.device())
    sizes = sizes_of(record, forcings)
    generator = generator_model(recipe.generator, sizes, noise=recipe.crps.noise)
    if recipe.generator.needs_moments_network:
        network = moments_model(recipe.moments, sizes)
        if recipe.generator.reads_frozen_moments:
            if GENERATOR in recipe.networks:
                load(generator, GENERATOR)
            load(network, MOMENTS)
        else:
            load(nn.ModuleDict({"moments": network, "generator": generator}), GENERATOR)
        moments: Moments = network
    else:
        load(generator, GENERATOR)
        moments = fixed_or_given(recipe, record, given)
    prior_of, path = frozen_prior(moments, PRIOR_MAKERS[recipe.generator.prior]), weather_path(recipe.generator, record.grid)
    objective, ours = recipe.generator.objective, recipe.generator.prior != "given"
    few = {1: generator} if objective == "crps" else {}  # it makes one evaluation itself
    for name, numbers in ((FEW_STEPS, recipe.few_numbers), (FINE_TUNED, (recipe.fine_tune.nfe,))):
        if name in recipe.networks and name in after:
            second = generator_model(recipe.generator, sizes, few_steps=objective in FROM_FLOW, noise=recipe.crps.noise)
            load(second, name)
            few |= dict.fromkeys(numbers, second)
    return Trained(generator, moments, prior_of, forcings, path, ours, objective, few, noise_fields_of(recipe, record))
