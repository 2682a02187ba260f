"""Helper of the tests: a store in the layout of WeatherBench 2 with variables of the surface and of pressure levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from conftest import six_hourly

from wsdcast.data.grid import Grid
from wsdcast.data.variables import variable

TYPICAL = {
    "2m_temperature": (280, 10),
    "mean_sea_level_pressure": (101000, 1300),
    "geopotential": (54000, 1500),
    "temperature": (265, 12),
    "specific_humidity": (0.006, 0.001),
}
"""Mean and standard deviation; those of wind are 0 and 8 m/s."""


def weatherbench(names: Sequence[str], grid: Grid, levels: Sequence[int], static: Sequence[str] = ()) -> xr.Dataset:
    """Return ten days of random weather with the variables of channels: longitude before latitude, latitudes rising, levels in hPa.

    Args:
        names: the channels.
        grid: grid of the fields.
        levels: all pressure levels of the store, hPa.
        static: names of static fields, between 0 and 1.
    """
    random, times = np.random.default_rng(0), six_hourly("2020-01-01", 40)
    source = xr.Dataset(coords={"time": times, "level": list(levels), "longitude": grid.longitude, "latitude": grid.latitude[::-1]})
    for name in names:
        base, _, level = name.partition("@")
        if base in source:
            continue
        axes = ("time", "level", "longitude", "latitude") if level else ("time", "longitude", "latitude")
        values = random.normal(*TYPICAL.get(base, (0, 8)), [source.sizes[axis] for axis in axes]).astype(np.float32)
        if base == "geopotential":
            values += 287 * 255 * np.log(500 / np.array(levels, dtype=np.float32))[:, None, None]
        source[base] = axes, values, {"units": variable(name).units}
    for name in static:
        units = "m**2 s**-2" if name == "geopotential_at_surface" else "1"
        source[name] = ("longitude", "latitude"), random.uniform(0, 1, grid.shape[::-1]).astype(np.float32), {"units": units}
    return source


def channel(source: xr.Dataset, name: str) -> np.ndarray:
    """Return a channel of such a store as ours have it, (time, latitude, longitude), from north to south."""
    base, _, level = name.partition("@")
    field = source[base].sel(level=int(level)) if level else source[base]
    return field.transpose("time", "latitude", "longitude").values[:, ::-1]
