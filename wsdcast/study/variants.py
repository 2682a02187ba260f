"""The generators of a study: one for each prior and seed of training, all at the same cost."""

from __future__ import annotations

from pathlib import Path

import torch

from wsdcast.data.store.analysis import Analysis
from wsdcast.nets.weights import operations
from wsdcast.runs.artefact import is_current
from wsdcast.runs.names import ANALYSIS, GENERATOR, MOMENTS, PREDICTIONS, PriorName
from wsdcast.study.sharing import variant_place
from wsdcast.warmstart.prior import Moments
from wsdcast.weather.networks import CONTEXT, generator_model, moments_model
from wsdcast.weather.priors import rank_told
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.stages.train import train


def variant_of(recipe: Recipe, cost: tuple[float, int], seed: int, prior: PriorName) -> Recipe:
    """The recipe with another seed and prior, at the same total cost of training; ``cost`` is that of the moments, :func:`moments_cost`."""
    variant = recipe.changed(seed=seed, generator__prior=prior)
    if variant.generator.reads_frozen_moments or prior == "given":  # what a model of the user's cost is not known
        return variant
    ratio, extra = cost
    both = variant.generator.needs_moments_network  # at the same time
    return variant.changed(generator__steps=round((variant.generator.steps + extra) / (1 + ratio * both)))


def moments_cost(recipe: Recipe, record: Analysis) -> tuple[float, int]:
    """Floating-point operations of the moments network per sample, in evaluations of the generator, and of its training, in steps of the
    generator's: of itself, of the networks of its folds, and of predicting the training samples.
    """
    beside = len(recipe.forcings.static) + 4 * recipe.forcings.solar_time
    moments = moments_model(recipe.moments, record.grid.includes_poles, beside)
    generator = generator_model(recipe.generator, record.grid.includes_poles, beside, rank_told(recipe))
    context = torch.zeros(1, CONTEXT + beside, *record.grid.shape)
    channels = generator.first.in_channels
    inputs = torch.zeros(1, channels, *record.grid.shape), torch.zeros(1), torch.zeros(1)
    ratio = operations(moments, context) / operations(generator, *inputs)
    folds, samples = recipe.moments.folds, record.now("train").size
    # A step of training costs three evaluations for each of its samples: one forward, two backward.
    per_step = recipe.moments.batch * recipe.moments.accumulate
    visits = (1 + folds) * recipe.moments.steps * per_step + (2 if folds else 1) * samples / 3
    return ratio, round(visits * ratio / (recipe.generator.batch * recipe.generator.accumulate))


def train_variant(variant: Recipe, directory: Path, moments: Moments | None, overwrite: bool) -> Path:
    """The run directory of one generator below the study's, trained unless it is."""
    networks = (GENERATOR, MOMENTS, PREDICTIONS) if variant.generator.reads_frozen_moments else (GENERATOR,)
    place = variant_place(variant, directory, f"{variant.generator.prior}-{variant.seed}", ANALYSIS, networks)
    if not is_current(variant, place, GENERATOR, overwrite):
        train(variant, place, moments=moments, overwrite=overwrite)
    return place
