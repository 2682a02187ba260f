"""How sure a mean over start dates is."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

DRAWS = 1000
BLOCK = np.timedelta64(48, "h")
"""Weather of start dates closer than this is much the same."""
AT_ONCE = np.timedelta64(0, "h")
BOUNDS = (0.025, 0.975)


def block_weights(times: NDArray[np.datetime64], lead: np.timedelta64 = AT_ONCE, draws: int = DRAWS) -> xr.DataArray:
    """Weights of start dates in bootstrap samples of circular blocks of them (Politis and Romano 1992), (draw, time), each row of sum 1.

    The same dates for everything that is compared, so that differences are of the same weather.

    Args:
        times: start dates, evenly spaced but for rounding.
        lead: the longest lead time; what is verified at the same time belongs together, so blocks are :data:`BLOCK` and this long.
        draws: how many samples.
    """
    count = times.size
    spacing = (times[-1] - times[0]) / max(1, count - 1)
    length = int(np.clip(np.ceil((BLOCK + lead) / max(spacing, np.timedelta64(1, "s"))), 1, max(1, count // 2)))
    random = np.random.default_rng(0)
    firsts = random.integers(0, count, (draws, -(-count // length)))
    chosen = ((firsts[:, :, None] + np.arange(length)) % count).reshape(draws, -1)[:, :count]
    weights = np.zeros((draws, count))
    np.add.at(weights, (np.arange(draws)[:, None], chosen), 1 / count)
    return xr.DataArray(weights, dims=("draw", "time"), coords={"time": times})


def resampled(sums: xr.Dataset, weights: xr.DataArray, there: xr.DataArray | None = None) -> xr.Dataset:
    """Means of statistics over each bootstrap sample of dates: ``time`` is replaced by ``draw``.

    Args:
        sums: statistics by start.
        weights: from :func:`block_weights`.
        there: which dates count, at each lead time (time, prediction_timedelta); default: all.
    """
    if there is None:
        return xr.Dataset({name: xr.dot(field, weights, dim="time") for name, field in sums.data_vars.items()})
    share = xr.dot(there.astype(float), weights, dim="time")
    share = share.where(share > 0)  # a sample may have none of them: too few to tell how sure the mean is
    return xr.Dataset({name: xr.dot(field.where(there, 0), weights, dim="time") / share for name, field in sums.data_vars.items()})


def interval(values: xr.DataArray) -> xr.DataArray:
    """95 % of the draws, with a dimension ``bound`` (low, high)."""
    return values.quantile(list(BOUNDS), dim="draw", skipna=False).rename(quantile="bound").assign_coords(bound=["low", "high"])
