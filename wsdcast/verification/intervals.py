"""How sure scores are: intervals over start dates, and skill against other forecasts of the same dates."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from wsdcast.data.store.zarr_store import SPEED
from wsdcast.verification.bootstrap import block_weights, interval, resampled
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics
from wsdcast.verification.spectra import wavelength_of_degree, wavelength_of_wavenumber
from wsdcast.verification.statistics import ABOUT, GLOBE, VECTOR, metrics, scored_pairs, with_both

BY_START = "_by_start"
"""Ending of the names of statistics by start, to tell them from metrics."""
SUMMED = ("crps_fair", "crps_standard", "bias", "squared_error", "squared_error_debiased", "variance")
JOINT = ("energy_score", "variogram_score", "brier_score")
SKILFUL = ("crps_fair", "energy_score")
"""Scores whose skill, 1 - score / score of the reference, is computed."""


def scores_of(sums: xr.Dataset) -> xr.Dataset:
    """Metrics of the mean over starts with intervals, (forecast, prediction_timedelta, variable, region), and the statistics by start.

    Args:
        sums: statistics, (forecast, time, prediction_timedelta, ...); the first forecast is compared with the others. Their attributes are
            passed on.
    """
    attributes = sums.attrs
    there, sums = scored_pairs(sums), with_both(sums)
    names = [str(name) for name in sums["forecast"].values]
    mean = sums.mean("time")
    scores = with_intervals(metrics(mean).merge(kinetic_energy_metrics(mean)), sums, names[1:])
    scores = scores.merge(sums.rename({name: f"{name}{BY_START}" for name in sums.data_vars}), join="outer")
    for name, (long_name, unit) in ABOUT.items():
        scores[name].attrs = {"long_name": long_name, "units": unit}
    scores["pairs"] = there.sum("time").assign_attrs(long_name="starts with truth and with every forecast", units="1")
    for along, wavelength in (("wavenumber", wavelength_of_wavenumber), ("degree", wavelength_of_degree)):
        length = (along, wavelength(scores[along].values), {"long_name": f"wavelength of a {along}", "units": "km"})
        scores = scores.assign_coords({f"wavelength_of_{along}": length})
    return scores.assign_attrs(title="scores of 10 m wind ensemble forecasts", **attributes)


def with_intervals(scores: xr.Dataset, sums: xr.Dataset, references: Sequence[str]) -> xr.Dataset:
    """Scores with ``_interval`` (bound: low, high), and with their ``_skill`` over each reference and its interval.

    Intervals hold 95 % of bootstrap samples of start dates, in blocks (:func:`block_weights`), the same for all forecasts, so that skill is
    known better than the scores that it is made of.

    Args:
        scores: from the mean of ``sums`` over time.
        sums: statistics, (forecast, time, prediction_timedelta, ...).
        references: names of forecasts.
    """
    weights = block_weights(sums["time"].values, sums["prediction_timedelta"].values.max())
    drawn = metrics(resampled(sums[[*SUMMED, *JOINT]], weights, scored_pairs(sums)))
    found = scores.merge(xr.Dataset({f"{name}_interval": interval(values) for name, values in drawn.data_vars.items()}))
    if references:
        dimension = xr.IndexVariable("reference", list(references))
        for name in SKILFUL:

            def skill(values: xr.DataArray) -> xr.DataArray:
                over = [values.sel(forecast=reference, drop=True) for reference in references]
                return 1 - values / xr.concat(over, dim=dimension)

            found[f"{name}_skill"] = skill(scores[name])
            found[f"{name}_skill_interval"] = interval(skill(drawn[name]))
    return found


def as_table(scores: xr.Dataset) -> pd.DataFrame:
    """One row for each metric of a forecast, variable, region and lead time: value, and low and high where there is an interval."""
    axes = {"forecast", "variable", "region", "prediction_timedelta"}
    beside = ["lag", "threshold", "reference", "part"]
    rows = []
    for name, field in scores.data_vars.items():
        if not axes - {"variable", "region"} <= set(field.dims) <= axes | set(beside):
            continue
        table = field.rename("value").to_dataframe().reset_index()
        if f"{name}_interval" in scores:
            bounds = scores[f"{name}_interval"]
            for bound in ("low", "high"):
                table = table.merge(bounds.sel(bound=bound, drop=True).rename(bound).to_dataframe().reset_index())
        # Some metrics are of a region as a whole, of a distance, of a threshold or over another forecast: that is part of their name.
        suffix = table[[column for column in beside if column in table]].astype(str).agg(" ".join, axis=1)
        table["metric"] = (f"{name} " + suffix).str.strip() if len(suffix) and suffix.any() else name
        if "variable" not in table:  # strong wind is of speed, whole fields are of u and v together
            table["variable"] = SPEED if name == "brier_score" else VECTOR
        rows.append(table.dropna(subset="value"))
    whole = pd.concat(rows)
    whole["lead_hours"] = (whole["prediction_timedelta"] / pd.Timedelta(hours=1)).astype(int)
    columns = ["forecast", "variable", "region", "lead_hours", "metric", "value", "low", "high"]
    return whole.reindex(columns=columns).fillna({"region": GLOBE})
