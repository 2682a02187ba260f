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
ENOUGH = 20
"""Blocks from which on more of them hardly help an interval to hold the true mean: then their length matters alone (docs/scores.md)."""


def block_weights(times: NDArray[np.datetime64], lead: np.timedelta64 = NO_LEAD, draws: int = DRAWS) -> xr.DataArray:
    """Return the weights of initial times in circular block bootstrap samples (Politis and Romano 1992), (draw, time); each row has sum 1.

    The draws depend only on the arguments (seed 0). So everything that is compared is drawn at the same initial times, and differences are
    between scores of the same weather. A single initial time has no interval, so its weights are NaN.

    Args:
        times: initial times, increasing.
        lead: the longest lead time with scores (:func:`longest_lead`, :func:`block_length`).
        draws: number of bootstrap samples.
    """
    count, length = times.size, block_length(times, lead)
    random = np.random.default_rng(0)
    firsts = random.integers(0, count, (draws, -(-count // length)))
    chosen = ((firsts[:, :, None] + np.arange(length)) % count).reshape(draws, -1)[:, :count]
    weights = np.full((draws, count), 0.0 if count > 1 else np.nan)
    np.add.at(weights, (np.arange(draws)[:, None], chosen), 1 / count)
    return xr.DataArray(weights, dims=("draw", "time"), coords={"time": times})


def block_length(times: NDArray[np.datetime64], lead: np.timedelta64) -> int:
    """Return how many initial times a block has: as many as lie within :data:`BLOCK` plus the longest lead time, or half if that is fewer.

    Forecasts with a common valid time belong in one block. Where the initial times are unevenly spaced, those that are closest together
    count.
    """
    within = np.searchsorted(times, times + (BLOCK + lead)) - np.arange(times.size)
    return min(int(within.max()), max(1, times.size // 2))


def longest_lead(scored: xr.DataArray) -> np.timedelta64:
    """Return the longest lead time with scores; 0 h if there is none.

    Args:
        scored: whether, or at how many initial times, there are scores, with the dimension ``prediction_timedelta``.
    """
    known = scored.any([dimension for dimension in scored.dims if dimension != "prediction_timedelta"])
    longest: np.timedelta64 = scored["prediction_timedelta"].values[known.values].max(initial=NO_LEAD)
    return longest


def blocks_in_words(times: NDArray[np.datetime64], lead: np.timedelta64) -> str:
    """Return in words how many blocks of initial times (time,) an interval is from, and whether these are too few."""
    if times.size < 2:
        return "none: they need two initial times"
    blocks = times.size / block_length(times, lead)
    few = ", which are few: the intervals are too narrow" if blocks < ENOUGH else ""
    return f"{blocks:.3g} blocks of initial times{few}"


def p_value(difference: xr.DataArray, draws: xr.DataArray, blocks: xr.DataArray) -> xr.DataArray:
    """Return the probability of a difference at least as large if the true difference is zero, from its bootstrap samples.

    It is (k + 1) / (n + 1), where k of the n samples deviate from ``difference`` by at least its size (Davison and Hinkley 1997, Eq. 4.11).
    But it is at least the probability that the differences of all blocks have the same sign by chance, 2 ^ (1 - blocks): no exact test of
    so few blocks gives less. It is NaN if a sample is, because there are too few initial times.

    Args:
        difference: of scores.
        draws: the same of bootstrap samples, with ``draw``.
        blocks: how many blocks of initial times have scores.
    """
    larger = (abs(draws - difference) >= abs(difference)).sum("draw")
    p = ((larger + 1) / (draws.sizes["draw"] + 1)).clip((0.5 ** (blocks - 1)).clip(max=1))
    return p.where(draws.notnull().all("draw"))


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
