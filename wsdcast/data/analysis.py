"""The prepared record of wind, as training, forecasting and scoring read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.store import VARIABLES, open_store, read_wind
from wsdcast.errors import UserError

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


def open_analysis(path: Path) -> Analysis:
    """Read a prepared store.

    Raises:
        UserError: if it is not there or is not one of ours.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not there; run `wsdcast prepare` first")
    with open_store(path) as dataset:
        try:
            about = dataset.attrs["normalisation"]
            return Analysis(
                wind=read_wind(dataset),
                times=dataset["time"].values.astype("datetime64[ns]"),
                grid=Grid(dataset["latitude"].values, dataset["longitude"].values),
                mean=np.array([about[name]["mean"] for name in VARIABLES], dtype=np.float32),
                std=np.array([about[name]["std"] for name in VARIABLES], dtype=np.float32),
                validation_from=np.datetime64(dataset.attrs["validation_from"], "ns"),
                test_from=np.datetime64(dataset.attrs["test_from"], "ns"),
            )
        except KeyError as error:
            raise UserError(f"{path}: not a store that `wsdcast prepare` wrote (no {error})") from None


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
