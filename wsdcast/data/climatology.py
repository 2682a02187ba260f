"""Statistics of the training split of a prepared store: those that normalise the networks' data, and the climatology by month and hour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP
from wsdcast.data.store.states import read_packed
from wsdcast.data.store.zarr_store import channels_of
from wsdcast.data.variables import variable

HOURS = np.array([0, 6, 12, 18])
STEPS = 64
"""Times that are read together. They are whole chunks of the store."""


def training_statistics(
    path: Path, times: NDArray[np.datetime64], training: NDArray[np.bool_], grid: Grid
) -> tuple[dict[str, dict[str, float]], dict[str, xr.DataArray]]:
    """Compute the statistics of the training split of a prepared store in one pass, in the units of each channel.

    :data:`STEPS` times are in memory at a time. Sums are in double precision.

    Args:
        path: path of the store.
        times: all times of the store, (time,).
        training: which times are in the training split, (time,).
        grid: grid of the store.

    Returns:
        For each channel its area-weighted ``mean`` and ``std``, and ``difference_std``, the root mean square difference of states 6 h
        apart. And arrays for the store by name: the climatology of each channel that is forecast, its mean at each point, (month, hour,
        latitude, longitude). It is NaN for a month and hour without states.
    """
    weights = (grid.area_weights / grid.area_weights.sum() / grid.longitude.size)[:, None]
    channels = channels_of(path)
    state, every = len(channels.state), len(channels.all)
    sums, count = np.zeros((2, every)), 0
    squared_difference, pairs = np.zeros(every), 0
    totals, counts = np.zeros((state, 12, 4, *grid.shape)), np.zeros((12, 4), dtype=int)
    months = times.astype("datetime64[M]").astype(int) % 12
    hours = (times - times.astype("datetime64[D]")) // STEP
    previous: tuple[np.datetime64, NDArray[np.float32]] | None = None
    for first in range(0, times.size, STEPS):
        if not training[first : first + STEPS].any():
            continue
        states = read_packed(path, slice(first, first + STEPS))
        for step in np.flatnonzero(training[first : first + STEPS]) + first:
            fields = states[step - first]  # unpacked one by one, because float32 takes twice the memory
            follows = previous is not None and times[step] - previous[0] == STEP
            for channel, field in enumerate(fields):  # one after the other, because many channels do not fit in the processor's cache
                weighted = field * weights
                sums[:, channel] += weighted.sum(), (weighted * field).sum()
                if previous is not None and follows:
                    squared_difference[channel] += ((field - previous[1][channel]) ** 2 * weights).sum()
            count += 1
            pairs += follows
            previous = times[step], fields
            totals[:, months[step], hours[step]] += fields[:state]
            counts[months[step], hours[step]] += 1
    mean, square = sums / count
    scalars = {
        name: {
            "mean": float(mean[channel]),
            "std": float(np.sqrt(square[channel] - mean[channel] ** 2)),
            "difference_std": float(np.sqrt(squared_difference[channel] / pairs)) if pairs else float("nan"),
        }
        for channel, name in enumerate(channels.all)
    }
    coordinates = {"month": np.arange(1, 13), "hour": HOURS}
    dimensions, methods = (*coordinates, "latitude", "longitude"), {"cell_methods": "time: mean within days time: mean over years"}
    climatology = {}
    for name, total in zip(channels.state, totals, strict=True):
        with np.errstate(invalid="ignore"):
            field = (total / counts[:, :, None, None]).astype(np.float32)
        attributes = {"units": variable(name).units} | methods
        climatology[f"{name}_climatology"] = xr.DataArray(field, coordinates, dimensions, attrs=attributes)
    return scalars, climatology
