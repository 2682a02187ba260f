"""Stores of forecasts. One or several processes fill them by initial time, and a resumed run knows which initial times are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store.zarr_store import SPEED, VARIABLES, add_variables, close_store, create_store
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FORECAST
from wsdcast.runs.times import in_utc
from wsdcast.runs.unfinished import mark, marked

LEADS_PER_CHUNK = 8
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
STATISTICS = ("mean", "std", *(f"quantile {share:g}" for share in QUANTILES))
"""Names of the statistics that a store can have instead of members."""
STOPPED = "stopped_at"
"""Name of a variable (time, number): lead time in hours at which a member left the physical range, NaN if it did not."""

Wind = NDArray[np.float32]


@dataclass(frozen=True)
class Forecasts:
    """An unfinished store of forecasts.

    Attributes:
        path: path of the store.
        times: initial times, (time,).
        members: number of members of each ensemble.
        leads: lead times that are stored, hours.
        reduced: whether statistics over members are stored instead of members.
        grid: grid of the fields.
    """

    path: Path
    times: NDArray[np.datetime64]
    members: int
    leads: tuple[int, ...]
    reduced: bool
    grid: Grid

    def create(self) -> None:
        """Write the metadata and coordinates. If the store exists, its wind stays."""
        members = {"statistic": np.array(STATISTICS, dtype=object)} if self.reduced else {"number": np.arange(self.members)}
        leads = (np.array(self.leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
        coordinates = {"time": self.times, **members, "prediction_timedelta": leads}
        chunks = (1, len(STATISTICS) if self.reduced else self.members, min(LEADS_PER_CHUNK, len(self.leads)))
        create_store(self.path, coordinates, self.grid, chunks, variables=self.variables)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables. Statistics include speed, because its quantiles do not follow from those of the components."""
        return (*VARIABLES, SPEED) if self.reduced else VARIABLES

    @property
    def bytes(self) -> int:
        """Size of the finished store in bytes, before compression."""
        fields = len(STATISTICS) if self.reduced else self.members
        return 4 * self.times.size * fields * len(self.leads) * len(self.variables) * self.grid.latitude.size * self.grid.longitude.size

    def write(self, row: int, first: int, wind: Wind) -> None:
        """Write consecutive lead times of one initial time.

        Args:
            row: index of the initial time.
            first: index of the first lead time, a multiple of :data:`LEADS_PER_CHUNK`.
            wind: (member, lead, channel, latitude, longitude) in m s-1, NaN after a member was stopped.
        """
        fields = statistics(wind) if self.reduced else wind
        group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
        for channel, name in enumerate(self.variables):
            array: Any = group[name]
            array[row, :, first : first + wind.shape[1]] = fields[:, :, channel]

    def mark(self, row: int, stopped: NDArray[np.intp]) -> None:
        """Mark an initial time as written, with the hours at which its members were stopped, (member,). 0 means that one was not."""
        mark(self.path, str(row), json.dumps(stopped.tolist()))

    def written(self, row: int) -> NDArray[np.intp] | None:
        """Return the hours that :meth:`mark` stored for an initial time, or None if it is not written yet."""
        text = marked(self.path, str(row))
        return None if text is None else np.array(json.loads(text), dtype=np.intp)

    def close(self, attributes: dict[str, Any]) -> None:
        """Add the hours of all initial times (:data:`STOPPED`) and the attributes."""
        hours = np.array([self.written(row) for row in range(self.times.size)], dtype=np.float32)
        description = {"long_name": "lead time at which a member left the physical range and was stopped", "units": "hours"}
        add_variables(self.path, {STOPPED: xr.DataArray(np.where(hours > 0, hours, np.nan), dims=("time", "number"), attrs=description)})
        close_store(self.path, attributes)


def store_of(forecast: str | Path) -> str:
    """Return the address of a forecast's store: ``forecast.zarr`` of a run directory that has one, else the address itself."""
    inside = Path(forecast) / FORECAST
    return str(inside if inside.is_dir() else forecast)


def statistics(wind: Wind) -> Wind:
    """Return mean, standard deviation and quantiles of u, v and speed over the members that were not stopped.

    The wind is (member, lead, channel, latitude, longitude), the result (statistic, lead, 3, latitude, longitude). It is NaN at lead times
    with fewer than two members left.
    """
    out = np.full((len(STATISTICS), wind.shape[1], 3, *wind.shape[3:]), np.nan, dtype=np.float32)
    for lead in range(wind.shape[1]):
        alive = wind[np.isfinite(wind[:, lead]).all(axis=(1, 2, 3)), lead]
        if alive.shape[0] > 1:
            fields = np.concatenate([alive, np.hypot(alive[:, :1], alive[:, 1:2])], axis=1)
            out[:2, lead] = fields.mean(axis=0), fields.std(axis=0, ddof=1)
            out[2:, lead] = np.quantile(fields, QUANTILES, axis=0)
    return out


def row_of(starts: NDArray[np.datetime64], start: str, forecast: str | Path) -> int:
    """Return the index of an initial time in a store.

    Args:
        starts: initial times of the store, (time,).
        start: the initial time as text, UTC.
        forecast: name of the store, for the error message.

    Raises:
        UserError: if ``start`` is not a time, or not one of ``starts``.
    """
    try:
        requested = np.datetime64(in_utc(datetime.fromisoformat(start)), "ns")
    except ValueError as error:
        raise UserError(f"--start {error}") from None
    row = int(np.abs(starts - requested).argmin())
    if starts[row] != requested:
        raise UserError(f"--start {start}: not in {forecast}, whose nearest initial time is {starts[row].astype('datetime64[h]')}")
    return row
