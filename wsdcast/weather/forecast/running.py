"""Ensembles from several initial times at once. Their members share batches, but no member depends on the others."""

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
from wsdcast.weather.forcings import ForcingFields
from wsdcast.weather.forecast.autoregression import forecast
from wsdcast.weather.forecast.noise import member_noise

FULL_ENOUGH = 0.97
"""Members of a group should fill at least this share of the slots in its batches; repetitions fill the others."""


@torch.inference_mode()
def ensembles(
    record: Analysis,
    forcings: ForcingFields,
    sampler: Sampler,
    starts: NDArray[np.intp],
    *,
    members: int,
    steps: int,
    seed: int,
    noise_count: int = 1,
    prescribed: bool = False,
) -> Iterator[NDArray[np.float32]]:
    """Run ensembles from several initial times at once.

    While the device computes one state, the host draws the noise of the next step and receives the state before.

    Args:
        record: holds the states at the initial times.
        forcings: the forcings of the record's grid.
        sampler: makes the next state, for any number of samples (:func:`wsdcast.sampling.batches.in_batches`).
        starts: indices of the initial times in the record, each with ``record.past_states`` states before it.
        members: members of each ensemble.
        steps: number of lead times, 6 h apart.
        seed: seed of the members' noise.
        noise_count: number of noise fields of a sample (:func:`wsdcast.warmstart.evaluations.count_noise`).
        prescribed: whether forcing variables are those of the record at each step, which it must have. By default they stay as they are at
            the initial time.

    Yields:
        One array (start, member, variable, latitude, longitude), in the variables' units, for each lead time.
    """
    device, count = devices.device(), len(record.variables)
    shape = (count, *record.grid.shape)
    noise_shape = (noise_count * shape[0], *shape[1:])
    mean, std = (torch.from_numpy(values[:count]).to(device)[:, None, None] for values in (record.mean, record.std))
    states = np.stack([record.states[starts - steps_before] for steps_before in range(1 + record.past_states)])
    first = torch.from_numpy(record.normalise(states)).to(device)
    times = np.repeat(record.times[starts], members)

    def forcings_at(step: int) -> Tensor:
        fixed = forcings.at(times + step * STEP)
        if not forcings.variables:
            return fixed
        fields = first[0] if not prescribed else sent(torch.from_numpy(record.normalise(record.states[starts + step])), device)
        return torch.cat([fixed, fields[:, count:].repeat_interleave(members, dim=0)], dim=1)

    step_forcings = (forcings_at(step) for step in range(steps))
    noises = (sent(noise, device) for noise in ahead(member_noise(seed, record.times[starts], members, steps, noise_shape)))
    pending: tuple[Tensor, torch.cuda.Event | None] | None = None
    for state in forecast(sampler, first[:, :, :count].repeat_interleave(members, dim=1), noises, step_forcings):
        copy = _to_host(state * std + mean)
        if pending is not None:
            yield _finished(*pending).reshape(starts.size, members, *shape)
        pending = copy
    if pending is not None:
        yield _finished(*pending).reshape(starts.size, members, *shape)


def groups(rows: NDArray[np.intp], members: int, batch: int, device: torch.device, *, alone: bool = False) -> list[NDArray[np.intp]]:
    """Divide initial times into groups whose members are run together.

    On a CPU the last batch of a group is filled up with repetitions. The group has the smallest number of initial times whose members fill
    :data:`FULL_ENOUGH` of the slots. If no number does, it has the one that fills the largest share; the members of a group take at most
    eight times the slots that are computed at once. On a GPU a group has as many initial times as fit in one batch (at least one), and
    groups differ by at most one initial time.

    Args:
        rows: positions of the initial times among those of the forecast, (start,).
        members: members of each ensemble.
        batch: the most members per evaluation (:func:`wsdcast.sampling.batches.batch_size`).
        device: the device that evaluates.
        alone: on a GPU, put each initial time in a group of its own. Then no member's bits depend on the other initial times.
    """
    if device.type != "cpu":
        together = 1 if alone else max(1, batch // members)
        return np.array_split(rows, -(-rows.size // together)) if rows.size else []
    slots = at_once(batch, device)
    most = int(np.clip(8 * slots // members, 1, max(1, rows.size)))
    shares = [count * members / (-(-count * members // slots) * slots) for count in range(1, most + 1)]
    full = [count for count, share in enumerate(shares, start=1) if share >= FULL_ENOUGH]
    size = full[0] if full else int(np.argmax(shares)) + 1
    return [rows[first : first + size] for first in range(0, rows.size, size)]


def _to_host(state: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start a copy to the host's memory. Returns the copy, and an event that occurs when it is complete (None on a CPU)."""
    if state.device.type != "cuda":
        return state, None
    copy = torch.empty(state.shape, dtype=state.dtype, pin_memory=True)
    copy.copy_(state, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event


def _finished(copy: Tensor, event: torch.cuda.Event | None) -> NDArray[np.float32]:
    """The copy, after a wait for its event."""
    if event is not None:
        event.synchronize()
    return copy.numpy()
