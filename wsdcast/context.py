"""What the networks read: the wind now and 6 h before, and beside it what does not change, or changes as the sun does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.analysis import Analysis, Part
from wsdcast.data.store import SCALE, PackedWind
from wsdcast.devices import sent
from wsdcast.errors import UserError
from wsdcast.recipe import Context


@dataclass(frozen=True)
class Surroundings:
    """Channels beside the wind.

    Attributes:
        static: fields that do not change, (channel, latitude, longitude), each of mean 0 and std 1 over the sphere.
        longitude: degrees east, (longitude,), in double precision beside ``static``, if the solar time is wanted, else None.
    """

    static: Tensor
    longitude: Tensor | None = None

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.static.shape[0] + (4 if self.longitude is not None else 0)

    def at(self, times: NDArray[np.datetime64]) -> Tensor:
        """At some times (batch,), (batch, channel, latitude, longitude)."""
        return self.when(sent(shares(times), self.static.device))

    def when(self, passed: Tensor) -> Tensor:
        """The same where these shares of the day and of the year have passed, (batch, 2), in double precision beside ``static``."""
        beside = self.static.expand(len(passed), -1, -1, -1)
        if self.longitude is None:
            return beside
        solar = solar_time(passed, self.longitude).to(beside.dtype)[:, :, None, :]
        return torch.cat([beside, solar.expand(-1, -1, beside.shape[2], -1)], dim=1)


def area_weights(record: Analysis) -> Tensor:
    """Weights of the points of a record's grid, of mean 1, (latitude, 1)."""
    return torch.from_numpy(record.grid.area_weights).float()[:, None]


def surroundings(record: Analysis, settings: Context, device: torch.device) -> Surroundings:
    """What a recipe wants beside the wind.

    Raises:
        UserError: if a static field is wanted that the prepared store does not have.
    """
    weights = (record.grid.area_weights / record.grid.area_weights.sum() / record.grid.longitude.size)[:, None]
    fields = np.zeros((len(settings.static), *record.grid.shape), dtype=np.float32)
    for field, name in zip(fields, settings.static, strict=True):
        if name not in record.static:
            raise UserError(f"context.static: the prepared store has no {name}, only {', '.join(record.static) or 'wind'}")
        deviation = record.static[name] - (record.static[name] * weights).sum()
        field[:] = deviation / max(np.sqrt((deviation**2 * weights).sum()), 1e-12)
    longitude = torch.tensor(record.grid.longitude, device=device) if settings.solar_time else None
    return Surroundings(torch.from_numpy(fields).to(device), longitude)


def shares(times: NDArray[np.datetime64]) -> Tensor:
    """Which shares of the day and of the year have passed at some times (UTC), (time, 2), double precision."""
    day = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "D")
    year = times.astype("datetime64[Y]")
    of_year = (times - year) / ((year + 1).astype(times.dtype) - year.astype(times.dtype))
    return torch.from_numpy(np.stack([day, of_year], axis=1))


def solar_time(passed: Tensor, longitude: Tensor) -> Tensor:
    """Cosine and sine of the mean solar time of day, then of the time of year, (time, 4, longitude), double precision.

    Args:
        passed: shares of the day and of the year, (time, 2).
        longitude: degrees east, (longitude,).
    """
    of_day = passed[:, :1] + longitude / 360
    phases = 2 * torch.pi * torch.stack([of_day, passed[:, 1:].expand_as(of_day)], dim=1)
    return torch.stack([phases.cos(), phases.sin()], dim=2).flatten(1, 2)


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
