"""The generators of a weather study: one for each prior and training seed, all at the same cost."""

from __future__ import annotations

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.unet import UNet
from wsdcast.runs.names import PriorName
from wsdcast.runs.overrides import overridden
from wsdcast.study.design import cost_of_moments, equal_cost_steps, samples_per_step, step_operations
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.networks import context_channels, generator_model, moments_model
from wsdcast.weather.recipe import Recipe


def variant_of(recipe: Recipe, cost: tuple[float, int], seed: int, prior: PriorName) -> Recipe:
    """The recipe with another seed and prior, at the same total cost of training.

    A prior without a moments network is trained for more steps. The cost of a user's model (``given``) is not known and not counted.

    Args:
        recipe: the recipe of the study.
        cost: of the moments network, from :func:`moments_cost`.
        seed: training seed.
        prior: the prior.
    """
    variant = recipe.changed(seed=seed, generator__prior=prior)
    if variant.generator.reads_frozen_moments or prior == "given":
        return variant
    ratio, extra = cost
    share = ratio * variant.generator.needs_moments_network  # trained together
    return variant.changed(generator__steps=equal_cost_steps(variant.generator.steps + extra, 1, 0, share, f"{prior}:"))


def named_variant(recipe: Recipe, record: Analysis, cost: tuple[float, int], name: str) -> tuple[Recipe, float]:
    """A variant of ``study.variants`` at the total cost of training of the recipe itself.

    Args:
        recipe: the recipe of the study.
        record: the prepared data.
        cost: of the recipe's moments network, from :func:`moments_cost`.
        name: of the variant.

    Returns:
        The recipe of the variant, and the cost of its moments network in evaluations of its generator; 0 if it has none.

    Raises:
        UserError: if the variant has an unknown key or a value that is not allowed, or its moments network alone costs too much.
    """
    where = f"study.variants.{name}:"
    variant = overridden(recipe, recipe.study.variants[name], {}, where)
    ratio, extra = moments_cost(variant, record)
    ratio *= variant.generator.needs_moments_network
    once, share = (extra, 0.0) if variant.generator.reads_frozen_moments else (0, ratio)
    relative = generator_operations(variant, record) / generator_operations(recipe, record)
    steps = equal_cost_steps(recipe.generator.steps + cost[1], relative, once, share, where)
    return variant.changed(generator__steps=steps), ratio


def generator_operations(recipe: Recipe, record: Analysis) -> int:
    """Floating-point operations of :func:`wsdcast.study.design.step_operations`."""
    _, generator, (_, shape) = _networks(recipe, record)
    return step_operations(generator, shape, recipe.generator)


def moments_cost(recipe: Recipe, record: Analysis) -> tuple[float, int]:
    """The cost of the moments network, as in :func:`wsdcast.study.design.cost_of_moments`: one evaluation, and all of its training.

    The training includes the networks of the folds and one prediction of each training sample (two with folds).
    """
    moments, generator, shapes = _networks(recipe, record)
    folds, samples = recipe.moments.folds, record.now("train").size
    visits = (1 + folds) * recipe.moments.steps * samples_per_step(recipe.moments) + (2 if folds else 1) * samples / 3
    return cost_of_moments((moments, generator), shapes, recipe.generator, visits)


def _networks(recipe: Recipe, record: Analysis) -> tuple[MomentsModel, UNet, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The untrained networks, and the shapes of one context and of one input of the generator."""
    chosen, channels = recipe.forcings, len(record.variables)
    forcings = len(chosen.static) + 4 * (chosen.solar_time + chosen.latitude_longitude) + len(record.forcing_variables)
    moments = moments_model(recipe.moments, record.grid.includes_poles, forcings, channels)
    generator = generator_model(recipe.generator, record.grid.includes_poles, forcings, channels)
    shapes = (1, context_channels(forcings, channels), *record.grid.shape), (1, generator.first.in_channels, *record.grid.shape)
    return moments, generator, shapes
