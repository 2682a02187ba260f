"""Stores of forecasts: filled start by start, by one process or several, and found again start by start by a run that goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store.zarr_store import SPEED, VARIABLES, add_variables, close_store, create_store
from wsdcast.runs.unfinished import mark, marked

LEADS_PER_CHUNK = 8
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
STATISTICS = ("mean", "std", *(f"quantile {share:g}" for share in QUANTILES))
"""What a store of statistics has in the place of members."""
STOPPED = "stopped_at"
"""Variable (time, number): lead time in hours at which a member left the physical range, missing where none did."""

Wind = NDArray[np.float32]


@dataclass(frozen=True)
class Forecasts:
    """An unfinished store of forecasts.

    Attributes:
        path: where it is.
        times: of the starts, (time,).
        members: of each ensemble.
        leads: that are kept, hours.
        reduced: whether statistics over members are kept instead of members.
        grid: of the fields.
    """

    path: Path
    times: NDArray[np.datetime64]
    members: int
    leads: tuple[int, ...]
    reduced: bool
    grid: Grid

    def create(self) -> None:
        """Write what is not wind. What wind there is already stays."""
        many = {"statistic": np.array(STATISTICS, dtype=object)} if self.reduced else {"number": np.arange(self.members)}
        leads = (np.array(self.leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")
        coordinates = {"time": self.times, **many, "prediction_timedelta": leads}
        chunks = (1, len(STATISTICS) if self.reduced else self.members, min(LEADS_PER_CHUNK, len(self.leads)))
        create_store(self.path, coordinates, self.grid, chunks, variables=self.variables)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names; the quantiles of speed do not follow from those of its components."""
        return (*VARIABLES, SPEED) if self.reduced else VARIABLES

    @property
    def bytes(self) -> int:
        """Size of the finished store before compression."""
        each = len(STATISTICS) if self.reduced else self.members
        return 4 * self.times.size * each * len(self.leads) * len(self.variables) * self.grid.latitude.size * self.grid.longitude.size

    def write(self, row: int, first: int, wind: Wind) -> None:
        """Write some lead times of one start, (member, lead, channel, latitude, longitude) in m s-1; NaN where a member was stopped.

        Args:
            row: which start.
            first: position of the first lead time, a multiple of :data:`LEADS_PER_CHUNK`.
            wind: as above.
        """
        fields = statistics(wind) if self.reduced else wind
        group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
        for channel, name in enumerate(self.variables):
            array: Any = group[name]
            array[row, :, first : first + wind.shape[1]] = fields[:, :, channel]

    def mark(self, row: int, stopped: NDArray[np.intp]) -> None:
        """Say that a start is written, and when its members (member,) were stopped: hours, 0 where they were not."""
        mark(self.path, str(row), json.dumps(stopped.tolist()))

    def written(self, row: int) -> NDArray[np.intp] | None:
        """What was said of a start, None if it is not written."""
        text = marked(self.path, str(row))
        return None if text is None else np.array(json.loads(text), dtype=np.intp)

    def close(self, attributes: dict[str, Any]) -> None:
        """Add what was said of all starts, and the attributes."""
        hours = np.array([self.written(row) for row in range(self.times.size)], dtype=np.float32)
        about = {"long_name": "lead time at which a member left the physical range and was stopped", "units": "hours"}
        add_variables(self.path, {STOPPED: xr.DataArray(np.where(hours > 0, hours, np.nan), dims=("time", "number"), attrs=about)})
        close_store(self.path, attributes)


def statistics(wind: Wind) -> Wind:
    """Mean, standard deviation and quantiles of u, v and speed over the members that were not stopped.

    From (member, lead, channel, latitude, longitude) to (statistic, lead, 3, latitude, longitude); NaN where fewer than two are left.
    """
    out = np.full((len(STATISTICS), wind.shape[1], 3, *wind.shape[3:]), np.nan, dtype=np.float32)
    for lead in range(wind.shape[1]):
        alive = wind[np.isfinite(wind[:, lead]).all(axis=(1, 2, 3)), lead]
        if alive.shape[0] > 1:
            fields = np.concatenate([alive, np.hypot(alive[:, :1], alive[:, 1:2])], axis=1)
            out[:2, lead] = fields.mean(axis=0), fields.std(axis=0, ddof=1)
            out[2:, lead] = np.quantile(fields, QUANTILES, axis=0)
    return out
