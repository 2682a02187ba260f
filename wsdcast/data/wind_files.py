"""Opens files of 10 m wind: finds the variables, brings every layout to one, checks units, ranges and times."""

from __future__ import annotations

import glob
import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.errors import UserError

U_NAMES = ("10m_u_component_of_wind", "u10", "10u")
V_NAMES = ("10m_v_component_of_wind", "v10", "10v")
TIME_NAMES = ("time", "valid_time", "date")
LATITUDE_NAMES = ("latitude", "lat")
LONGITUDE_NAMES = ("longitude", "lon")
UNITS = {"m s-1", "m s**-1", "m/s", "m s^-1", "m.s-1", "meters per second", "metre per second"}
STRONGEST_WIND = 120.0
"""m/s; the strongest gust ever measured was 113 m/s, so anything beyond is an error of units or of packing."""


@dataclass(frozen=True)
class WindFiles:
    """The 6-hourly steps of one or many files, in order of time.

    Attributes:
        times: (time,), strictly increasing, at 00, 06, 12 or 18 UTC; gaps stay gaps.
        grid: of the data after ordering.
        places: for each time, the file it is in and its index there.
    """

    times: NDArray[np.datetime64]
    grid: Grid
    places: tuple[tuple[Path, int], ...]

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Consecutive blocks of at most ``size`` times, each (time, 2, latitude, longitude) in m/s.

        Raises:
            UserError: if values are missing, infinite or stronger than any wind; it names file, variable and time.
        """
        for start in range(0, self.times.size, size):
            places = self.places[start : start + size]
            parts, begin = [], 0
            for end in range(1, len(places) + 1):
                if end == len(places) or places[end][0] != places[begin][0]:
                    parts.append(_read(places[begin][0], [index for _, index in places[begin:end]]))
                    begin = end
            yield np.concatenate(parts)


def open_wind_files(pattern: str) -> WindFiles:
    """Open all files that ``pattern`` (a file, a directory or a glob) names.

    Raises:
        UserError: if there are none, one cannot be read, has no 10 m wind, other units, another grid than the first or none of the
            whole globe, or if a time occurs twice or none lies at 00, 06, 12 or 18 UTC.
    """
    grid: Grid | None = None
    found: dict[np.datetime64, tuple[Path, int]] = {}
    for path in _expand(pattern):
        with _open(path) as wind:
            try:
                this_grid = _grid(wind)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            if grid is None:
                grid = this_grid
            elif not (np.array_equal(grid.latitude, this_grid.latitude) and np.array_equal(grid.longitude, this_grid.longitude)):
                raise UserError(f"{path}: its grid ({this_grid.name}) differs from that of the files before it ({grid.name})")
            for index, time in enumerate(wind["time"].values.astype("datetime64[ns]")):
                if time in found:
                    raise UserError(f"{path}: time {_label(time)} occurs twice; it is in {found[time][0]} too")
                found[time] = (path, index)
    synoptic = sorted(time for time in found if time.astype("datetime64[s]").astype(int) % 21600 == 0)
    if grid is None or not synoptic:
        raise UserError(f"{pattern}: none of its {len(found)} times lies at 00, 06, 12 or 18 UTC")
    return WindFiles(np.array(synoptic), grid, tuple(found[time] for time in synoptic))


def fingerprint(pattern: str) -> str:
    """A text that changes when the files behind ``pattern`` do: other names, sizes or times of change."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _expand(pattern)]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    found = sorted(path.glob("*.nc")) if path.is_dir() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not found:
        raise UserError(f"source '{pattern}': no such file, and no NetCDF files in a directory or glob of that name")
    return found


@contextmanager
def _open(path: Path) -> Iterator[xr.Dataset]:
    """The lazy wind of one file, closed afterwards."""
    try:
        with warnings.catch_warnings():  # of oddities in variables that are not ours
            warnings.simplefilter("ignore", xr.SerializationWarning)
            dataset = xr.open_dataset(path, engine="netcdf4", decode_timedelta=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as NetCDF ({str(error).splitlines()[0]})") from None
    with dataset:
        yield _wind(dataset, path)


def _wind(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    """Variables u and v with dimensions (time, latitude, longitude), values still in the source's own order."""
    wind = xr.Dataset({"u": _component(dataset, U_NAMES, path), "v": _component(dataset, V_NAMES, path)})
    names = {}
    for standard, known in (("time", TIME_NAMES), ("latitude", LATITUDE_NAMES), ("longitude", LONGITUDE_NAMES)):
        here = [name for name in known if name in wind["u"].dims] or [name for name in known if name in wind.coords]
        if not here:
            raise UserError(f"{path}: has no coordinate '{standard}'")
        names[here[0]] = standard
    # A file may carry both `time` (of the start) and `valid_time`; only the one in use keeps its name.
    wind = wind.drop_vars([name for name in wind.coords if name not in names]).rename(names)
    if "time" not in wind.dims:
        wind = wind.expand_dims("time")
    for dimension, size in wind.sizes.items():
        if dimension not in ("time", "latitude", "longitude"):
            if size > 1:
                raise UserError(f"{path}: has a dimension '{dimension}' of length {size}; expected time, latitude and longitude alone")
            wind = wind.squeeze(dimension)
    if not np.issubdtype(wind["time"].dtype, np.datetime64):
        raise UserError(f"{path}: its times are no dates of the standard calendar")
    return wind.transpose("time", "latitude", "longitude")


def _component(dataset: xr.Dataset, names: tuple[str, ...], path: Path) -> xr.DataArray:
    for name in names:
        if name in dataset:
            units = str(dataset[name].attrs.get("units", "")).strip()
            if units not in UNITS:
                raise UserError(f"{path}: {name} has units '{units}'; expected m s-1")
            return dataset[name]
    raise UserError(
        f"{path}: has no 10 m wind; looked for {' or '.join(names)} among {', '.join(map(str, dataset.data_vars)) or 'nothing'}"
    )


def _order(wind: xr.Dataset) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices that bring latitudes from north to south and longitudes from 0 eastward."""
    return np.argsort(-wind["latitude"].values), np.argsort(wind["longitude"].values % 360)


def _grid(wind: xr.Dataset) -> Grid:
    rows, columns = _order(wind)
    latitude, longitude = (wind[name].values.astype(np.float64) for name in ("latitude", "longitude"))
    return Grid(latitude[rows], (longitude % 360)[columns])


def _read(path: Path, indices: list[int]) -> NDArray[np.float32]:
    """Times ``indices`` of one file, (time, 2, latitude, longitude)."""
    with _open(path) as wind:
        rows, columns = _order(wind)
        values = np.empty((len(indices), 2, rows.size, columns.size), dtype=np.float32)
        for channel, name in enumerate(("u", "v")):
            try:
                values[:, channel] = wind[name].isel(time=indices).values[:, rows][:, :, columns]
            except (OSError, RuntimeError) as error:
                raise UserError(f"{path}: cannot be read to its end ({str(error).splitlines()[0]})") from None
            for bad, what in ((~np.isfinite(values[:, channel]), "missing"), (np.abs(values[:, channel]) > STRONGEST_WIND, "absurd")):
                if bad.any():
                    time, row, column = np.argwhere(bad)[0]
                    value = values[time, channel, row, column]
                    raise UserError(
                        f"{path}: {what} value {value:g} m/s of 10 m wind {name} at {_label(wind['time'].values[indices[time]])} "
                        f"({int(bad.sum())} in these {len(indices)} steps)"
                    )
    return values


def _label(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))
