"""Zarr stores that xarray and WeatherBench 2 can read: created empty, filled block by block, closed with attributes."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT
from wsdcast.data.winds import array_attributes
from wsdcast.runs.errors import UserError, first_line

SCALE = 0.005
"""Unit of packed wind in m s-1. With it int16 reaches to 164 m/s, and rounding is far below that of ERA5's own packed files."""


class Packing(NamedTuple):
    """How channels are stored as int16: ``value = scale * integer + offset``.

    Attributes:
        scale: unit of the integers, in the units of each channel, float32, (channel,).
        offset: value of the integer 0, in the same shape.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def pack(self, states: NDArray[np.float32]) -> NDArray[np.int16]:
        """Convert values (..., channel, latitude, longitude) to integers. Values out of their reach become the nearest integer."""
        (scale, offset), limits = (field[:, None, None] for field in self), np.iinfo(np.int16)
        integers = np.rint(((states - offset) if offset.any() else states) / scale)
        return np.clip(integers, limits.min, limits.max, out=integers).astype(np.int16)

    def unpack(self, integers: NDArray[np.int16]) -> NDArray[np.float32]:
        """Convert integers (..., channel, latitude, longitude) to values."""
        scale, offset = (field[:, None, None] for field in self)
        values = integers * scale
        return values + offset if offset.any() else values

    def of(self, channels: Sequence[int]) -> Packing:
        """Return the packing of some channels."""
        return Packing(*(field[channels] for field in self))


def wind_packing(channels: int) -> Packing:
    """Return the packing of this number of channels of wind."""
    return Packing(np.full(channels, SCALE, np.float32), np.zeros(channels, np.float32))


def create_store(
    path: Path,
    coordinates: dict[str, Any],
    grid: Grid,
    variables: Sequence[str],
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    packing: Packing | None = None,
) -> list[zarr.Array[Any]]:
    """Create an empty store of fields and return the array of each variable, to be filled.

    If the store exists, its metadata and coordinates are written anew, and the values of its arrays stay. Files that a killed process left
    half written are removed.

    Args:
        path: path of the store.
        coordinates: values of the dimensions before latitude and longitude, in order. ``time`` must be one of them.
        grid: grid of the last two dimensions.
        variables: names of the arrays.
        chunks: sizes of a chunk, which is read at once, along the dimensions before latitude and longitude. These two are never split.
        shards: sizes of a shard, which is one file; multiples of ``chunks``. With shards, values are packed as int16. Default:
            each chunk is a file of float32.
        packing: how they are packed; needed with shards.
    """
    is_forecast = "prediction_timedelta" in coordinates
    axes = {
        **{name: (name, values, TIME_ATTRIBUTES.get(name, {})) for name, values in coordinates.items()},
        "time": ("time", coordinates["time"], TIME_ATTRIBUTES["time"] if is_forecast else {"standard_name": "time"}),
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    first = coordinates["time"][0].astype("datetime64[D]")
    # Every reader of CF understands whole hours.
    encoding = {"time": {"units": f"hours since {first}", "calendar": "proleptic_gregorian", "dtype": "int64"}}
    fresh = path.with_suffix(".fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    xr.Dataset(coords=axes).to_zarr(fresh, zarr_format=3, consolidated=False, encoding=encoding)
    path.mkdir(parents=True, exist_ok=True)
    for item in fresh.iterdir():
        if item.is_dir():
            shutil.rmtree(path / item.name, ignore_errors=True)
        item.replace(path / item.name)
    fresh.rmdir()
    for half in path.rglob("*.partial"):
        half.unlink()
    for name in variables:
        (path / name / "zarr.json").unlink(missing_ok=True)
    group = zarr.open_group(path, mode="r+")
    packed: dict[str, Any] = {"dtype": "float32", "fill_value": float("nan")}
    if shards is not None:
        packed = {"dtype": "int16", "fill_value": 0, "shards": (*shards, *grid.shape), "compressors": BloscCodec(cname="lz4", clevel=1)}
    return [
        group.create_array(
            name,
            shape=(*(len(values) for values in coordinates.values()), *grid.shape),
            chunks=(*chunks, *grid.shape),
            dimension_names=tuple(axes),
            attributes=array_attributes(name) | (_packing_attributes(packing, channel) if packing is not None else {}),
            **packed,
        )
        for channel, name in enumerate(variables)
    ]


def _packing_attributes(packing: Packing, channel: int) -> dict[str, float]:
    """Return the CF attributes of the packed array of a channel. The shortest decimals are written."""
    scale, offset = (float(str(field[channel])) for field in packing)
    return {"scale_factor": scale} | ({"add_offset": offset} if offset else {})


def add_variables(path: Path, variables: dict[str, xr.DataArray]) -> None:
    """Add arrays to a store. They replace arrays of the same names."""
    for name in variables:
        shutil.rmtree(path / name, ignore_errors=True)
    xr.Dataset(variables).to_zarr(path, mode="a", zarr_format=3, consolidated=False)


TIME_ATTRIBUTES = {
    "time": {"standard_name": "forecast_reference_time"},
    "number": {"standard_name": "realization"},
    "prediction_timedelta": {"standard_name": "forecast_period"},
}
"""Attributes of the axes of forecasts."""


def close_store(path: Path, attributes: dict[str, Any]) -> None:
    """Write the attributes of a filled store, and consolidate all metadata in one file, where xarray looks first."""
    zarr.open_group(path, mode="r+").attrs.update({"Conventions": "CF-1.11", **attributes})
    with warnings.catch_warnings():
        # Consolidated metadata are not yet part of the version 3 standard, but xarray and zarr both read them.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(path)


def open_store(path: Path, consolidated: bool | None = None) -> xr.Dataset:
    """Open a store as a lazy dataset without dask. A store that is not closed yet needs ``consolidated=False``.

    Raises:
        UserError: if its metadata cannot be read.
        OSError: if it is not there or cannot be read.
    """
    try:
        return xr.open_zarr(path, chunks=None, consolidated=consolidated, decode_timedelta=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged metadata cause errors of many types
        raise UserError(f"{path}: cannot be read ({first_line(error)}); if it is damaged, move it away and make it again") from None


class Channels(NamedTuple):
    """The names of the channels of a prepared store, in order.

    Attributes:
        state: the channels that are forecast.
        forcings: further channels, which are read and not forecast.
    """

    state: tuple[str, ...] = DEFAULT
    forcings: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Names of all channels of the store."""
        return self.state + self.forcings


DEFAULT_CHANNELS = Channels()


def name_channels(path: Path, channels: Channels) -> None:
    """Write the names of the channels to a prepared store. Without them they are the default."""
    if channels != DEFAULT_CHANNELS:
        names = {"variables": list(channels.state), "forcing_variables": list(channels.forcings)}
        zarr.open_group(path, mode="r+", use_consolidated=False).attrs.update(names)


def channels_of(path: Path) -> Channels:
    """Return the channels of a prepared store, also of one that is not complete yet."""
    attributes = zarr.open_group(path, mode="r", use_consolidated=False).attrs
    stored: Any = [attributes.get(key, default) for key, default in (("variables", DEFAULT), ("forcing_variables", ()))]
    return Channels(*map(tuple, stored))


def packing_of(path: Path) -> Packing:
    """Return the packing of a prepared store, also of one that is not complete yet."""
    arrays = arrays_of(path)
    scale, offset = ([array.attrs.get(key, default) for array in arrays] for key, default in (("scale_factor", 1), ("add_offset", 0)))
    return Packing(np.array(scale, np.float32), np.array(offset, np.float32))


def arrays_of(path: Path) -> list[Any]:
    """Return the Zarr array of each channel of a prepared store."""
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    return [group[name] for name in channels_of(path).all]
