"""Zarr stores of wind that xarray and WeatherBench 2 can read: created empty, filled block by block, closed with attributes."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT, variable
from wsdcast.data.variables import SPEED as SPEED
from wsdcast.data.winds import array_attributes

VARIABLES = DEFAULT
"""The channels of a recipe that names none: the two components of the 10 m wind."""

STANDARD_NAMES = {name: variable(name).standard_name for name in (*VARIABLES, SPEED)}
"""CF standard name of each variable of the wind."""

SCALE = 0.005
"""Unit of packed wind in m s-1. With it int16 reaches to 164 m/s, and rounding is far below that of ERA5's own packed files."""


class Packing(NamedTuple):
    """How channels are stored as int16: ``value = scale * integer + offset``.

    Attributes:
        scale: unit of the integers, in the units of each channel, float32, (channel,), or a scalar if it is the same for all channels.
        offset: value of the integer 0, in the same shape.
    """

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def pack(self, states: NDArray[np.float32]) -> NDArray[np.int16]:
        """Convert values (..., channel, latitude, longitude) to integers. Values out of their reach become the nearest integer."""
        return pack(states, *self._per_channel())

    def unpack(self, integers: NDArray[np.int16]) -> NDArray[np.float32]:
        """Convert integers (..., channel, latitude, longitude) to values."""
        scale, offset = self._per_channel()
        values = integers * scale
        return values + offset if offset.any() else values

    def of(self, channel: int) -> Packing:
        """Return the packing of one channel."""
        return self if self.scale.ndim == 0 else Packing(self.scale[channel], self.offset[channel])

    def _per_channel(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return (self.scale, self.offset) if self.scale.ndim == 0 else (self.scale[:, None, None], self.offset[:, None, None])


WIND_PACKING = Packing(np.array(SCALE, np.float32), np.array(0, np.float32))
"""Packing of a record of the default channels."""


def create_store(
    path: Path,
    coordinates: dict[str, Any],
    grid: Grid,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    variables: Sequence[str] = VARIABLES,
    packing: Packing = WIND_PACKING,
) -> list[zarr.Array[Any]]:
    """Create an empty store of fields and return the array of each variable, to be filled.

    If the store exists, its metadata and coordinates are written anew, and the values of its arrays stay.

    Args:
        path: path of the store.
        coordinates: values of the dimensions before latitude and longitude, in order. ``time`` must be one of them.
        grid: grid of the last two dimensions.
        chunks: sizes of a chunk, which is read at once, along the dimensions before latitude and longitude. These two are never split.
        shards: sizes of a shard, which is one file; multiples of ``chunks``. With shards, values are packed as int16. Default:
            each chunk is a file of float32.
        variables: names of the arrays.
        packing: how they are packed, if there are shards.
    """
    axes = {
        **{name: (name, values, TIME_ATTRIBUTES.get(name, {})) for name, values in coordinates.items()},
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
            attributes=array_attributes(name) | (_packing_attributes(packing.of(channel)) if shards is not None else {}),
            **packed,
        )
        for channel, name in enumerate(variables)
    ]


def _packing_attributes(packing: Packing) -> dict[str, float]:
    """Return the CF attributes of a packed array; ``packing`` is that of one channel. The shortest decimals are written."""
    scale, offset = (float(str(np.float32(value))) for value in packing)
    return {"scale_factor": scale} | ({"add_offset": offset} if offset else {})


def add_variables(path: Path, variables: dict[str, xr.DataArray]) -> None:
    """Add arrays to a store. They replace arrays of the same names."""
    for name in variables:
        shutil.rmtree(path / name, ignore_errors=True)
    xr.Dataset(variables).to_zarr(path, mode="a", zarr_format=3, consolidated=False)


TIME_ATTRIBUTES = {
    "time": {"standard_name": "time"},
    "number": {"standard_name": "realization"},
    "prediction_timedelta": {"standard_name": "forecast_period"},
}


def close_store(path: Path, attributes: dict[str, Any]) -> None:
    """Write the attributes of a filled store, and consolidate all metadata in one file, where xarray looks first."""
    zarr.open_group(path, mode="r+").attrs.update({"Conventions": "CF-1.11", **attributes})
    with warnings.catch_warnings():
        # Consolidated metadata are not yet part of the version 3 standard, but xarray and zarr both read them.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(path)


def open_store(path: Path, consolidated: bool | None = None) -> xr.Dataset:
    """Open a store as a lazy dataset without dask. A store that is not closed yet needs ``consolidated=False``."""
    return xr.open_zarr(path, chunks=None, consolidated=consolidated, decode_timedelta=True)


def pack(
    values: NDArray[np.float32], scale: NDArray[np.float32] = WIND_PACKING.scale, offset: NDArray[np.float32] = WIND_PACKING.offset
) -> NDArray[np.int16]:
    """Convert values to integers in units of ``scale``, which broadcasts, above ``offset``. Default: wind in m s-1."""
    limits = np.iinfo(np.int16)
    integers = np.rint(((values - offset) if offset.any() else values) / scale)
    return np.clip(integers, limits.min, limits.max, out=integers).astype(np.int16)


@dataclass(frozen=True)
class PackedStates:
    """Packed states in memory, which need half the size of float32. They are indexed along time and give float32.

    Attributes:
        values: (time, channel, latitude, longitude), integers, in memory or mapped from a file.
        packing: what the integers mean.
    """

    values: NDArray[np.int16]
    packing: Packing = WIND_PACKING

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        if not isinstance(index, tuple) or self.packing.scale.ndim == 0:
            return self.packing.unpack(self.values[index])
        scale, offset = (np.broadcast_to(field[:, None, None], self.shape)[index] for field in self.packing)
        return self.values[index] * scale + offset

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        return self.values.shape


@dataclass(frozen=True)
class StoredStates:
    """States of a packed store that stay on disk. Indexing them along time reads only those states and gives float32.

    Attributes:
        arrays: one Zarr array for each channel, (time, latitude, longitude).
        packing: what their integers mean.
    """

    arrays: tuple[Any, ...]
    packing: Packing = WIND_PACKING

    def __getitem__(self, steps: Any) -> NDArray[np.float32]:
        indices = np.arange(self.shape[0])[steps]
        # Each state is read once and in order, so each chunk of the store is read once.
        positions, inverse = np.unique(indices, return_inverse=True)
        states = np.empty((positions.size, *self.shape[1:]), np.float32)
        for channel, array in enumerate(self.arrays if positions.size else ()):
            states[:, channel] = self.packing.of(channel).unpack(array.oindex[positions])
        return states[inverse.reshape(indices.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        first = self.arrays[0].shape
        return (first[0], len(self.arrays), *first[1:])


class Channels(NamedTuple):
    """The names of the channels of a prepared store, in order.

    Attributes:
        state: the channels that are forecast.
        forcings: further channels, which are read and not forecast.
    """

    state: tuple[str, ...] = VARIABLES
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
    stored: Any = [attributes.get(key, default) for key, default in (("variables", VARIABLES), ("forcing_variables", ()))]
    return Channels(*map(tuple, stored))


def packing_of(path: Path) -> Packing:
    """Return the packing of a prepared store, also of one that is not complete yet."""
    arrays = _arrays(path)
    scale, offset = ([array.attrs.get(key, default) for array in arrays] for key, default in (("scale_factor", 1), ("add_offset", 0)))
    if len({*zip(scale, offset, strict=True)}) == 1:
        return Packing(np.array(scale[0], np.float32), np.array(offset[0], np.float32))
    return Packing(np.array(scale, np.float32), np.array(offset, np.float32))


def _arrays(path: Path) -> list[Any]:
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    return [group[name] for name in channels_of(path).all]


def stored_states(path: Path) -> StoredStates:
    """Open the states of a packed store, to be read one by one."""
    return StoredStates(tuple(_arrays(path)), packing_of(path))


def packed_size(path: Path) -> int:
    """Return the bytes that the packed states of a store take in memory."""
    return sum(2 * array.size for array in _arrays(path))


def read_packed(path: Path, steps: slice = slice(None), mapped: Path | None = None) -> PackedStates:
    """Read the states of a packed store.

    Args:
        path: path of the store.
        steps: which times are read.
        mapped: path of a file (.npy) that is written and holds the states. Default: they are held in memory.
    """
    arrays = _arrays(path)
    begin, end, _ = steps.indices(arrays[0].shape[0])
    shape = (end - begin, len(arrays), *arrays[0].shape[1:])
    states = np.empty(shape, np.int16) if mapped is None else np.lib.format.open_memmap(mapped, "w+", np.int16, shape)
    shard = arrays[0].shards[0]
    for first in range(begin, end, shard):  # times first, so that a mapped file is written from its beginning to its end
        last = min(end, first + shard)
        for channel, array in enumerate(arrays):
            states[first - begin : last - begin, channel] = array[first:last]
    return PackedStates(states, packing_of(path))


def read_wind(dataset: xr.Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return both components, (..., channel, latitude, longitude), of a dataset whose last dimensions are latitude and longitude."""
    return np.stack([dataset[name].values for name in VARIABLES], axis=-3)
