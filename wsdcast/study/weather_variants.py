"""The generators of a weather study: one for each prior or variant and training seed, all at the same cost."""

from __future__ import annotations

from dataclasses import replace

import torch

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.unet import UNet
from wsdcast.runs.overrides import overridden
from wsdcast.study.design import cost_of_moments, equal_cost_steps, step_operations
from wsdcast.training.loop import require_samples, samples_per_step
from wsdcast.warmstart.crps import MEMBERS
from wsdcast.warmstart.moments import MomentsModel
from wsdcast.weather.forcings import forcings_of
from wsdcast.weather.networks import generator_model, moments_model, sizes_of
from wsdcast.weather.recipe import Recipe


def variant_of(recipe: Recipe, record: Analysis, cost: tuple[float, int], name: str) -> tuple[Recipe, float]:
    """The recipe with another prior, or a variant of ``study.variants``, at the total cost of training of the recipe itself.

    A prior without a moments network is trained for more steps. The total includes such a network whatever the prior of the recipe itself,
    trained before the generator or with it as ``generator.moments`` says. The cost of a user's model (``given``) is not known and not
    counted. ``cost`` is that of the recipe's moments network (:func:`moments_cost`).

    Returns:
        The recipe of the variant, and the cost of its moments network in evaluations of its generator; 0 if it has none.

    Raises:
        UserError: if the variant has an unknown key or a value that is not allowed, or the networks other than its generator cost too much.
    """
    where = f"study.variants.{name}:" if name in recipe.study.variants else f"{name}:"
    variant = overridden(recipe, recipe.study.variants.get(name, {"generator.prior": name}), {}, where)
    if variant.generator.prior == "given":
        return variant, 0.0
    own_cost = moments_cost(variant, record)
    once, share = _other_networks(variant, record, own_cost)
    once_of_recipe, share_of_recipe = _other_networks(_with_moments_network(recipe), record, cost)
    total = once_of_recipe + recipe.generator.steps * (1 + share_of_recipe)
    relative = generator_operations(variant, record) / generator_operations(recipe, record)
    steps = equal_cost_steps(total, relative, once, share, where)
    return variant.changed(generator__steps=steps), own_cost[0] * variant.generator.needs_moments_network


def _with_moments_network(recipe: Recipe) -> Recipe:
    """The recipe, or if its prior has no moments network, the recipe with the prior ``warm``: a study has several priors and one budget."""
    if recipe.generator.needs_moments_network:
        return recipe
    return recipe.model_copy(update={"generator": recipe.generator.model_copy(update={"prior": "warm"})})


def _other_networks(recipe: Recipe, record: Analysis, cost: tuple[float, int]) -> tuple[float, float]:
    """The cost of all networks but the generator: what they do once, and what they do in each of its steps; both in these steps."""
    ratio = cost[0] * recipe.generator.needs_moments_network
    once, share = (float(cost[1]), 0.0) if recipe.generator.reads_frozen_moments else (0.0, ratio)
    return (once + steps_after_the_generator(recipe, ratio, training_samples(recipe, record))) / _members(recipe), share


def training_samples(recipe: Recipe, record: Analysis) -> int:
    """Number of training samples, each with the past states that the recipe asks for.

    Raises:
        UserError: if there is none.
    """
    samples = _with_past_states(record, recipe).now("train").size
    require_samples(samples)
    return samples


def generator_operations(recipe: Recipe, record: Analysis) -> int:
    """Floating-point operations of :func:`wsdcast.study.design.step_operations`, for both members of a sample with the objective crps."""
    _, generator, _ = _networks(recipe, record)
    return _members(recipe) * step_operations(generator, record.grid.shape, recipe.generator, training_samples(recipe, record))


def steps_after_the_generator(recipe: Recipe, ratio: float, samples: int) -> float:
    """The cost of the networks that are trained after the generator, in training steps of the generator.

    It is counted in evaluations of one sample. A forward pass is one evaluation, and a backward pass costs two. A training step of the
    generator has both.

    Args:
        recipe: the recipe.
        ratio: cost of one evaluation of the moments network, in evaluations of the generator; 0 if there is none.
        samples: number of all training samples. Those of fine-tuning, which need longer rows of states, may be fewer; this is not counted.
    """
    few, tuned = recipe.few_steps, recipe.fine_tune
    of_sample = {
        "distil": 3 * few.nfe + few.teacher_nfe,
        "shortcut": 3 + 2 * (1 - few.flow_share),
        "mean-flow": 3 + 2,  # the derivative in forward mode, and the network's own velocity
    }.get(recipe.generator.objective, 0.0)
    if of_sample and not recipe.generator.reads_frozen_moments:
        of_sample += ratio  # the moments of each batch are predicted anew
    total = few.steps * samples_per_step(few, samples) * of_sample
    # The moments network is frozen, but with gradients through all steps they go through it to the states before, from the second step on.
    of_all = [3 * tuned.nfe * length + ratio * (length + (length - 1)) for length in tuned.rollout]
    of_last = [tuned.nfe * (length + 2) + ratio * length for length in tuned.rollout]
    of_rollout = of_all if tuned.gradients == "all" else of_last
    total += tuned.steps * samples_per_step(tuned, samples) * MEMBERS * sum(of_rollout) / len(of_rollout)
    return total / (3 * samples_per_step(recipe.generator, samples))


def moments_cost(recipe: Recipe, record: Analysis) -> tuple[float, int]:
    """The cost of the moments network, as in :func:`wsdcast.study.design.cost_of_moments`: one evaluation, and all of its training.

    The training includes the networks of the folds, each counted like the network of all samples, and one prediction of each training
    sample (two with folds).

    Raises:
        UserError: if there is no training sample.
    """
    moments, generator, context = _networks(recipe, record)
    folds, samples = recipe.moments.folds, training_samples(recipe, record)
    visits = (1 + folds) * recipe.moments.steps * samples_per_step(recipe.moments, samples) + (2 if folds else 1) * samples / 3
    return cost_of_moments(moments, generator, context, recipe.generator, samples, visits)


def _members(recipe: Recipe) -> int:
    """Evaluations of the generator for each sample of a training step: that of both members, on the CRPS."""
    return MEMBERS if recipe.generator.objective == "crps" else 1


def _with_past_states(record: Analysis, recipe: Recipe) -> Analysis:
    """The record with as many past states as the recipe asks for."""
    return replace(record, past_states=recipe.forcings.past_states)


def _networks(recipe: Recipe, record: Analysis) -> tuple[MomentsModel, UNet, tuple[int, ...]]:
    """The untrained networks, without values (device ``meta``), and the shape of one context."""
    record = _with_past_states(record, recipe)
    sizes = sizes_of(record, forcings_of(record, recipe.forcings, torch.device("cpu")))
    with torch.device("meta"):
        moments, generator = moments_model(recipe.moments, sizes), generator_model(recipe.generator, sizes, noise=recipe.crps.noise)
    return moments, generator, (1, sizes.context, *record.grid.shape)
