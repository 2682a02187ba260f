"""Two forecasts of the same dates: how much better one is than the other, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wsdcast.runs.errors import UserError
from wsdcast.verification.bootstrap import block_weights, interval, resampled
from wsdcast.verification.statistics import BOTH, GLOBE, metrics

COMPARED = ("crps_fair", "rmse", "energy_score")
NEEDED = ("crps_fair", "squared_error", "squared_error_debiased", "variance", "energy_score")
AGREEMENT = 1e-5
"""Relative; how well the scores of a forecast that both have must agree."""


def compare(first: xr.Dataset, second: xr.Dataset) -> list[dict[str, Any]]:
    """Differences of scores over the globe, of both components, at the lead times that both have, over the starts that both have, as rows.

    Each row has the scores of both, the difference ``first - second`` (below zero the first is better), its 95 % interval and p, the
    probability of as large a difference if there were none: both from block bootstrap samples of the start dates, the same for both
    forecasts (:func:`block_weights`), p from the samples' deviations from the difference found.

    Args:
        first, second: statistics by start of each and of what stood beside it, (forecast, time, prediction_timedelta, ...); the first of
            their forecasts are compared.

    Raises:
        UserError: if they have no start or lead time in common, or were scored against other truth.
    """
    times = np.intersect1d(first["time"].values, second["time"].values)
    leads = np.intersect1d(first["prediction_timedelta"].values, second["prediction_timedelta"].values)
    if not times.size or not leads.size:
        raise UserError(f"the two have no {'lead' if times.size else 'start'} time in common")
    ours, theirs = (
        one[list(NEEDED)].sel(time=times, prediction_timedelta=leads, region=GLOBE).sel(variable=BOTH) for one in (first, second)
    )
    _require_same_truth(ours, theirs)
    both = xr.concat([one.isel(forecast=0, drop=True) for one in (ours, theirs)], dim="which")
    there = both["crps_fair"].notnull().all("which")
    found = metrics(both.where(there).mean("time"))
    drawn = metrics(resampled(both, block_weights(times, leads.max()), there))
    rows = []
    for name in COMPARED:
        difference = found[name].isel(which=0) - found[name].isel(which=1)
        draws = drawn[name].isel(which=0) - drawn[name].isel(which=1)
        bounds = interval(draws)
        chance = (abs(draws - difference) >= abs(difference)).mean("draw")
        for lead in leads:
            at = {"prediction_timedelta": lead}
            values = [float(value) for value in found[name].sel(at)]
            rows.append(
                {
                    "lead_hours": int(lead / np.timedelta64(1, "h")),
                    "metric": name,
                    "first": values[0],
                    "second": values[1],
                    "difference": float(difference.sel(at)),
                    "interval": [float(bound) for bound in bounds.sel(at)],
                    "p": float(chance.sel(at)),
                    "starts": int(there.sel(at).sum()),
                }
            )
    return sorted(rows, key=lambda row: row["lead_hours"])


def _require_same_truth(first: xr.Dataset, second: xr.Dataset) -> None:
    """What stood beside both, such as persistence, must have the same scores."""
    if "persistence" not in first["forecast"] or "persistence" not in second["forecast"]:
        return
    scores = [one["crps_fair"].sel(forecast="persistence").values for one in (first, second)]
    both = np.isfinite(scores[0]) & np.isfinite(scores[1])
    if not np.allclose(scores[0][both], scores[1][both], rtol=AGREEMENT):
        raise UserError(
            "the two were scored against different truth, or on different parts of the globe: persistence has other scores in each"
        )
