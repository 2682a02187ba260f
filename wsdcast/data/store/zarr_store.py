"""Zarr stores of wind, as xarray and WeatherBench 2 read them: created empty, filled block by block, closed with their attributes."""

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
"""Channels in order, by their names in WeatherBench 2."""

SPEED = "10m_wind_speed"
"""Where it is kept beside them, as by WeatherBench 2."""

STANDARD_NAMES = dict(zip((*VARIABLES, SPEED), ("eastward_wind", "northward_wind", "wind_speed"), strict=True))
"""Of CF."""


SCALE = 0.005
"""m s-1 of one unit of a packed store: int16 then reaches to 164 m/s, and rounding is far below the packing of ERA5's own files."""


def create_store(
    path: Path,
    coordinates: dict[str, Any],
    grid: Grid,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    variables: Sequence[str] = VARIABLES,
) -> list[zarr.Array[Any]]:
    """An empty store of 10 m wind; returns the array of each variable, to be filled.

    Where there is one already, its metadata and coordinates are written anew and what its arrays hold is left.

    Args:
        path: of the store.
        coordinates: values of the dimensions before latitude and longitude, in order; ``time`` among them.
        grid: of the last two dimensions.
        chunks: what is read at once, for all dimensions but the last two, which are never split.
        shards: what is one file, multiples of ``chunks``; then values are packed as int16 in units of :data:`SCALE`. Default: each chunk
            is a file of float32.
        variables: :data:`VARIABLES`, or :data:`SPEED` with them.
    """
    axes = {
        **{name: (name, values, TIME_ATTRIBUTES.get(name, {})) for name, values in coordinates.items()},
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    first = coordinates["time"][0].astype("datetime64[D]")
    # Whole hours, which every reader of CF understands.
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
    """Put further arrays into a store, in place of those of the same names."""
    for name in variables:
        shutil.rmtree(path / name, ignore_errors=True)
    xr.Dataset(variables).to_zarr(path, mode="a", zarr_format=3, consolidated=False)


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


def open_store(path: Path, consolidated: bool | None = None) -> xr.Dataset:
    """The store as a lazy dataset without dask; with ``consolidated`` False one that is not closed yet."""
    return xr.open_zarr(path, chunks=None, consolidated=consolidated, decode_timedelta=True)


def pack(wind: NDArray[np.float32]) -> NDArray[np.int16]:
    """m s-1 to units of :data:`SCALE`."""
    return np.rint(wind / np.float32(SCALE)).astype(np.int16)


@dataclass(frozen=True)
class PackedWind:
    """Wind in memory as it is on disk, at half the size of float32; indexed like an array, it gives m s-1.

    Attributes:
        values: (time, channel, latitude, longitude), in units of :data:`SCALE`; in memory, or mapped from a file.
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
    """Wind of a packed store that stays on disk. Indexed along time like an array, it reads those states alone and gives m s-1.

    Attributes:
        arrays: one for each channel, (time, latitude, longitude).
    """

    arrays: tuple[Any, ...]

    def __getitem__(self, steps: Any) -> NDArray[np.float32]:
        wanted = np.arange(self.shape[0])[steps]
        # In order, and each once: so a chunk of the store is read once.
        positions, places = np.unique(wanted, return_inverse=True)
        wind = np.empty((positions.size, *self.shape[1:]), np.float32)
        for channel, array in enumerate(self.arrays if positions.size else ()):
            wind[:, channel] = array.oindex[positions] * np.float32(SCALE)
        return wind[places.reshape(wanted.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """(time, channel, latitude, longitude)."""
        first = self.arrays[0].shape
        return (first[0], len(self.arrays), *first[1:])


def stored_wind(path: Path) -> StoredWind:
    """Wind of a packed store, to be read state by state."""
    group = zarr.open_group(path, mode="r")
    return StoredWind(tuple(group[name] for name in VARIABLES))


def packed_size(path: Path) -> int:
    """Bytes that the wind of a packed store takes in memory."""
    group = zarr.open_group(path, mode="r")
    arrays: list[Any] = [group[name] for name in VARIABLES]
    return sum(2 * array.size for array in arrays)


def read_packed(path: Path, steps: slice = slice(None), mapped: Path | None = None) -> PackedWind:
    """Wind of a packed store.

    Args:
        path: of the store.
        steps: which.
        mapped: a file (.npy) to hold it, instead of memory.
    """
    group = zarr.open_group(path, mode="r")
    arrays: list[Any] = [group[name] for name in VARIABLES]
    begin, end, _ = steps.indices(arrays[0].shape[0])
    shape = (end - begin, len(arrays), *arrays[0].shape[1:])
    wind = np.empty(shape, np.int16) if mapped is None else np.lib.format.open_memmap(mapped, "w+", np.int16, shape)
    at_once = arrays[0].shards[0]
    for channel, array in enumerate(arrays):
        for first in range(begin, end, at_once):
            last = min(end, first + at_once)
            wind[first - begin : last - begin, channel] = array[first:last]
    return PackedWind(wind)


def read_wind(dataset: xr.Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Both components (..., channel, latitude, longitude) of a dataset whose last dimensions are latitude and longitude."""
    return np.stack([dataset[name].values for name in VARIABLES], axis=-3)
