"""What the networks read: the wind now and 6 h before, and beside it what does not change, or changes as the sun does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.store.analysis import Analysis
from wsdcast.runs.devices import sent
from wsdcast.runs.errors import UserError
from wsdcast.weather.recipe import Forcings


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


def surroundings(record: Analysis, settings: Forcings, device: torch.device) -> Surroundings:
    """What a recipe wants beside the wind.

    Raises:
        UserError: if a static field is wanted that the prepared store does not have.
    """
    weights = (record.grid.area_weights / record.grid.area_weights.sum() / record.grid.longitude.size)[:, None]
    fields = np.zeros((len(settings.static), *record.grid.shape), dtype=np.float32)
    for field, name in zip(fields, settings.static, strict=True):
        if name not in record.static:
            raise UserError(f"forcings.static: the prepared store has no {name}, only {', '.join(record.static) or 'wind'}")
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
