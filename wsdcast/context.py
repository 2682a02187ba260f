"""What the networks read: the wind now and 6 h before, and beside it what does not change, or changes as the sun does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.analysis import Analysis, Part
from wsdcast.errors import UserError
from wsdcast.recipe import Context


@dataclass(frozen=True)
class Surroundings:
    """Channels beside the wind.

    Attributes:
        static: fields that do not change, (channel, latitude, longitude), each of mean 0 and std 1 over the sphere.
        longitude: degrees east, (longitude,), if the solar time is wanted, else None.
    """

    static: Tensor
    longitude: NDArray[np.float64] | None = None

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.static.shape[0] + (4 if self.longitude is not None else 0)

    def at(self, times: NDArray[np.datetime64]) -> Tensor:
        """At some times (batch,), (batch, channel, latitude, longitude)."""
        beside = self.static.expand(len(times), -1, -1, -1)
        if self.longitude is None:
            return beside
        solar = torch.from_numpy(solar_time(times, self.longitude)).to(beside)[:, :, None, :]
        return torch.cat([beside, solar.expand(-1, -1, beside.shape[2], -1)], dim=1)


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
    return Surroundings(torch.from_numpy(fields).to(device), record.grid.longitude if settings.solar_time else None)


def solar_time(times: NDArray[np.datetime64], longitude: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cosine and sine of the mean solar time of day, then of the time of year, (time, 4, longitude)."""
    day = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "D")
    year = times.astype("datetime64[Y]")
    of_year = (times - year) / ((year + 1).astype(times.dtype) - year.astype(times.dtype))
    of_day = day[:, None] + longitude / 360
    phases = 2 * np.pi * np.stack([of_day, np.broadcast_to(of_year[:, None], of_day.shape)], axis=1)
    return np.stack([np.cos(phases), np.sin(phases)], axis=2).reshape(times.size, 4, longitude.size).astype(np.float32)


@dataclass(frozen=True)
class Samples:
    """Contexts and what follows them, of one part of the record.

    Attributes:
        states: the whole record, (time, channel, latitude, longitude), normalised.
        now: where in it the state now of each sample is, (sample,).
        times: of all states, (time,).
        beside: what the context has beside the wind.
    """

    states: Tensor
    now: Tensor
    times: NDArray[np.datetime64]
    beside: Surroundings

    def __len__(self) -> int:
        return self.now.numel()

    def of(self, some: Tensor) -> Samples:
        """Some of them (sample,) alone."""
        return replace(self, now=self.now[some])

    def context(self, chosen: Tensor) -> Tensor:
        """C of some samples (batch,), (batch, channel, latitude, longitude)."""
        return context_of(self.states, self.now[chosen], self.times, self.beside)

    def target(self, chosen: Tensor) -> Tensor:
        """The states that follow, (batch, channel, latitude, longitude)."""
        return self.states[self.now[chosen] + 1]


def samples_of(record: Analysis, beside: Surroundings, *parts: Part) -> list[Samples]:
    """All samples of each part of a record; they share its normalised states, on the device of ``beside``."""
    states = torch.from_numpy(record.normalise(record.wind)).to(beside.static.device)
    return [Samples(states, torch.from_numpy(record.now(part)), record.times, beside) for part in parts]


def context_of(states: Tensor, now: Tensor, times: NDArray[np.datetime64], beside: Surroundings) -> Tensor:
    """Context (batch, channel, latitude, longitude): the state now, the state 6 h before, then what is beside them.

    Args:
        states: (time, channel, latitude, longitude), normalised.
        now: indices of time, (batch,).
        times: of all states, (time,).
        beside: the other channels.
    """
    return torch.cat([states[now], states[now - 1], beside.at(times[now.cpu().numpy()]).to(states)], dim=1)
