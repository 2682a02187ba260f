"""Stage 2: from the prepared store to the moments model, then the generator."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsdcast import models
from wsdcast.artefact import (
    ANALYSIS,
    GENERATOR,
    MOMENTS,
    PREDICTIONS,
    Summary,
    complete,
    is_current,
    make_stamp,
    require,
    require_space,
    resolve,
)
from wsdcast.context import Samples, samples_of, surroundings
from wsdcast.data.analysis import Analysis, open_analysis
from wsdcast.names import PriorName
from wsdcast.predictions import Predictors, checked, errors, folds, in_words, read_predictions, write_predictions
from wsdcast.priors import fixed_or_given, rank_told, start_of
from wsdcast.progress import track
from wsdcast.recipe import Network, Recipe
from wsdcast.warmstart.flow import joint_loss, training_loss
from wsdcast.warmstart.moments import MomentsModel, negative_log_likelihood
from wsdcast.warmstart.prior import InformedPrior, Moments, warm_start
from wsdcast.warmstart.training import fit

Losses = list[dict[str, float]]


def train(
    recipe: str | Path | Recipe | None = None,
    run: str | Path | None = None,
    *,
    prior: PriorName | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
) -> Summary:
    """Train the moments model, then the generator, into ``RUN/moments`` and ``RUN/generator``, or both at once into the latter.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        prior: where flow matching starts, and what the generator is told; default from the recipe.
        moments: for the prior ``given``, a model of yours: ``moments(context) -> (mean, std)``, as in
            :func:`wsdcast.priors.fixed_or_given`. Give the same one to :func:`wsdcast.rollout`.
        overwrite: replace networks made from another recipe.

    Raises:
        UserError: if nothing is prepared, the store is of another recipe, or training diverges.
    """
    resolved, directory = resolve(recipe, run, ANALYSIS, generator__prior=prior)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    models.keep_freed_memory()
    beside = surroundings(record, resolved.context, models.device())
    samples, unseen = samples_of(record, beside, "train", "validation")
    summary = Summary("train", facts={"training triples": len(samples)})

    prior_of: Callable[[Tensor], InformedPrior] | None = None
    start = start_of(resolved)
    if resolved.generator.reads_frozen_moments:
        _moments(resolved, directory, record, samples, overwrite, summary)
        trained_moments = models.load(_untrained_moments(resolved, record, samples), directory / MOMENTS)
        # In the sample and out of it, side by side: a moments model that overfits is overconfident out of sample.
        for part, label in ((samples, "training"), (unseen, "validation")):
            if len(part):
                summary.facts[f"moments, {label} part"] = in_words(*checked(trained_moments, part, record.grid))
        _predictions(resolved, directory, record, samples, overwrite, summary)
        predicted = read_predictions(directory / PREDICTIONS, models.device())
        prior_of = lambda chosen: start(*predicted(chosen))  # noqa: E731
    elif not resolved.generator.needs_moments_network:
        from_context = warm_start(fixed_or_given(resolved, record, moments), start)
        prior_of = lambda chosen: from_context(samples.context(chosen))  # noqa: E731
    if is_current(resolved, directory, GENERATOR, overwrite):
        summary.facts["current"] = str(directory / GENERATOR)
        return summary

    _seed(resolved, 1)
    poles, channels = record.grid.includes_poles, beside.channels
    model: nn.Module = models.generator_model(resolved.generator, poles, channels, rank_told(resolved))
    # Not the stream that orders the samples.
    random = torch.Generator().manual_seed(int(np.random.SeedSequence([resolved.seed, 1]).generate_state(1)[0]))
    if prior_of is None:
        model = nn.ModuleDict({"moments": models.moments_model(resolved.moments, poles, channels), "generator": model})

    def loss_of(network: nn.Module, chosen: Tensor) -> Tensor:
        context, target = samples.context(chosen), samples.target(chosen)
        if prior_of is not None:
            return training_loss(network, prior_of(chosen), context, target, random)
        end_to_end = resolved.generator.moments == "end-to-end"
        return joint_loss(network.generator, network.moments, start, context, target, random, end_to_end)  # type: ignore[arg-type]

    seconds = _stopwatch()
    with complete(directory / GENERATOR) as partial:
        generator, losses = _fitted(
            resolved, resolved.generator, models.to_device(model), loss_of, torch.arange(len(samples)), GENERATOR, summary
        )
        models.save({models.WEIGHTS: generator}, partial, make_stamp(resolved, directory, GENERATOR) | {"seconds": seconds()}, losses)
    summary.written[str(directory / GENERATOR)] = _size(generator)
    return summary


def _moments(recipe: Recipe, directory: Path, record: Analysis, samples: Samples, overwrite: bool, summary: Summary) -> None:
    """Train h_phi, and one network for each fold without its part of the record, unless they are there and current."""
    if is_current(recipe, directory, MOMENTS, overwrite):
        summary.facts[f"current: {MOMENTS}"] = str(directory / MOMENTS)
        return

    def loss_of(network: nn.Module, chosen: Tensor) -> Tensor:
        return negative_log_likelihood(network, samples.context(chosen), samples.target(chosen))

    parts = _folds(recipe, samples)
    chosen_by = {models.WEIGHTS: torch.arange(len(samples)), **{name: outside for name, (outside, _) in parts.items()}}
    seconds = _stopwatch()
    with complete(directory / MOMENTS) as partial:
        networks: dict[str, MomentsModel] = {}
        losses: Losses = []
        for name, chosen in chosen_by.items():
            _seed(recipe, 0)
            label = MOMENTS if name == models.WEIGHTS else f"{MOMENTS}, {name}"
            network = _untrained_moments(recipe, record, samples)
            networks[name], history = _fitted(recipe, recipe.moments, network, loss_of, chosen, label, summary)
            losses = losses or history  # of the first, which sees all samples
        if parts:
            # Out of the sample errors are larger than the networks think, and by how much is known from the folds.
            predictors: Predictors = [(networks[name], inside) for name, (_, inside) in parts.items()]
            _, ratio = errors(predictors, samples, record.grid)
            summary.facts["moments, out of fold"] = f"(x - mean) / std has std {ratio.square().mean().sqrt():.2f}; std scaled by it"
            for network in networks.values():
                network.calibration.copy_(ratio)
        models.save(dict(networks), partial, make_stamp(recipe, directory, MOMENTS) | {"seconds": seconds()}, losses)
    summary.written[str(directory / MOMENTS)] = _size(networks[models.WEIGHTS])


def _predictions(recipe: Recipe, directory: Path, record: Analysis, samples: Samples, overwrite: bool, summary: Summary) -> None:
    """Predict the moments of the training samples, unless it was done: each by the network that has not seen it if there are folds.

    If there are none, dropout stays on: a network errs less on what it has seen, and a generator trained on such moments would trust them
    too much. With features dropped its errors are about those on new samples, at no cost (docs/results/gfs.md).
    """
    if is_current(recipe, directory, PREDICTIONS, overwrite):
        return
    _seed(recipe, 0)
    parts = _folds(recipe, samples) or {models.WEIGHTS: (torch.arange(0), torch.arange(len(samples)))}
    size = 2 + recipe.moments.rank
    require_space(directory, 4 * size * len(samples) * samples.states[0].numel())
    passed = _stopwatch()
    predictors: Predictors = [
        (models.load(_untrained_moments(recipe, record, samples), directory / MOMENTS, name).train(not recipe.moments.folds), inside)
        for name, (_, inside) in parts.items()
    ]
    with complete(directory / PREDICTIONS) as partial:
        write_predictions(partial, predictors, samples, size, make_stamp(recipe, directory, PREDICTIONS))
    visits = recipe.generator.steps * recipe.generator.batch / len(samples)
    how = "each by the network that has not seen it, " if recipe.moments.folds else ""
    summary.written[str(directory / PREDICTIONS)] = f"moments of the training samples, {how}predicted once in {passed():.1f} s"
    if visits > 1:
        summary.facts["predictions save"] = f"about {passed() * (visits - 1):.0f} s, because training visits a sample {visits:.0f} times"


def _folds(recipe: Recipe, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
    """Samples outside and inside of each fold, by the name of its network's weights."""
    return {f"fold-{number}": part for number, part in enumerate(folds(len(samples), recipe.moments.folds))}


def _untrained_moments(recipe: Recipe, record: Analysis, samples: Samples) -> MomentsModel:
    return models.to_device(models.moments_model(recipe.moments, record.grid.includes_poles, samples.beside.channels))


def _fitted(
    recipe: Recipe,
    network: Network,
    model: models.Model,
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    chosen: Tensor,
    label: str,
    summary: Summary,
) -> tuple[models.Model, Losses]:
    """Run the training loop on some samples with a progress bar; the averaged network and its losses."""
    begin = time.perf_counter()
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    steps = fit(
        model,
        averaged,
        lambda model, some: loss_of(model, chosen[some]),
        chosen.numel(),
        steps=network.steps,
        batch=network.batch,
        rate=network.rate,
        clip=network.clip,
        average=network.average,
        random=torch.Generator().manual_seed(recipe.seed),
    )
    losses = [{"step": step, "loss": loss} for step, loss in enumerate(track(steps, f"training {label}", network.steps))]
    tail = np.mean([row["loss"] for row in losses[-max(1, network.steps // 10) :]])
    summary.facts[f"{label} loss"] = f"{tail:.4f}, mean of the last tenth of {network.steps} steps of {network.batch}"
    summary.facts[f"{label} time"] = f"{time.perf_counter() - begin:.0f} s"
    return averaged, losses


def _stopwatch() -> Callable[[], float]:
    """Seconds since now."""
    begin = time.perf_counter()
    return lambda: time.perf_counter() - begin


def _size(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f} M parameters"


def _seed(recipe: Recipe, network: int) -> None:
    """First weights and dropout depend on the recipe's seed alone, whichever network is trained."""
    torch.manual_seed(2 * recipe.seed + network)
