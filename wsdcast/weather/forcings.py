"""Forcings of the networks, which a context holds after the states.

They are static fields, latitude and longitude, the solar time of day and of year, and the record's forcing variables at the time of the
state now. The last come from the record, the others from :class:`ForcingFields`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import Analysis
from wsdcast.runs.devices import sent
from wsdcast.runs.errors import UserError
from wsdcast.weather.network_sections import Forcings


@dataclass(frozen=True)
class ForcingFields:
    """The forcings of one grid.

    Attributes:
        static: fields that do not change, (channel, latitude, longitude): static fields of the record, each of mean 0 and std 1 over the
            sphere, then the sines and cosines of latitude and longitude if they are forcings.
        longitude: degrees east, (longitude,), in double precision, on the device of ``static``; None if the solar time is not a forcing.
        variables: number of the record's forcing variables.
    """

    static: Tensor
    longitude: Tensor | None = None
    variables: int = 0

    @property
    def channels(self) -> int:
        """Number of channels of forcings in a context, with those of the record's forcing variables."""
        return self.static.shape[0] + (4 if self.longitude is not None else 0) + self.variables

    def at(self, times: NDArray[np.datetime64]) -> Tensor:
        """The forcings at ``times`` (batch,) without the record's forcing variables: (batch, channel, latitude, longitude)."""
        return self.at_elapsed(sent(elapsed_fractions(times), self.static.device))

    def at_elapsed(self, elapsed: Tensor) -> Tensor:
        """The forcings at times given as fractions of the day and of the year.

        Args:
            elapsed: from :func:`elapsed_fractions`, (batch, 2), double precision, on the device of ``static``.

        Returns:
            (batch, channel, latitude, longitude).
        """
        static = self.static.expand(len(elapsed), -1, -1, -1)
        if self.longitude is None:
            return static
        solar = solar_time(elapsed, self.longitude).to(static.dtype)[:, :, None, :]
        return torch.cat([static, solar.expand(-1, -1, static.shape[2], -1)], dim=1)


def area_weights(record: Analysis) -> Tensor:
    """Area weights of the record's grid points, with mean 1: (latitude, 1)."""
    return torch.from_numpy(record.grid.area_weights).float()[:, None]


def forcings_of(record: Analysis, settings: Forcings, device: torch.device) -> ForcingFields:
    """The forcings that a recipe asks for.

    Raises:
        UserError: if the prepared store lacks one of the static fields.
    """
    weights = (record.grid.area_weights / record.grid.area_weights.sum() / record.grid.longitude.size)[:, None]
    fields = np.zeros((len(settings.static), *record.grid.shape), dtype=np.float32)
    for field, name in zip(fields, settings.static, strict=True):
        if name not in record.static:
            stored = ", ".join(record.static) or "wind"
            raise UserError(f"forcings.static: the prepared store has no {name}, only {stored}; -o forcings.static='[]' does without")
        deviation = record.static[name] - (record.static[name] * weights).sum()
        field[:] = deviation / max(np.sqrt((deviation**2 * weights).sum()), 1e-12)
    if settings.latitude_longitude:
        fields = np.concatenate([fields, positions(record.grid)])
    longitude = torch.tensor(record.grid.longitude, device=device) if settings.solar_time else None
    return ForcingFields(torch.from_numpy(fields).to(device), longitude, len(record.forcing_variables))


def positions(grid: Grid) -> NDArray[np.float32]:
    """The sines and cosines of latitude, then of longitude: (4, latitude, longitude)."""
    angles = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    return np.stack([function(angle) for angle in angles for function in (np.sin, np.cos)]).astype(np.float32)


def elapsed_fractions(times: NDArray[np.datetime64]) -> Tensor:
    """The fractions of the day and of the year that have elapsed at ``times`` (UTC): (time, 2), double precision."""
    of_day = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "D")
    year = times.astype("datetime64[Y]")
    of_year = (times - year) / ((year + np.timedelta64(1, "Y")).astype(times.dtype) - year.astype(times.dtype))
    return torch.from_numpy(np.stack([of_day, of_year], axis=1))


def solar_time(elapsed: Tensor, longitude: Tensor) -> Tensor:
    """Cosine and sine of the mean solar time of day, then of the time of year.

    Args:
        elapsed: fractions of the day (UTC) and of the year, (time, 2).
        longitude: degrees east, (longitude,).

    Returns:
        (time, 4, longitude), double precision.
    """
    of_day = elapsed[:, :1] + longitude / 360
    phases = 2 * torch.pi * torch.stack([of_day, elapsed[:, 1:].expand_as(of_day)], dim=1)
    return torch.stack([phases.cos(), phases.sin()], dim=2).flatten(1, 2)
