"""The generators of an image study: one for each prior or variant and training seed, all at the same cost."""

from __future__ import annotations

import torch

from wsdcast.images.data.store import Images
from wsdcast.images.networks import generator_model, moments_model
from wsdcast.images.recipe import ImageRecipe
from wsdcast.nets.unet import UNet
from wsdcast.runs.overrides import overridden
from wsdcast.study.design import cost_of_moments, equal_cost_steps, step_operations
from wsdcast.training.loop import samples_per_step
from wsdcast.warmstart.moments import MomentsModel


def variant_of(recipe: ImageRecipe, images: Images, cost: tuple[float, int], name: str) -> tuple[ImageRecipe, float]:
    """The recipe with another prior, or a variant of ``study.variants``, at the total cost of training of the recipe itself.

    If the budget is in steps, as in the paper, it has the steps of the recipe, or its own. ``cost`` is that of the recipe's moments network
    (:func:`moments_cost`).

    Returns:
        The recipe of the variant, and the cost of its moments network in evaluations of its generator; 0 if it has none.

    Raises:
        UserError: if the variant has an unknown key or a value that is not allowed, or its moments network alone costs too much.
    """
    where = f"study.variants.{name}:" if name in recipe.study.variants else f"{name}:"
    variant = overridden(recipe, recipe.study.variants.get(name, {"generator.prior": name}), {}, where)
    if name not in recipe.study.variants and variant.generator.needs_moments_network:
        return variant, cost[0]  # the networks and the steps of the recipe
    moments, generator, context = _networks(variant, images)
    samples = images.count("train")
    visits = variant.moments.steps * samples_per_step(variant.moments, samples)
    ratio, once = cost_of_moments(moments, generator, context, variant.generator, samples, visits)
    if not variant.generator.needs_moments_network:
        ratio, once = 0.0, 0
    if recipe.study.budget == "steps":
        return variant, ratio
    _, of_recipe, _ = _networks(recipe, images)
    grid = images.shape[1:]
    relative = step_operations(generator, grid, variant.generator, samples) / step_operations(of_recipe, grid, recipe.generator, samples)
    # The moments are predicted anew in each step, which costs a third of a training visit.
    steps = equal_cost_steps(recipe.generator.steps + cost[1], relative, once, ratio / 3, where)
    return variant.changed(generator__steps=steps), ratio


def moments_cost(recipe: ImageRecipe, images: Images) -> tuple[float, int]:
    """The cost of the moments network, as in :func:`wsdcast.study.design.cost_of_moments`: one evaluation, and all of its training.

    The training includes one prediction for every sample of every step of the generator.
    """
    moments, generator, context = _networks(recipe, images)
    samples = images.count("train")
    predictions = recipe.generator.steps * samples_per_step(recipe.generator, samples)
    visits = recipe.moments.steps * samples_per_step(recipe.moments, samples) + predictions / 3
    return cost_of_moments(moments, generator, context, recipe.generator, samples, visits)


def _networks(recipe: ImageRecipe, images: Images) -> tuple[MomentsModel, UNet, tuple[int, ...]]:
    """The untrained networks, without values (device ``meta``), and the shape of one context."""
    channels, rows, columns = images.shape
    with torch.device("meta"):
        moments, generator = moments_model(recipe.moments, channels), generator_model(recipe.generator, channels)
    return moments, generator, (1, channels + 1, rows, columns)
