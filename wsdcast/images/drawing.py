"""Draw samples of images for fixed contexts with Algorithm 2; on a CPU a sample does not depend on how samples are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from math import gcd
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.contexts import FixedContexts
from wsdcast.images.networks import Trained
from wsdcast.images.recipe import ImageRecipe, Sampling
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import TORCHDIFFEQ, PathName
from wsdcast.runs.progress import track
from wsdcast.sampling import batches
from wsdcast.sampling.acceleration import accelerated
from wsdcast.sampling.batches import at_once, in_batches
from wsdcast.sampling.samplers import Sampler, generator_sampler, moments_sampler
from wsdcast.sampling.threads import side_by_side
from wsdcast.warmstart.evaluations import grid, require_possible, solver, steps_for
from wsdcast.warmstart.prior import frozen_prior
from wsdcast.warmstart.warmth import calibrated_warmth

Bytes = NDArray[np.uint8]

CALIBRATED_ON = 256
"""The most images that a warmth is calibrated on."""

SHOWN = 3
"""Contexts in the picture of the same noise."""


def batch_size(points: int, device: torch.device) -> int:
    """Return the number of samples per evaluation for images of ``points`` pixels.

    On a GPU it is 250 for 32x32 pixels, an eighth of the points that the planet's small generator gets. From its widths, the paper's
    network of 56 million parameters has some 10 MB of activations per sample. This is an estimate, not a measurement.
    """
    return batches.batch_size(points, device) if device.type == "cpu" else max(1, 256_000 // points)


def sampler_of(networks: Trained, settings: Sampling, warmth: float) -> Sampler:
    """Return the sampler of Algorithm 2 with the settings of a recipe, at a warmth w of Eq. 4; on a GPU it is accelerated.

    Raises:
        UserError: if the solver cannot use exactly this number of evaluations, or cannot step on this grid.
    """
    name, nfe = settings.solver, settings.nfe
    require_possible(name, settings.grid_in_time, nfe, networks.path.name)
    times, solve = grid(settings.grid_in_time, steps_for(name, nfe), settings.log_snr_ends), solver(name, settings.momentum)
    sampler = generator_sampler(networks.generator, networks.prior_of, nfe, warmth, times, solve, networks.path)
    return accelerated(sampler, [networks.generator, networks.moments], recorded=name not in TORCHDIFFEQ)


def require_own_samples(recipe: ImageRecipe) -> None:
    """Check that a generator of a recipe can make the recipe's own samples, before it is trained.

    Raises:
        UserError: as :func:`sampler_of`; the message begins with a key of the recipe.
    """
    settings = recipe.sample
    try:
        require_possible(settings.solver, settings.grid_in_time, settings.nfe, recipe.generator.followed_path, settings.momentum)
    except UserError as error:
        raise UserError(f"sample.{error}") from None


def moments_sampler_of(networks: Trained) -> Sampler:
    """Return the sampler of the moments alone, a baseline; on a GPU it is accelerated."""
    return accelerated(moments_sampler(frozen_prior(networks.moments)), [networks.moments])


def possible(solver_name: str, numbers: Iterable[int], grid_in_time: str, path: PathName) -> list[int]:
    """Return those numbers of evaluations that a solver can use exactly; none if it cannot step on the grid or along the path."""
    usable = []
    for number in numbers:
        with suppress(UserError):
            require_possible(solver_name, grid_in_time, number, path)
            usable.append(number)
    return usable


@torch.inference_mode()
def warmth_for(warmth: float | Literal["calibrated"], networks: Trained, unseen: FixedContexts) -> float:
    """Return the warmth, or for ``calibrated`` the one that is calibrated on contexts which no network has seen in training."""
    if warmth != "calibrated":
        return warmth
    positions = torch.arange(min(len(unseen), CALIBRATED_ON))
    context = unseen.context(positions)

    def calibrated(context: Tensor) -> float:
        return calibrated_warmth(networks.prior_of(context), unseen.target(positions), context[:, -1:] != 1)

    # One thread computes it: all samples depend on the warmth, and they must not depend on the number of threads.
    with devices.eagerly():
        return side_by_side(calibrated, [context], devices.device())[0]


@torch.inference_mode()
def draw_samples(
    contexts: FixedContexts,
    sampler: Sampler,
    samples: int,
    label: str = "sampling",
    watch: Callable[[Tensor], object] = lambda drawn: None,
    noise_count: int = 1,
) -> Iterator[Bytes]:
    """Yield the samples of each context as bytes, (sample, row, column, channel).

    Args:
        contexts: to draw samples for.
        sampler: from contexts and noise to samples.
        samples: number of samples per context.
        label: of the progress bar.
        watch: is called with each batch of samples before they become bytes, (batch, channel, row, column).
        noise_count: number of noise fields of a sample (:func:`wsdcast.warmstart.evaluations.count_noise`).
    """
    rows, columns = contexts.shape[1:]
    size = batch_size(rows * columns, devices.device())
    capacity = at_once(size, devices.device())
    # On a CPU a group of contexts fills whole batches on all threads, so that only the last batches of the last group are padded with
    # repetitions. On a GPU a group fills one batch.
    positions, on_cpu = torch.arange(len(contexts)), devices.device().type == "cpu"
    group = capacity // gcd(capacity, samples) if on_cpu else max(1, size // samples)
    groups = positions.split(group) if on_cpu else positions.tensor_split(-(-len(contexts) // group))
    sampler = in_batches(sampler, size)
    for chosen in track(groups, label, len(groups)):
        context = contexts.context(chosen).repeat_interleave(samples, dim=0)
        noise = contexts.noise(chosen, samples, noise_count).flatten(0, 1)
        watch(drawn := sampler(context, noise))
        yield from as_images(drawn).reshape(chosen.numel(), samples, rows, columns, -1)


@torch.inference_mode()
def same_noise_samples(
    contexts: FixedContexts, networks: Trained, settings: Sampling, numbers: Iterable[int], warmth: float
) -> dict[int, Bytes]:
    """Return one sample of each of a few contexts, (context, row, column, channel), for each number of evaluations the solver can use.

    Solver, grid and momentum are those of the settings. The samples are for pictures, so batches always have the size :data:`SHOWN`. They
    differ from those of :func:`draw_samples` by rounding only, and cost far less than padding the large batches of that function.
    """
    positions, drawn = torch.arange(len(contexts)), dict[int, Bytes]()
    context = contexts.context(positions)
    for nfe in possible(settings.solver, numbers, settings.grid_in_time, networks.path.name):
        of_number = settings.model_copy(update={"nfe": nfe})
        sampler = in_batches(sampler_of(networks, of_number, warmth), SHOWN)
        with devices.eagerly():
            drawn[nfe] = as_images(sampler(context, contexts.noise(positions, 1, of_number.noise_count)[:, 0]))
    return drawn


def as_images(x: Tensor) -> Bytes:
    """Convert data (..., channel, row, column) in [-1, 1] to bytes (..., row, column, channel).

    Values outside the range are clipped; NaN becomes mid-grey.
    """
    return (x.movedim(-3, -1) * 127.5 + 127.5).nan_to_num(127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
