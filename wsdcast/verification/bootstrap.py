"""Confidence intervals of means over initial times, from a block bootstrap."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

DRAWS = 1000
"""Number of bootstrap samples."""
BLOCK = np.timedelta64(48, "h")
"""Shortest block of initial times. The weather at initial times closer than this is correlated."""
NO_LEAD = np.timedelta64(0, "h")
BOUNDS = (0.025, 0.975)
"""Quantiles at the ends of an interval."""


def block_weights(times: NDArray[np.datetime64], lead: np.timedelta64 = NO_LEAD, draws: int = DRAWS) -> xr.DataArray:
    """Return the weights of initial times in circular block bootstrap samples (Politis and Romano 1992), (draw, time); each row has sum 1.

    The draws depend only on the arguments (seed 0). So everything that is compared is drawn at the same initial times, and differences are
    between scores of the same weather.

    Args:
        times: initial times, evenly spaced except for rounding.
        lead: the longest lead time. Forecasts with a common valid time belong in one block, so a block lasts :data:`BLOCK` plus this.
        draws: number of bootstrap samples.
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


def resampled(statistics: xr.Dataset, weights: xr.DataArray, scored: xr.DataArray | None = None) -> xr.Dataset:
    """Return the means of statistics over each bootstrap sample, with ``draw`` instead of ``time``.

    Args:
        statistics: by initial time.
        weights: from :func:`block_weights`.
        scored: which initial times count at each lead time, bool (time, prediction_timedelta); default: all.
    """
    if scored is None:
        return xr.Dataset({name: xr.dot(field, weights, dim="time") for name, field in statistics.data_vars.items()})
    share = xr.dot(scored.astype(float), weights, dim="time")
    share = share.where(share > 0)  # NaN if a sample has no initial time that counts: there are too few for an interval
    return xr.Dataset({name: xr.dot(field.where(scored, 0), weights, dim="time") / share for name, field in statistics.data_vars.items()})


def interval(values: xr.DataArray) -> xr.DataArray:
    """Return the interval that holds 95 % of the draws, with ``bound`` (low, high) instead of ``draw``."""
    return values.quantile(list(BOUNDS), dim="draw", skipna=False).rename(quantile="bound").assign_coords(bound=["low", "high"])
