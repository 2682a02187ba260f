"""Stores of forecasts. One or several processes fill them by initial time, and a resumed run knows which initial times are written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from wsdcast.data.grid import Grid
from wsdcast.data.steps import time_text
from wsdcast.data.store.zarr_store import add_variables, close_store, create_store
from wsdcast.data.winds import winds_of
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.inputs import address_given
from wsdcast.runs.names import FORECAST
from wsdcast.runs.times import TimeLike, in_utc, text_of
from wsdcast.runs.unfinished import mark, marked

LEADS_PER_CHUNK = 8
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
STATISTICS = ("mean", "std", *(f"quantile {share:g}" for share in QUANTILES))
"""Names of the statistics that a store can have instead of members."""
STOPPED = "stopped_at"
"""Name of a variable (time, number): lead time in hours at which a member left the physical range, NaN if it did not."""
CLIPPED = "clipped_share"
"""Attribute of an array of members: share of its values that were negative, which the variable cannot be, and were set to zero."""


@dataclass(frozen=True)
class Written:
    """What is known of an initial time that is written.

    Attributes:
        stopped: hours at which each member left the physical range and was stopped; 0 if it was not.
        by: the channel with which each member left the range; empty if it did not.
        clipped: by channel, how many values were negative, which it cannot be, and were set to zero.
    """

    stopped: list[int]
    by: list[str]
    clipped: dict[str, int]


MARK = TypeAdapter[Written | list[int]](Written | list[int])
"""Reads a mark and checks it: version 0.1.0 stored only the hours."""


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
        variables: the channels that are stored, in order.
    """

    path: Path
    times: NDArray[np.datetime64]
    members: int
    leads: tuple[int, ...]
    reduced: bool
    grid: Grid
    variables: tuple[str, ...]

    def create(self) -> None:
        """Write the metadata and coordinates. If the store exists, its fields stay."""
        members = {"statistic": np.array(STATISTICS, dtype=object)} if self.reduced else {"number": np.arange(self.members)}
        coordinates = {"time": self.times, **members, "prediction_timedelta": self.lead_times}
        chunks = (1, len(STATISTICS) if self.reduced else self.members, min(LEADS_PER_CHUNK, len(self.leads)))
        create_store(self.path, coordinates, self.grid, self.arrays, chunks)

    @property
    def lead_times(self) -> NDArray[np.timedelta64]:
        """The lead times, (lead,)."""
        return (np.array(self.leads) * np.timedelta64(1, "h")).astype("timedelta64[ns]")

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays. Statistics include wind speeds, because their quantiles do not follow from those of the components."""
        return (*self.variables, *(wind.speed for wind in winds_of(self.variables))) if self.reduced else self.variables

    @property
    def bytes(self) -> int:
        """Size of the finished store in bytes, before compression."""
        fields = len(STATISTICS) if self.reduced else self.members
        return 4 * self.times.size * fields * len(self.leads) * len(self.arrays) * self.grid.size

    def write(self, row: int, first: int, fields: NDArray[np.float32]) -> None:
        """Write consecutive lead times of one initial time.

        Args:
            row: index of the initial time.
            first: index of the first lead time, a multiple of :data:`LEADS_PER_CHUNK`.
            fields: (member, lead, channel, latitude, longitude) in the units of the channels, NaN after a member was stopped.
        """
        values = statistics_over_members(fields, self.variables) if self.reduced else fields
        group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
        for channel, name in enumerate(self.arrays):
            array: Any = group[name]
            array[row, :, first : first + fields.shape[1]] = values[:, :, channel]

    def mark(self, row: int, written: Written) -> None:
        """Mark an initial time as written."""
        mark(self.path, str(row), json.dumps(asdict(written)))

    def written(self, row: int) -> Written | None:
        """Return what :meth:`mark` stored for an initial time, or None if it is not written yet or its mark is damaged."""
        try:
            written = MARK.validate_json(marked(self.path, str(row)) or "")
        except ValidationError:
            return None
        if isinstance(written, list):
            written = Written(written, [""] * self.members, {})
        return written if len(written.stopped) == len(written.by) == self.members else None

    def all_written(self) -> list[Written]:
        """Return what :meth:`mark` stored for each initial time of a store that is filled."""
        return [written for row in range(self.times.size) if (written := self.written(row)) is not None]

    def clipped(self) -> dict[str, float]:
        """Return by channel the share of its values that were clipped, in a store that is filled. Channels without any are left out."""
        starts = self.all_written()
        counts = {name: sum(written.clipped.get(name, 0) for written in starts) for name in self.variables}
        of_each = len(starts) * self.members * len(self.leads) * self.grid.size
        return {name: count / of_each for name, count in counts.items() if count}

    def close(self, attributes: dict[str, Any]) -> None:
        """Add the hours of all initial times (:data:`STOPPED`), the shares of clipped values (:data:`CLIPPED`) and the attributes."""
        hours = np.array([written.stopped for written in self.all_written()], dtype=np.float32)
        description = {"long_name": "lead time at which a member left the physical range and was stopped", "units": "hours"}
        add_variables(self.path, {STOPPED: xr.DataArray(np.where(hours > 0, hours, np.nan), dims=("time", "number"), attrs=description)})
        group: Any = zarr.open_group(self.path, mode="r+", use_consolidated=False)
        for name, share in self.clipped().items():
            if name in group:
                group[name].attrs[CLIPPED] = share
        close_store(self.path, attributes)


def loaded(fields: xr.Dataset, path: Path) -> xr.Dataset:
    """Read fields of the store ``path`` into memory.

    Raises:
        UserError: if a file of the store is damaged.
    """
    try:
        return fields.load()
    except (RuntimeError, ValueError) as error:  # of a decompressor, or of a chunk whose size is wrong
        raise UserError(f"{path}: damaged ({first_line(error)}); forecast again with rollout --overwrite") from None


def store_of(forecast: str | Path) -> str:
    """Return the address of a forecast's store: ``forecast.zarr`` of a run directory that has one, else the address itself.

    Raises:
        UserError: if it is no path or URL.
    """
    inside = Path(address_given(forecast, "forecast")) / FORECAST
    return str(inside if inside.is_dir() else forecast)


def name_of(forecast: str) -> str:
    """Return the last part of the address of a forecast's store, as a directory can be called."""
    return forecast.rstrip("/").split("/")[-1].removesuffix(".zarr").removesuffix(".nc").replace(":", "-")


def statistics_over_members(fields: NDArray[np.float32], variables: tuple[str, ...]) -> NDArray[np.float32]:
    """Return mean, standard deviation and quantiles of channels and of wind speeds over the members that were not stopped.

    The fields are (member, lead, channel, latitude, longitude), the result (statistic, lead, channel and speed, latitude, longitude). It is
    NaN at lead times with fewer than two members left.
    """
    pairs = [(variables.index(wind.u), variables.index(wind.v)) for wind in winds_of(variables)]
    shape = fields.shape[1], fields.shape[2] + len(pairs), *fields.shape[3:]
    out = np.full((len(STATISTICS), *shape), np.nan, dtype=np.float32)
    for lead in range(fields.shape[1]):
        alive = fields[np.isfinite(fields[:, lead]).all(axis=(1, 2, 3)), lead]
        if alive.shape[0] > 1:
            speeds = [np.hypot(alive[:, u : u + 1], alive[:, v : v + 1]) for u, v in pairs]
            each = np.concatenate([alive, *speeds], axis=1)
            out[:2, lead] = each.mean(axis=0), each.std(axis=0, ddof=1)
            out[2:, lead] = np.quantile(each, QUANTILES, axis=0)
    return out


def row_of(starts: NDArray[np.datetime64], start: TimeLike, forecast: str | Path) -> int:
    """Return the index of an initial time in a store.

    Args:
        starts: initial times of the store, (time,).
        start: the initial time, UTC.
        forecast: name of the store, for the error message.

    Raises:
        UserError: if ``start`` is not a time, or not one of ``starts``.
    """
    text = text_of(start)
    try:
        requested = np.datetime64(in_utc(datetime.fromisoformat(text)), "ns")
    except (TypeError, ValueError):
        given = f"'{text}'" if isinstance(text, str) else f"of type {type(start).__name__}"  # an array has several lines
        raise UserError(f"--start {given}: expected a time such as 2020-01-31T06") from None
    row = int(np.abs(starts - requested).argmin())
    if starts[row] != requested:
        raise UserError(f"--start {text}: not in {forecast}, whose nearest initial time is {time_text(starts[row])}")
    return row
