"""Zarr stores of wind that xarray and WeatherBench 2 can read: created empty, filled block by block, closed with attributes."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from wsdcast.data.grid import Grid

VARIABLES = ("10m_u_component_of_wind", "10m_v_component_of_wind")
"""Names of the channels in order. They are the names of WeatherBench 2."""

SPEED = "10m_wind_speed"
"""WeatherBench 2's name of the wind speed, which some stores have as a further variable."""

STANDARD_NAMES = dict(zip((*VARIABLES, SPEED), ("eastward_wind", "northward_wind", "wind_speed"), strict=True))
"""CF standard name of each variable."""


SCALE = 0.005
"""Unit of a packed store in m s-1. With it int16 reaches to 164 m/s, and rounding is far below that of ERA5's own packed files."""


def create_store(
    path: Path,
    coordinates: dict[str, Any],
    grid: Grid,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    variables: Sequence[str] = VARIABLES,
) -> list[zarr.Array[Any]]:
    """Create an empty store of 10 m wind and return the array of each variable, to be filled.

    If the store exists, its metadata and coordinates are written anew, and the values of its arrays stay.

    Args:
        path: path of the store.
        coordinates: values of the dimensions before latitude and longitude, in order. ``time`` must be one of them.
        grid: grid of the last two dimensions.
        chunks: sizes of a chunk, which is read at once, along the dimensions before latitude and longitude. These two are never split.
        shards: sizes of a shard, which is one file; multiples of ``chunks``. With shards, values are packed as int16 in units of
            :data:`SCALE`. Default: each chunk is a file of float32.
        variables: :data:`VARIABLES`, or these and :data:`SPEED`.
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
            attributes={
                "standard_name": STANDARD_NAMES[name],
                "long_name": f"10 metre {STANDARD_NAMES[name].replace('_', ' ')}",
                "units": "m s-1",
                **({"scale_factor": SCALE} if shards is not None else {}),
            },
            **packed,
        )
        for name in variables
    ]


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


def pack(wind: NDArray[np.float32]) -> NDArray[np.int16]:
    """Convert wind in m s-1 to integers in units of :data:`SCALE`."""
    return np.rint(wind / np.float32(SCALE)).astype(np.int16)


@dataclass(frozen=True)
class PackedWind:
    """Packed wind in memory, which needs half the size of float32. It is indexed like an array and gives float32 in m s-1.

    Attributes:
        values: (time, channel, latitude, longitude), in units of :data:`SCALE`, in memory or mapped from a file.
    """

    values: NDArray[np.int16]

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        return self.values[index] * np.float32(SCALE)

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        return self.values.shape


@dataclass(frozen=True)
class StoredWind:
    """Wind of a packed store that stays on disk. Indexing it along time reads only those states and gives float32 in m s-1.

    Attributes:
        arrays: one Zarr array for each channel, (time, latitude, longitude).
    """

    arrays: tuple[Any, ...]

    def __getitem__(self, steps: Any) -> NDArray[np.float32]:
        indices = np.arange(self.shape[0])[steps]
        # Each state is read once and in order, so each chunk of the store is read once.
        positions, inverse = np.unique(indices, return_inverse=True)
        wind = np.empty((positions.size, *self.shape[1:]), np.float32)
        for channel, array in enumerate(self.arrays if positions.size else ()):
            wind[:, channel] = array.oindex[positions] * np.float32(SCALE)
        return wind[inverse.reshape(indices.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        first = self.arrays[0].shape
        return (first[0], len(self.arrays), *first[1:])


def stored_wind(path: Path) -> StoredWind:
    """Open the wind of a packed store, to be read state by state."""
    group = zarr.open_group(path, mode="r")
    return StoredWind(tuple(group[name] for name in VARIABLES))


def packed_size(path: Path) -> int:
    """Return the bytes that the packed wind of a store takes in memory."""
    group = zarr.open_group(path, mode="r")
    arrays: list[Any] = [group[name] for name in VARIABLES]
    return sum(2 * array.size for array in arrays)


def read_packed(path: Path, steps: slice = slice(None), mapped: Path | None = None) -> PackedWind:
    """Read the wind of a packed store.

    Args:
        path: path of the store.
        steps: which times are read.
        mapped: path of a file (.npy) that is written and holds the wind. Default: the wind is held in memory.
    """
    group = zarr.open_group(path, mode="r")
    arrays: list[Any] = [group[name] for name in VARIABLES]
    begin, end, _ = steps.indices(arrays[0].shape[0])
    shape = (end - begin, len(arrays), *arrays[0].shape[1:])
    wind = np.empty(shape, np.int16) if mapped is None else np.lib.format.open_memmap(mapped, "w+", np.int16, shape)
    shard = arrays[0].shards[0]
    for channel, array in enumerate(arrays):
        for first in range(begin, end, shard):
            last = min(end, first + shard)
            wind[first - begin : last - begin, channel] = array[first:last]
    return PackedWind(wind)


def read_wind(dataset: xr.Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return both components, (..., channel, latitude, longitude), of a dataset whose last dimensions are latitude and longitude."""
    return np.stack([dataset[name].values for name in VARIABLES], axis=-3)
