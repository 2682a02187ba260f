"""Observations of 10 m wind at stations, read from a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsdcast.data.sources.units import size_of_speed
from wsdcast.data.variables import SPEED, physical_range
from wsdcast.output.places import Places, read_cells
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.inputs import file_given

UNITS = "m/s, knots, km/h, mph and cm/s"
SHARED = ("time", "latitude", "longitude", "units")


@dataclass(frozen=True)
class Observations:
    """Observations at stations.

    Attributes:
        stations: name and position of each station.
        times: (time,), increasing, UTC.
        values: by variable, speed or u, v and speed, (time, station) in m s-1, NaN where there is none.
        missing: rows of the table that have no value.
    """

    stations: Places
    times: NDArray[np.datetime64]
    values: dict[str, NDArray[np.float64]]
    missing: int


def read_observations(path: str | Path) -> Observations:
    """Read a CSV or Parquet table with the columns time (UTC), latitude, longitude, units, and speed or u and v.

    A station is a value of the column ``station`` or ``name`` if the table has one, else a position. Other columns are ignored. Rows
    without a value are counted.

    Raises:
        UserError: if the file cannot be read, lacks a column, has a value that is no time, number or known unit, a row that lacks one of
            them or its station, a speed outside of the physical range, a position that is not on the globe, a station at two positions,
            or two observations of one station at one time.
    """
    path = file_given(path, "--stations")
    table = _read(path)
    table.columns = [str(name).strip().lower() for name in table.columns]
    if not table.columns.is_unique:
        raise UserError(f"--stations {path}: has the column '{table.columns[table.columns.duplicated()][0]}' twice")
    wind = ("u", "v") if {"u", "v"} <= set(table.columns) else ("speed",)
    if lacking := [name for name in (*SHARED, *wind) if name not in table.columns]:
        raise UserError(f"--stations {path}: has no column {', '.join(lacking)}; expected {', '.join(SHARED)}, and speed or u and v")
    if table.empty:
        raise UserError(f"--stations {path}: has no row")
    times = pd.to_datetime(table["time"], utc=True, errors="coerce", format="ISO8601").dt.tz_localize(None)
    latitude, longitude = (pd.to_numeric(table[name], errors="coerce") for name in ("latitude", "longitude"))
    sizes = table["units"].map({units: size_of_speed(units) for units in table["units"].unique()}).astype(np.float64)
    values = table[list(wind)].apply(pd.to_numeric, errors="coerce").mul(sizes, axis=0)  # m s-1
    empty = table[list(wind)].apply(lambda column: column.str.lower().isin(["", "nan", "none", "<na>", "na"]))
    speed = np.hypot(values["u"].fillna(0), values["v"].fillna(0)) if wind == ("u", "v") else values["speed"]
    low, high = physical_range(SPEED)
    label = next((name for name in ("station", "name") if name in table.columns), None)
    position = latitude.map("{:g}".format) + "," + (longitude % 360).map("{:g}".format)
    whole_position = latitude.map("{:.10g}".format) + "," + longitude.map("{:.10g}".format)
    station = whole_position if label is None else table[label]
    for wrong, reason in (
        (times.isna(), "has no time that can be read"),
        (~((latitude.abs() <= 90) & (longitude >= -180) & (longitude <= 360)), "has no position on the globe"),
        (sizes.isna(), f"has unknown units; known are {UNITS}"),
        (station == "", f"has no {label}"),
        (
            (values.isna() & ~empty).any(axis=1) | (speed < low) | (speed > high),
            f"has no {' and '.join(wind)} that can be read, or a speed outside of {low:g} to {high:g} m/s; leave a missing one empty",
        ),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(f"--stations {path}: row {row + 1} {reason}: {', '.join(table.iloc[row])}")
    present = values.notna().all(axis=1)
    if not present.any():
        raise UserError(f"--stations {path}: has no value")
    frame = values.assign(speed=speed, time=times, latitude=latitude, longitude=longitude, position=position, station=station)
    frame = frame[present]
    _require_one_each(frame, path)
    stations = frame.drop_duplicates("station").sort_values("station")
    grids = {name: frame.pivot(index="time", columns="station", values=name) for name in dict.fromkeys((*wind, "speed"))}
    return Observations(
        Places(tuple(stations["station"]), stations["latitude"].to_numpy(), stations["longitude"].to_numpy()),
        grids["speed"].index.to_numpy("datetime64[ns]"),
        {name: grid.to_numpy(np.float64) for name, grid in grids.items()},
        int((~present).sum()),
    )


def _read(path: Path) -> pd.DataFrame:
    """Return the cells as text without spaces around them, empty where Parquet has a missing value.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path, engine="pyarrow")
            if any(table.index.names):  # the times, for example
                table = table.reset_index()
            table = table.astype(object)
            table = table.where(table.notna(), "")
        else:
            table = read_cells(path)
        return table.astype(str).apply(lambda column: column.str.strip())
    except ImportError:
        raise UserError(f"--stations {path}: Parquet needs `pip install 'wsdcast[parquet]'`; CSV does not") from None
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors of parsing are ValueErrors too
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(f"--stations {path}: cannot be read ({reason})") from None


def _require_one_each(frame: pd.DataFrame, path: Path) -> None:
    """Raise a UserError unless each station has one position, and at most one observation at a time."""
    positions = frame.groupby("station")["position"].nunique()
    if (positions > 1).any():
        raise UserError(f"--stations {path}: station '{positions.idxmax()}' has {positions.max()} positions")
    doubled = frame.duplicated(["station", "time"])
    if doubled.any():
        row = frame[doubled].iloc[0]
        raise UserError(f"--stations {path}: station '{row['station']}' has two observations at {row['time']:%Y-%m-%dT%H:%M}")
