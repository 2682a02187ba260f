"""Differences between the scores of two forecasts of the same initial times, with intervals and p-values."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.winds import wind_of
from wsdcast.runs.errors import UserError
from wsdcast.verification.bootstrap import block_length, block_weights, interval, longest_lead, p_value, resampled
from wsdcast.verification.metrics import GLOBE, headline_of, metrics, variables_of

COMPARED_METRICS = ("crps_fair", "rmse", "energy_score")
COMPARED_STATISTICS = ("crps_fair", "squared_error", "squared_error_debiased", "variance", "energy_score")
"""Statistics from which these metrics are computed."""
AGREEMENT = 1e-5
"""Largest relative difference between the scores of persistence, which must be equal, in both data sets."""
ROUNDING = 1e-6
"""Relative difference to which scores agree with their definitions (docs/results/speed.md). One that is not larger has p = 1."""


def compare(first: xr.Dataset, second: xr.Dataset) -> list[dict[str, Any]]:
    """Compare global scores of the headline (:func:`common_headline`) at common lead times, averaged over common initial times.

    The energy score is compared if the headline belongs to a wind, and is that wind's.

    Args:
        first, second: statistics by initial time, (forecast, time, prediction_timedelta, ...). The first forecast of ``first`` is compared
            with the first forecast of ``second``.

    Returns:
        One row for each lead time with scores and each metric: both scores, the difference ``first - second`` (below zero the first is
        better), its 95 % interval, and p, the probability of a difference at least as large if the true difference is zero, 1 if they
        differ by rounding alone (:data:`ROUNDING`). Interval and p come from block bootstrap samples of the initial times, the same for
        both forecasts (:func:`block_weights`). They are NaN if fewer than two initial times have both scores.

    Raises:
        UserError: if they have no initial time, no lead time or no variable in common, or were scored against different truth.
    """
    variable = common_headline(first, second)
    times = np.intersect1d(first["time"].values, second["time"].values)
    leads = np.intersect1d(first["prediction_timedelta"].values, second["prediction_timedelta"].values)
    if not times.size or not leads.size:
        raise UserError(f"the two have no {'lead' if times.size else 'initial'} time in common")
    wind = wind_of(variable, variables_of(first))
    names = [name for name in COMPARED_STATISTICS if name in first and name in second and (wind or name != "energy_score")]
    of_headline = {"variable": variable} if wind is None else {"variable": variable, "wind": wind.vector}
    ours, theirs = (
        one[names]
        .sel(time=times, prediction_timedelta=leads, region=GLOBE)
        .sel({axis: at for axis, at in of_headline.items() if axis in one[names].dims}, drop=True)
        for one in (first, second)
    )
    _require_same_truth(ours, theirs)
    both = xr.concat([one.isel(forecast=0, drop=True) for one in (ours, theirs)], dim="which")
    scored = both["crps_fair"].notnull().all("which")
    if not scored.any():
        raise UserError("the two have no initial and lead time in common at which both have scores")
    scores = metrics(both.where(scored).mean("time"))
    longest = longest_lead(scored)
    blocks = scored.sum("time") / block_length(times, longest)
    drawn = metrics(resampled(both, block_weights(times, longest), scored))
    rows = []
    for name in (name for name in COMPARED_METRICS if name in scores):
        difference = scores[name].isel(which=0) - scores[name].isel(which=1)
        draws = drawn[name].isel(which=0) - drawn[name].isel(which=1)
        bounds = interval(draws)
        is_rounding = abs(difference) <= ROUNDING * abs(scores[name]).max("which")
        p_values = p_value(difference.where(~is_rounding, 0), draws, blocks)
        for lead in leads[scored.any("time").values]:
            at = {"prediction_timedelta": lead}
            values = [float(value) for value in scores[name].sel(at)]
            rows.append(
                {
                    "lead_hours": int(lead / np.timedelta64(1, "h")),
                    "metric": name,
                    "first": values[0],
                    "second": values[1],
                    "difference": float(difference.sel(at)),
                    "interval": [float(bound) for bound in bounds.sel(at)],
                    "p": float(p_values.sel(at)),
                    "starts": int(scored.sel(at).sum()),
                }
            )
    return sorted(rows, key=lambda row: row["lead_hours"])


def common_headline(first: xr.Dataset, second: xr.Dataset) -> str:
    """Return the variable that is compared: the headline of the first, or else that of the second.

    Raises:
        UserError: if neither is in both.
    """
    names = [name for name in (headline_of(first), headline_of(second)) if name in first["variable"] and name in second["variable"]]
    if not names:
        raise UserError(f"the two have no variable in common: {headline_of(first)} and {headline_of(second)}")
    return names[0]


def _require_same_truth(first: xr.Dataset, second: xr.Dataset) -> None:
    """Raise a UserError unless persistence, if both data sets have it, has the same scores in both."""
    if "persistence" not in first["forecast"] or "persistence" not in second["forecast"]:
        return
    scores = [one["crps_fair"].sel(forecast="persistence").values for one in (first, second)]
    both = np.isfinite(scores[0]) & np.isfinite(scores[1])
    if not np.allclose(scores[0][both], scores[1][both], rtol=AGREEMENT):
        raise UserError(
            "the two were scored against different truth, or on different parts of the globe: their scores of persistence differ; "
            "score both with the same --truth, such as RUN/analysis.zarr"
        )
