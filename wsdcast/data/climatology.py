"""Statistics of the training split of a prepared store: those that normalise the networks' data, and the climatology by month and hour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP
from wsdcast.data.store.shards import SHARD
from wsdcast.data.store.zarr_store import VARIABLES, read_packed

HOURS = np.array([0, 6, 12, 18])


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training split, in m s-1.

    Attributes:
        scalars: for each variable its area-weighted ``mean`` and ``std``, and ``difference_std``, the root mean square difference of
            states 6 h apart.
        climatology: mean at each point, (channel, month, hour, latitude, longitude); NaN for a month and hour without states.
    """

    scalars: dict[str, dict[str, float]]
    climatology: NDArray[np.float32]

    def variables(self) -> dict[str, xr.DataArray]:
        """Return the climatology as arrays for the store, by name."""
        dimensions = ("month", "hour", "latitude", "longitude")
        coordinates = {"month": np.arange(1, 13), "hour": HOURS}
        attributes = {"units": "m s-1", "cell_methods": "time: mean within days time: mean over years"}
        return {
            f"{name}_climatology": xr.DataArray(field, coordinates, dimensions, attrs=attributes)
            for name, field in zip(VARIABLES, self.climatology, strict=True)
        }


def statistics(path: Path, times: NDArray[np.datetime64], training: NDArray[np.bool_], grid: Grid) -> Statistics:
    """Compute the statistics of the training split of a prepared store in one pass.

    One shard is in memory at a time. Sums are in double precision.

    Args:
        path: path of the store.
        times: all times of the store, (time,).
        training: which times are in the training split, (time,).
        grid: grid of the store.
    """
    weights = (grid.area_weights / grid.area_weights.sum() / grid.longitude.size)[:, None]
    sums, count = np.zeros((2, len(VARIABLES))), 0
    squared_difference, pairs = np.zeros(len(VARIABLES)), 0
    totals, counts = np.zeros((len(VARIABLES), 12, 4, *grid.shape)), np.zeros((12, 4), dtype=int)
    months = times.astype("datetime64[M]").astype(int) % 12
    hours = (times - times.astype("datetime64[D]")) // STEP
    previous: tuple[np.datetime64, NDArray[np.float32]] | None = None
    for first in range(0, times.size, SHARD):
        if not training[first : first + SHARD].any():
            continue
        for step, wind in enumerate(read_packed(path, slice(first, first + SHARD))[:], start=first):
            if not training[step]:
                continue
            weighted = wind * weights
            sums += weighted.sum(axis=(1, 2)), (weighted * wind).sum(axis=(1, 2))
            count += 1
            if previous is not None and times[step] - previous[0] == STEP:
                squared_difference += ((wind - previous[1]) ** 2 * weights).sum(axis=(1, 2))
                pairs += 1
            previous = times[step], wind
            totals[:, months[step], hours[step]] += wind
            counts[months[step], hours[step]] += 1
    mean, square = sums / count
    scalars = {
        name: {
            "mean": float(mean[channel]),
            "std": float(np.sqrt(square[channel] - mean[channel] ** 2)),
            "difference_std": float(np.sqrt(squared_difference[channel] / pairs)) if pairs else float("nan"),
        }
        for channel, name in enumerate(VARIABLES)
    }
    with np.errstate(invalid="ignore"):
        return Statistics(scalars, (totals / counts[None, :, :, None, None]).astype(np.float32))
