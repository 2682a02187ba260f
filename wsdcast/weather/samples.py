"""Training samples: two states as context, with their forcings, and the state that follows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsdcast.data.store.analysis import Analysis, Part
from wsdcast.data.store.zarr_store import SCALE, PackedWind
from wsdcast.runs.devices import sent
from wsdcast.weather.forcings import Surroundings, shares


@dataclass(frozen=True)
class Samples:
    """Contexts and what follows them, of one part of the record.

    Attributes:
        packed: the whole record, (time, channel, latitude, longitude), int16, on the device if it fits there.
        mean, std: of each channel, in the record's units, (channel, 1, 1), on the device.
        now: where in the record the state now of each sample is, (sample,), on the CPU.
        passed: shares of the day and of the year at all times of the record, (time, 2), on the device.
        beside: what the context has beside the wind.
    """

    packed: Tensor
    mean: Tensor
    std: Tensor
    now: Tensor
    passed: Tensor
    beside: Surroundings

    def __len__(self) -> int:
        return self.now.numel()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a state, (channel, latitude, longitude)."""
        return tuple(self.packed.shape[1:])

    def of(self, some: Tensor) -> Samples:
        """Some of them (sample,) alone."""
        return replace(self, now=self.now[some])

    def states(self, indices: Tensor) -> Tensor:
        """Normalised states at some times of the record (batch,), (batch, channel, latitude, longitude)."""
        wind = sent(self.packed[sent(indices, self.packed.device)], self.mean.device).float() * SCALE
        return (wind - self.mean) / self.std

    def context(self, chosen: Tensor) -> Tensor:
        """C of some samples (batch,): state now, state 6 h before, what is beside them, (batch, channel, latitude, longitude)."""
        now = self.now[chosen]
        beside = self.beside.when(self.passed[sent(now, self.passed.device)])
        return torch.cat([self.states(now), self.states(now - 1), beside], dim=1)

    def target(self, chosen: Tensor) -> Tensor:
        """The states that follow, (batch, channel, latitude, longitude)."""
        return self.states(self.now[chosen] + 1)


def samples_of(record: Analysis, beside: Surroundings, *parts: Part) -> list[Samples]:
    """All samples of each part of a record, which they share, on the device of ``beside`` if two thirds of what is free there hold it."""
    if not isinstance(record.wind, PackedWind):
        raise TypeError("samples need the whole record; open it with whole=True")
    device = beside.static.device
    values = record.wind.values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch knows no arrays for reading alone; this one is not written to
        packed = torch.from_numpy(values)
    if device.type == "cuda" and values.nbytes < torch.cuda.mem_get_info(device)[0] * 2 / 3:
        packed = packed.to(device)
    mean, std = (torch.from_numpy(values).to(device)[:, None, None] for values in (record.mean, record.std))
    passed = shares(record.times).to(device)
    return [Samples(packed, mean, std, torch.from_numpy(record.now(part)), passed, beside) for part in parts]
