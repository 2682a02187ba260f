"""Ensembles from several starts at once: their members fill the batches together, and none depends on the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.steps import STEP
from wsdcast.data.store.analysis import Analysis
from wsdcast.runs import devices
from wsdcast.runs.background import ahead
from wsdcast.runs.devices import sent
from wsdcast.sampling.batches import at_once
from wsdcast.sampling.samplers import Sampler
from wsdcast.weather.forcings import Surroundings
from wsdcast.weather.forecast.autoregression import forecast, member_noise

FULL = 0.97
"""Share of the places in batches that members are to take."""


@torch.inference_mode()
def ensembles(
    record: Analysis, beside: Surroundings, sampler: Sampler, starts: NDArray[np.intp], members: int, steps: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Forecasts from several starts side by side: one array (start, member, channel, latitude, longitude), m s-1, for each lead time.

    While the device computes a state, the noise of the next is drawn and the state before is on its way to the host.

    Args:
        record: has the first states.
        beside: what contexts have beside the wind.
        sampler: makes the next state, of any number of samples (:func:`wsdcast.sampling.batches.in_batches`).
        starts: indices of the record, each with a state before it.
        members: of each ensemble.
        steps: lead times, 6 h apart.
        seed: of the members' noise.
    """
    device, shape = devices.device(), record.wind.shape[1:]
    mean, std = (torch.from_numpy(values).to(device)[:, None, None] for values in (record.mean, record.std))
    first = torch.from_numpy(record.normalise(np.stack([record.wind[starts - 1], record.wind[starts]]))).to(device)
    before, now = first.repeat_interleave(members, dim=1)
    times = np.repeat(record.times[starts], members)
    around = (beside.at(times + lead * STEP) for lead in range(steps))
    noises = (sent(noise, device) for noise in ahead(member_noise(seed, record.times[starts], members, steps, shape)))
    leaving: tuple[Tensor, torch.cuda.Event | None] | None = None
    for state in forecast(sampler, now, before, noises, around):
        copy = _to_host(state * std + mean)
        if leaving is not None:
            yield _arrived(*leaving).reshape(starts.size, members, *shape)
        leaving = copy
    if leaving is not None:
        yield _arrived(*leaving).reshape(starts.size, members, *shape)


def groups(starts: NDArray[np.intp], members: int, batch: int, device: torch.device, *, alone: bool = False) -> list[NDArray[np.intp]]:
    """Divide initial times into groups whose members are run side by side.

    On a CPU, where the last batch is filled up, a group has as few initial times as take :data:`FULL` of the places that are computed, or
    those of at most eight times as many places that take the largest share. On a GPU groups are as even as can be, and as large as one
    batch holds.

    Args:
        starts: initial times.
        members: of each.
        batch: the most members per evaluation (:func:`wsdcast.sampling.batches.batch_size`).
        device: that evaluates.
        alone: on a GPU, each initial time in a group of its own: then no member's bits depend on which other times there are.
    """
    if device.type != "cpu":
        together = 1 if alone else max(1, batch // members)
        return np.array_split(starts, -(-starts.size // together)) if starts.size else []
    places = at_once(batch, device)
    most = int(np.clip(8 * places // members, 1, max(1, starts.size)))
    filled = [count * members / (-(-count * members // places) * places) for count in range(1, most + 1)]
    full = [count for count, share in enumerate(filled, start=1) if share >= FULL]
    size = full[0] if full else int(np.argmax(filled)) + 1
    return [starts[first : first + size] for first in range(0, starts.size, size)]


def _to_host(state: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on its way to the host's memory, and what happens when it is there."""
    if state.device.type != "cuda":
        return state, None
    copy = torch.empty(state.shape, dtype=state.dtype, pin_memory=True)
    copy.copy_(state, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event


def _arrived(copy: Tensor, event: torch.cuda.Event | None) -> NDArray[np.float32]:
    if event is not None:
        event.synchronize()
    return copy.numpy()
