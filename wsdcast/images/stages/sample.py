"""The sample stage: draws samples for test images, and pictures of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.contexts import FixedContexts, fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.drawing import SHOWN, draw_samples, same_noise_samples, sampler_of, warmth_for
from wsdcast.images.evaluation import Diverged
from wsdcast.images.memory import require_sampling
from wsdcast.images.networks import Trained, trained
from wsdcast.images.pictures import same_noise, sample_grid, sampling_process
from wsdcast.images.recipe import ImageRecipe, Sampling
from wsdcast.images.scores import radial_power
from wsdcast.report.tails import tails_figure
from wsdcast.report.targets import targets_figure
from wsdcast.runs import devices
from wsdcast.runs.artefact import is_current, make_stamp, require, resolve
from wsdcast.runs.complete import complete
from wsdcast.runs.errors import UserError
from wsdcast.runs.locks import alone
from wsdcast.runs.names import GENERATOR, IMAGES, SAMPLES
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.resources import new_mapped, require_space
from wsdcast.runs.summary import Summary
from wsdcast.warmstart.evaluations import grid, solver, steps_for
from wsdcast.warmstart.flow import start_of, velocity_of
from wsdcast.warmstart.paths import cosine_transform
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.warmstart.solvers import trajectory
from wsdcast.warmstart.tails import Tails, tails_of

ROWS, COLUMNS = 6, 6
"""Contexts, and samples of each, in the picture of samples."""
EVALUATIONS = (2, 4, 6, 10, 20, 50)
"""Numbers of evaluations in the picture of the same noise."""
TAIL_CONTEXTS, TAIL_BATCH = 256, 32
"""The most contexts that the tails are computed from, and how many at a time."""


@devices.own_torch_settings()
def sample(
    recipe: str | Path | ImageRecipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    visible: float | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    """Draw samples for test images into ``RUN/samples``: ``samples.npy``, uint8 (context, sample, row, column, channel), and pictures.

    Sample m of image n depends only on (seed, n, m), the settings and the networks. On a CPU it does not depend on the number of samples,
    their batches or the number of threads.

    Args:
        recipe: path or name of a recipe; default: the one of the trained generator.
        run: run directory; default ``runs/<recipe name>``.
        visible: share of visible pixels, for the tasks inpaint and block.
        overwrite: replace samples of another recipe.
        changes: keys of the recipe's section ``sample``, such as ``nfe``.

    Raises:
        UserError: if nothing is trained, a key is not allowed, the solver cannot use this number of evaluations, or memory or disk cannot
            hold the samples.
    """
    if visible is not None and not 0 < visible < 1:
        raise UserError(f"--visible {visible:g}: the share of visible pixels must be between 0 and 1")
    in_section = {f"sample__{key}": value for key, value in changes.items()}
    resolved, directory = resolve(recipe, run, ImageRecipe, GENERATOR, task__visible_test=visible, **in_section)
    if visible is not None and not resolved.task.shows_pixels:
        raise UserError(f"--visible {visible:g}: the task {resolved.task.kind} has no visible pixels")
    images = open_images(require(resolved, directory, IMAGES))
    networks, settings, summary = trained(resolved, directory, images), resolved.sample, Summary("inpaint sample")
    unseen = fixed_contexts(images, "validation", resolved.task)
    require_sampling(resolved, images, settings.samples, noise_count=settings.noise_count, calibrated=settings.warmth == "calibrated")
    warmth = warmth_for(settings.warmth, networks, unseen)
    sampler = sampler_of(networks, settings, warmth)
    if is_current(resolved, directory, SAMPLES, overwrite):
        summary.facts["current"] = str(directory / SAMPLES)
        return summary
    devices.keep_freed_memory()
    contexts = fixed_contexts(images, settings.part, resolved.task, count=settings.contexts, seed=settings.seed)
    shape = (len(contexts), settings.samples, *images.images.shape[1:])
    require_space(directory, int(np.prod(shape)))
    diverged = Diverged()
    with alone(directory), complete(directory / SAMPLES) as partial:
        partial.mkdir()
        file = new_mapped(partial / "samples.npy", np.uint8, shape)
        for in_file, drawn in zip(
            file, draw_samples(contexts, sampler, settings.samples, watch=diverged, noise_count=settings.noise_count), strict=True
        ):
            in_file[:] = drawn
        file.flush()
        with devices.eagerly():
            tails, normalised = _tails(networks, contexts)
            pictures = _pictures(networks, contexts, file, settings, warmth)
        pictures |= {"tails": tails_figure(tails, "hidden values"), "targets": _targets(normalised)}
        for name, figure in pictures.items():
            figure.savefig(partial / f"{name}.png")
        used = {"warmth": warmth, "diverged": diverged.count}
        (partial / "stamp.json").write_text(json.dumps(make_stamp(resolved, directory, SAMPLES) | used, indent=2))
    summary.facts["contexts"] = f"{len(contexts)} of the part: {settings.part}"
    summary.facts["evaluations"] = f"{settings.nfe} a sample, {settings.solver}, {settings.grid_in_time} times, warmth {warmth:.3g}"
    if diverged.count:
        summary.facts["diverged"] = f"{diverged.count} of {shape[0] * shape[1]} samples are not finite; they have no scores"
    summary.facts |= {f"hidden values, {name}": str(of) for name, of in tails.items()}
    summary.written[str(directory / SAMPLES)] = f"{settings.samples} samples each; grid, process, same_noise, tails and targets.png"
    return summary


@torch.inference_mode()
def _pictures(
    networks: Trained, contexts: FixedContexts, samples: NDArray[np.uint8], settings: Sampling, warmth: float
) -> dict[str, Figure]:
    """Draw the pictures of samples, the process and the same noise, as Figs. 4, 3 and 11 of the paper."""
    positions = torch.arange(min(ROWS, len(contexts)))
    context = contexts.context(positions)
    mean, std, *_ = networks.moments(context)
    truth = contexts.images.images[contexts.chosen[: positions.numel()]]
    shown = [np.asarray(values.cpu()) for values in (context, mean, std)]
    subset = replace(contexts, chosen=contexts.chosen[:SHOWN])
    by_number = same_noise_samples(subset, networks, settings, EVALUATIONS, warmth)
    normalised, states, times = _process(networks, context[:1], contexts.noise(positions[:1], 1, settings.noise_count)[0], settings, warmth)
    return {
        "grid": sample_grid(shown[0], truth, shown[1], shown[2], samples[: positions.numel(), :COLUMNS]),
        "process": sampling_process(shown[0][0], truth[0], shown[1][0], shown[2][0], normalised, states, times),
        "same_noise": same_noise(shown[0][:SHOWN], truth[:SHOWN], {"samples": by_number}),
    }


@torch.inference_mode()
def _tails(networks: Trained, contexts: FixedContexts) -> tuple[dict[str, Tails], Tensor]:
    """Return the tails of the distribution of hidden values, before and after normalisation; and the normalised images.

    The images, (image, channel, row, column), are on the CPU. They are normalised at full warmth.
    """
    normalised: list[Tensor] = []

    def parts() -> Iterator[tuple[InformedPrior, Tensor, Tensor]]:
        for positions in torch.arange(min(TAIL_CONTEXTS, len(contexts))).split(TAIL_BATCH):
            context, target = contexts.context(positions), contexts.target(positions)
            prior = networks.prior_of(context)
            normalised.append(prior.normalise(target).cpu())
            yield prior, target, context[:, -1:] != 1

    return tails_of(parts()), torch.cat(normalised)


def _targets(normalised: Tensor) -> Figure:
    """Draw the power of the state and of both targets of the path blur-noise by wavenumber, for images (image, channel, row, column)."""

    def power(fields: Tensor) -> NDArray[np.floating]:
        return radial_power(fields.movedim(1, -1).double().numpy()).mean(axis=0)

    rows, columns = normalised.shape[2:]
    wavenumbers = np.arange(1, min(rows, columns)) / 2
    return targets_figure(normalised, cosine_transform(rows, columns), power, wavenumbers, "waves across the image")


def _process(networks: Trained, context: Tensor, noise: Tensor, settings: Sampling, warmth: float) -> tuple[Any, Any, Any]:
    """Return the states of one sample at every step, in normalised space and in data space, and the flow times.

    The states are (step + 1, channel, row, column), the times (step + 1,).
    """
    shared = noise.new_full((1,), warmth)
    prior = networks.prior_of(context).blended(shared)
    times = grid(settings.grid_in_time, steps_for(settings.solver, settings.nfe), settings.log_snr_ends)
    velocity, start = velocity_of(networks.generator, prior, context, shared, networks.path), start_of(networks.path, noise, prior, times)
    states = trajectory(solver(settings.solver, settings.momentum), velocity, start, times)
    denormalised = [prior.denormalise(x) for x in states]
    return torch.cat(states).cpu().numpy(), torch.cat(denormalised).cpu().numpy(), times.numpy()
