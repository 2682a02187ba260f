"""Stage 2: from the prepared store to the moments model, then the generator."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wsdcast import models
from wsdcast.artefact import ANALYSIS, GENERATOR, MOMENTS, Summary, complete, is_current, make_stamp, require, resolve
from wsdcast.context import context_of, surroundings
from wsdcast.data.analysis import Analysis, open_analysis
from wsdcast.progress import track
from wsdcast.recipe import Network, Recipe
from wsdcast.warmstart.flow import training_loss
from wsdcast.warmstart.moments import negative_log_likelihood
from wsdcast.warmstart.prior import InformedPrior, PriorOf, standard, warm_start
from wsdcast.warmstart.training import fit

ContextOf = Callable[[Tensor], Tensor]
"""From indices of time (batch,) to contexts (batch, channel, latitude, longitude)."""
LARGEST_CACHE = 4e9
"""Bytes of predicted moments that are kept in memory while the generator trains; larger records predict them batch by batch."""


def train(
    recipe: str | Path | None = None,
    run: str | Path | None = None,
    *,
    prior: Literal["warm", "standard"] | None = None,
    overwrite: bool = False,
) -> Summary:
    """Train the moments model, then the generator, into ``RUN/moments`` and ``RUN/generator``.

    Args:
        recipe: path or name of a recipe; default: the one of the prepared store.
        run: run directory; default ``runs/<recipe name>``.
        prior: ``warm`` starts from predicted moments, ``standard`` from N(0, 1); default from the recipe.
        overwrite: replace networks made from another recipe.

    Raises:
        UserError: if nothing is prepared, the store is of another recipe, or training diverges.
    """
    resolved, directory = resolve(recipe, run, ANALYSIS, generator__prior=prior)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    models.keep_freed_memory()
    states = torch.from_numpy(record.normalise(record.wind)).to(models.device())
    now = torch.from_numpy(record.now("train"))
    beside = surroundings(record, resolved.context, states.device)

    def context(now: Tensor) -> Tensor:
        return context_of(states, now, record.times, beside)

    summary = Summary("train", facts={"training triples": now.numel()})

    moments: nn.Module | None = None
    prior_of = standard(models.CHANNELS)
    if resolved.generator.prior == "warm":
        moments = _moments(resolved, directory, record, states, now, context, overwrite, summary)
        prior_of = warm_start(moments)
    if is_current(resolved, directory, GENERATOR, overwrite):
        summary.facts["current"] = str(directory / GENERATOR)
        return summary

    _seed(resolved, 1)
    generator = models.to_device(models.generator_model(resolved.generator, record.grid.includes_poles, beside.channels))
    random = torch.Generator().manual_seed(resolved.seed)
    priors = _priors(prior_of, states, now, context)

    def loss_of(network: nn.Module, chosen: Tensor) -> Tensor:
        return training_loss(network, priors(chosen), context(now[chosen]), states[now[chosen] + 1], random)

    _fit(resolved, resolved.generator, generator, loss_of, now.numel(), directory, GENERATOR, summary)
    return summary


def _moments(
    recipe: Recipe,
    directory: Path,
    record: Analysis,
    states: Tensor,
    now: Tensor,
    context: ContextOf,
    overwrite: bool,
    summary: Summary,
) -> nn.Module:
    """The trained h_phi, from the run directory or new."""
    channels = context(now[:1]).shape[1] - models.CONTEXT
    if is_current(recipe, directory, MOMENTS, overwrite):
        summary.facts["current"] = str(directory / MOMENTS)
    else:
        _seed(recipe, 0)
        network = models.to_device(models.moments_model(recipe.moments, record.grid.includes_poles, channels))

        def loss_of(network: nn.Module, chosen: Tensor) -> Tensor:
            return negative_log_likelihood(network, context(now[chosen]), states[now[chosen] + 1])

        _fit(recipe, recipe.moments, network, loss_of, now.numel(), directory, MOMENTS, summary)
    moments = models.load(models.moments_model(recipe.moments, record.grid.includes_poles, channels), directory / MOMENTS)
    weights = torch.from_numpy(record.grid.area_weights).float()[:, None].to(states.device)
    # In the sample and out of it, side by side: a moments model that overfits is overconfident out of sample.
    for part, label in (("train", "training"), ("validation", "validation")):
        indices = torch.from_numpy(record.now(part))  # type: ignore[arg-type]
        if indices.numel():
            summary.facts[f"moments, {label} part"] = _check_moments(
                moments, states, indices[:: max(1, indices.numel() // 256)], context, weights
            )
    return moments


@torch.inference_mode()
def _check_moments(moments: nn.Module, states: Tensor, now: Tensor, context: ContextOf, weights: Tensor) -> str:
    """Error of the mean in units of the wind's standard deviation, and calibration of the predicted one."""
    errors, scores = [], []
    for some in now.split(32):
        mean, std = moments(context(some))
        error = states[some + 1] - mean
        errors.append((error**2 * weights).mean(dim=(1, 2, 3)))
        scores.append(((error / std) ** 2 * weights).mean(dim=(1, 2, 3)))
    return f"error {torch.cat(errors).mean().sqrt():.3f} std of the wind; (x - mean) / std has std {torch.cat(scores).mean().sqrt():.2f}"


def _priors(prior_of: PriorOf, states: Tensor, now: Tensor, context: ContextOf) -> Callable[[Tensor], InformedPrior]:
    """Priors of chosen training samples, predicted once and kept where memory allows (section 2.4)."""

    def predict(chosen: Tensor) -> InformedPrior:
        return prior_of(context(now[chosen]))

    if 2 * 4 * now.numel() * states[0].numel() > LARGEST_CACHE:
        return predict
    batches = torch.arange(now.numel()).split(32)
    parts = [predict(chosen) for chosen in track(batches, "predicting priors", len(batches))]
    mean = torch.cat([part.mean for part in parts]).contiguous()
    std = torch.cat([part.std for part in parts]).contiguous()
    return lambda chosen: InformedPrior(mean[chosen], std[chosen])


def _fit(
    recipe: Recipe,
    network: Network,
    model: nn.Module,
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    samples: int,
    directory: Path,
    artefact: str,
    summary: Summary,
) -> None:
    """Run the training loop with a progress bar and keep the averaged weights."""
    history: list[dict[str, Any]] = []
    begin = time.perf_counter()
    with complete(directory / artefact) as partial:
        averaged = copy.deepcopy(model).eval().requires_grad_(False)
        losses = fit(
            model,
            averaged,
            loss_of,
            samples,
            steps=network.steps,
            batch=network.batch,
            rate=network.rate,
            clip=network.clip,
            average=network.average,
            random=torch.Generator().manual_seed(recipe.seed),
        )
        for step, loss in enumerate(track(losses, f"training {artefact}", network.steps)):
            history.append({"step": step, "loss": loss})
        models.save(averaged, partial, make_stamp(recipe, directory, artefact), history)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tail = np.mean([row["loss"] for row in history[-max(1, network.steps // 10) :]])
    summary.written[str(directory / artefact)] = f"{parameters / 1e6:.2f} M parameters"
    summary.facts[f"{artefact} loss"] = f"{tail:.4f}, mean of the last tenth of {network.steps} steps of {network.batch}"
    summary.facts[f"{artefact} time"] = f"{time.perf_counter() - begin:.0f} s"


def _seed(recipe: Recipe, network: int) -> None:
    """First weights and dropout depend on the recipe's seed alone, whichever network is trained."""
    torch.manual_seed(2 * recipe.seed + network)
