"""Samples of images: Algorithm 2 for fixed contexts, each sample independent of how they are batched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import gcd
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.contexts import FixedContexts
from wsdcast.images.networks import Trained
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import TORCHDIFFEQ
from wsdcast.runs.progress import track
from wsdcast.sampling import batches
from wsdcast.sampling.acceleration import accelerated
from wsdcast.sampling.batches import at_once, in_batches
from wsdcast.sampling.samplers import Sampler, generator_sampler
from wsdcast.sampling.threads import side_by_side
from wsdcast.warmstart.evaluations import grid, require_possible, solver, steps_for
from wsdcast.warmstart.solvers import Watch, unwatched
from wsdcast.warmstart.warmth import calibrated_warmth

Bytes = NDArray[np.uint8]

CALIBRATED_ON = 256
"""Images that a warmth is calibrated on."""

SHOWN = 3
"""Contexts in a picture of the same noise."""


def batch_size(points: int, device: torch.device) -> int:
    """Samples per evaluation for images of ``points`` pixels.

    On a GPU 250 of 32x32 pixels, where the planet's small generator has eight times as many points: by its widths the paper's network of
    56 million parameters has some 10 MB of activations a sample. That was reckoned, not measured.
    """
    return batches.batch_size(points, device) if device.type == "cpu" else max(1, 256_000 // points)


def sampler_of(
    networks: Trained,
    solver_name: str,
    grid_in_time: str,
    nfe: int,
    warmth: float,
    log_snr_ends: tuple[float, float] | None = None,
    momentum: float = 1.0,
) -> Sampler:
    """Algorithm 2 with exactly ``nfe`` evaluations, on a GPU accelerated; the ends are of the log-SNR grid, the momentum of ab2 to ab4.

    Raises:
        UserError: if the solver cannot take so many, or no steps of this grid.
    """
    require_possible(solver_name, grid_in_time, nfe, networks.path.name)
    times = grid(grid_in_time, steps_for(solver_name, nfe), log_snr_ends)
    sampler = generator_sampler(networks.generator, networks.prior_of, nfe, warmth, times, solver(solver_name, momentum), networks.path)
    return accelerated(sampler, [networks.generator, networks.moments], recorded=solver_name not in TORCHDIFFEQ)


def possible(solver_name: str, numbers: Iterable[int], grid_in_time: str = "uniform") -> list[int]:
    """Those numbers of evaluations that a solver can take exactly; none if it cannot take the steps of the grid."""
    found = []
    for number in numbers:
        with suppress(UserError):
            require_possible(solver_name, grid_in_time, number)
            found.append(number)
    return found


@torch.inference_mode()
def warmth_for(warmth: float | Literal["calibrated"], networks: Trained, unseen: FixedContexts) -> float:
    """The warmth itself, or that at which the moments are calibrated on some contexts that no network has seen."""
    if warmth != "calibrated":
        return warmth
    some = torch.arange(min(len(unseen), CALIBRATED_ON))
    context = unseen.context(some)

    def calibrated(context: Tensor) -> float:
        return calibrated_warmth(networks.prior_of(context), unseen.target(some), context[:, -1:] != 1)

    # By one thread: all samples depend on it, and they must not depend on the number of threads.
    return side_by_side(calibrated, [context], devices.device())[0]


@torch.inference_mode()
def draw_samples(
    contexts: FixedContexts, sampler: Sampler, samples: int, label: str = "sampling", watch: Watch = unwatched
) -> Iterator[Bytes]:
    """For each context its samples, (sample, row, column, channel), as images are; ``watch`` sees them before, (batch, channel, ...)."""
    rows, columns = contexts.shape[1:]
    size = batch_size(rows * columns, devices.device())
    places = at_once(size, devices.device())
    # As many contexts as fill all places: only the last batches of all are filled up with repetitions. On a GPU as many as a batch holds.
    every, on_cpu = torch.arange(len(contexts)), devices.device().type == "cpu"
    group = places // gcd(places, samples) if on_cpu else max(1, size // samples)
    parts = every.split(group) if on_cpu else every.tensor_split(-(-len(contexts) // group))
    sampler = in_batches(sampler, size)
    for some in track(parts, label, len(parts)):
        context = contexts.context(some).repeat_interleave(samples, dim=0)
        noise = contexts.noise(some, samples).flatten(0, 1)
        watch(drawn := sampler(context, noise))
        yield from as_images(drawn).reshape(some.numel(), samples, rows, columns, -1)


@torch.inference_mode()
def same_noise_samples(
    contexts: FixedContexts, networks: Trained, solver_name: str, grid_in_time: str, numbers: Iterable[int], warmth: float
) -> dict[int, Bytes]:
    """One sample of each of a few contexts, (context, row, column, channel), by those numbers of evaluations that the solver can take.

    For pictures, so in batches of :data:`SHOWN`, always: samples are those of :func:`draw_samples` but for rounding, at a small part of
    the cost of filling up its batches.
    """
    every = torch.arange(len(contexts))
    context, noise = contexts.context(every), contexts.noise(every, 1)[:, 0]
    samplers = {nfe: sampler_of(networks, solver_name, grid_in_time, nfe, warmth) for nfe in possible(solver_name, numbers, grid_in_time)}
    return {nfe: as_images(in_batches(sampler, SHOWN)(context, noise)) for nfe, sampler in samplers.items()}


def as_images(x: Tensor) -> Bytes:
    """Data (..., channel, row, column) in [-1, 1] as bytes (..., row, column, channel); what lies outside is clipped, NaN is mid-grey."""
    return (x.movedim(-3, -1) * 127.5 + 127.5).nan_to_num(127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
