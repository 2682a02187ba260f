"""The prepared record of wind: one Zarr store, its layout, and what training and forecasting read of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.errors import UserError

VARIABLES = ("10m_u_component_of_wind", "10m_v_component_of_wind")
"""Channels in order, by their names in WeatherBench 2."""

STEP = np.timedelta64(6, "h")
CHUNK = 64
"""Times in one chunk of the store."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Analysis:
    """The record in memory.

    Attributes:
        wind: (time, channel, latitude, longitude), float32, m s-1.
        times: (time,), increasing, 6 h apart but for gaps.
        grid: where.
        mean, std: of each channel over the training part, (channel,), m s-1, area-weighted.
        validation_from, test_from: first time of either part; training is all before.
    """

    wind: NDArray[np.float32]
    times: NDArray[np.datetime64]
    grid: Grid
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    validation_from: np.datetime64
    test_from: np.datetime64

    def normalise(self, wind: NDArray[np.float32]) -> NDArray[np.float32]:
        """m s-1 to the networks' units, for (..., channel, latitude, longitude)."""
        return (wind - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, wind: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of :meth:`normalise`."""
        return wind * self.std[:, None, None] + self.mean[:, None, None]

    def part(self, part: Part) -> NDArray[np.bool_]:
        """Which times belong to a part, (time,)."""
        after_validation, after_test = self.times >= self.validation_from, self.times >= self.test_from
        return {"train": ~after_validation & ~after_test, "validation": after_validation & ~after_test, "test": after_test}[part]

    def now(self, part: Part, steps: int = 1) -> NDArray[np.intp]:
        """Indices i such that i - 1, i, ..., i + ``steps`` are 6 h apart each and all in the part: no gap or split is straddled."""
        inside = self.part(part)
        length = steps + 2
        if inside.size < length:
            return np.empty(0, dtype=np.intp)
        windows = np.lib.stride_tricks.sliding_window_view
        whole = windows(inside, length).all(axis=1) & (windows(np.diff(self.times), length - 1) == STEP).all(axis=1)
        return np.flatnonzero(whole) + 1


def create(path: Path, times: NDArray[np.datetime64], grid: Grid) -> zarr.Group:
    """An empty store of the final layout, readable by xarray; the caller fills the two arrays and the attributes."""
    coordinates = {"time": ("time", times), **grid_coordinates(grid)}
    xr.Dataset(coords=coordinates).to_zarr(path, zarr_format=3, consolidated=False, encoding=time_encoding(times))
    group = zarr.open_group(path, mode="r+")
    for name in VARIABLES:
        group.create_array(
            name,
            shape=(times.size, *grid.shape),
            chunks=(CHUNK, *grid.shape),
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=("time", "latitude", "longitude"),
            attributes=wind_attributes(name),
        )
    return group


def open_analysis(path: Path) -> Analysis:
    """Read a prepared store.

    Raises:
        UserError: if it is not there or is not one of ours.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not there; run `wsdcast prepare` first")
    with xr.open_zarr(path, consolidated=False, chunks=None) as dataset:
        try:
            about = dataset.attrs["normalisation"]
            return Analysis(
                wind=np.stack([dataset[name].values for name in VARIABLES], axis=1),
                times=dataset["time"].values.astype("datetime64[ns]"),
                grid=Grid(dataset["latitude"].values, dataset["longitude"].values),
                mean=np.array([about[name]["mean"] for name in VARIABLES], dtype=np.float32),
                std=np.array([about[name]["std"] for name in VARIABLES], dtype=np.float32),
                validation_from=np.datetime64(dataset.attrs["validation_from"], "ns"),
                test_from=np.datetime64(dataset.attrs["test_from"], "ns"),
            )
        except KeyError as error:
            raise UserError(f"{path}: not a store that `wsdcast prepare` wrote (no {error})") from None


def grid_coordinates(grid: Grid) -> dict[str, tuple[str, NDArray[np.float64], dict[str, str]]]:
    """Latitude and longitude with CF attributes, for xarray."""
    return {
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }


def time_encoding(times: NDArray[np.datetime64]) -> dict[str, Any]:
    """Times as whole hours, which every reader of CF understands."""
    return {"time": {"units": f"hours since {times[0].astype('datetime64[D]')}", "calendar": "proleptic_gregorian", "dtype": "int64"}}


def wind_attributes(name: str) -> dict[str, Any]:
    """CF attributes of one of :data:`VARIABLES`."""
    direction = "eastward" if name == VARIABLES[0] else "northward"
    return {"standard_name": f"{direction}_wind", "long_name": f"10 metre {direction} wind", "units": "m s-1"}


class RunningMoments:
    """Area-weighted mean and standard deviation of each channel, added up block by block in double precision."""

    def __init__(self, grid: Grid) -> None:
        self.weights = (grid.area_weights / grid.area_weights.sum() / grid.longitude.size)[:, None]
        self.count = 0
        self.sums = np.zeros((2, len(VARIABLES)))

    def add(self, wind: NDArray[np.float32]) -> None:
        """Add (time, channel, latitude, longitude)."""
        weighted = wind * self.weights
        self.count += wind.shape[0]
        self.sums += np.array([weighted.sum(axis=(0, 2, 3)), (weighted * wind).sum(axis=(0, 2, 3))])

    def result(self) -> Iterator[dict[str, float]]:
        """Mean and std of each channel."""
        mean, square = self.sums / self.count
        return ({"mean": float(m), "std": float(np.sqrt(s - m**2))} for m, s in zip(mean, square, strict=True))
