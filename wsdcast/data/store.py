"""Zarr stores of wind, as xarray and WeatherBench 2 read them: created empty, filled block by block, closed with their attributes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from wsdcast.data.grid import Grid

VARIABLES = ("10m_u_component_of_wind", "10m_v_component_of_wind")
"""Channels in order, by their names in WeatherBench 2."""


def create_store(path: Path, coordinates: dict[str, Any], grid: Grid, chunks: tuple[int, ...]) -> list[zarr.Array[Any]]:
    """An empty store of 10 m wind; returns the array of each of :data:`VARIABLES`, to be filled.

    Args:
        path: of the store.
        coordinates: values of the dimensions before latitude and longitude, in order; ``time`` among them.
        grid: of the last two dimensions.
        chunks: for all dimensions but the last two, which are never split.
    """
    axes = {
        **{name: (name, values, TIME_ATTRIBUTES.get(name, {})) for name, values in coordinates.items()},
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    first = coordinates["time"][0].astype("datetime64[D]")
    # Whole hours, which every reader of CF understands.
    encoding = {"time": {"units": f"hours since {first}", "calendar": "proleptic_gregorian", "dtype": "int64"}}
    xr.Dataset(coords=axes).to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(path, mode="r+")
    return [
        group.create_array(
            name,
            shape=(*(len(values) for values in coordinates.values()), *grid.shape),
            chunks=(*chunks, *grid.shape),
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=tuple(axes),
            attributes={"standard_name": f"{direction}_wind", "long_name": f"10 metre {direction} wind", "units": "m s-1"},
        )
        for name, direction in zip(VARIABLES, ("eastward", "northward"), strict=True)
    ]


TIME_ATTRIBUTES = {
    "time": {"standard_name": "time"},
    "number": {"standard_name": "realization"},
    "prediction_timedelta": {"standard_name": "forecast_period"},
}


def close_store(path: Path, attributes: dict[str, Any]) -> None:
    """Give a filled store its attributes, and gather all metadata in one file, where xarray looks for it first."""
    zarr.open_group(path, mode="r+").attrs.update({"Conventions": "CF-1.11", **attributes})
    with warnings.catch_warnings():
        # Consolidated metadata are not yet in the text of the version 3 standard; xarray and zarr both read them.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(path)


def open_store(path: Path) -> xr.Dataset:
    """The store as a lazy dataset without dask."""
    return xr.open_zarr(path, chunks=None, decode_timedelta=True)


def read_wind(dataset: xr.Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Both components (..., channel, latitude, longitude) of a dataset whose last dimensions are latitude and longitude."""
    return np.stack([dataset[name].values for name in VARIABLES], axis=-3)
