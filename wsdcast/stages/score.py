"""Stage 4: from forecasts to scores beside baselines, and the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from numpy.typing import NDArray

from wsdcast.artefact import (
    ANALYSIS,
    FORECAST,
    MOMENTS_FORECAST,
    REPORT,
    SCORES,
    SCORES_TABLE,
    Summary,
    complete,
    digest_of,
    is_current,
    make_stamp,
    require,
    resolve,
)
from wsdcast.data.analysis import STEP, Analysis, open_analysis
from wsdcast.data.store import VARIABLES, open_store, read_wind
from wsdcast.errors import UserError
from wsdcast.forecasting.sampling import without_auto
from wsdcast.progress import track
from wsdcast.recipe import Recipe
from wsdcast.report.interactive_maps import in_words
from wsdcast.report.page import write_report
from wsdcast.verification.baselines import climatology, persistence
from wsdcast.verification.intervals import as_table, with_intervals
from wsdcast.verification.statistics import ABOUT, BOTH, GLOBE, joint_statistics, metrics, spectral, statistics, with_both

OURS, MOMENTS_ALONE, PERSISTENCE, CLIMATOLOGY = "wsdcast", "moments alone", "persistence", "climatology"

BY_START = "_by_start"
"""Ending of the names of statistics in ``scores.nc``, to tell them from metrics."""


def score(recipe: str | Path | None = None, run: str | Path | None = None, *, overwrite: bool = False) -> Summary:
    """Score the forecasts of a run into ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    Args:
        recipe: path or name of a recipe; default: the one of the forecast.
        run: run directory; default ``runs/<recipe name>``.
        overwrite: replace scores of another recipe.

    Raises:
        UserError: if there is no forecast, or it does not match the prepared record.
    """
    resolved, directory = resolve(recipe, run, FORECAST)
    resolved = without_auto(resolved, directory)
    record = open_analysis(require(resolved, directory, ANALYSIS, "prepare"))
    forecasts = {OURS: require(resolved, directory, FORECAST, "rollout")}
    if resolved.generator.has_moments_model:
        forecasts[MOMENTS_ALONE] = require(resolved, directory, MOMENTS_FORECAST, "rollout")
    path, report = directory / SCORES, directory / REPORT
    scores = None
    if is_current(resolved, directory, SCORES, overwrite):
        with xr.open_dataset(path, decode_timedelta=True) as dataset:
            scores = dataset.load() if set(ABOUT) <= set(dataset) else None  # an older version had fewer
    if scores is None:
        scores = _score(resolved, directory, record, forecasts)
        with complete(path) as partial:
            try:
                scores.to_netcdf(partial)
            except RuntimeError as error:  # the NetCDF library's word for any failure of the disk
                raise OSError(f"{path}: cannot be written ({error})") from None
    with complete(directory / SCORES_TABLE) as partial:
        as_table(scores).to_csv(partial, index=False, float_format="%.6g")
    with complete(report) as partial:
        facts = {
            "recipe": resolved.name,
            "hash": digest_of(resolved.dump()),
            "model": f"{resolved.generator.prior} prior, {resolved.rollout.nfe} network evaluations per sample",
            "data": resolved.data.source,
            "grid": record.grid.name,
            "starts": f"{scores.sizes['time']}, {in_words(scores['time'].values[0])} to {in_words(scores['time'].values[-1])}",
            "members": str(resolved.rollout.members),
        }
        title, text = f"Ensemble forecast of 10 m wind: {resolved.name}", yaml.safe_dump(resolved.dump(), sort_keys=False)
        with open_store(forecasts[OURS]) as store:

            def fields(start: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
                time, leads = store["time"].values[start], store["prediction_timedelta"].values
                return read_wind(store.isel(time=start)), _truth(record, time, leads)[1]

            write_report(partial, scores, record.grid, fields, title, facts, text, on_earth=resolved.data.source != "planet")
    summary = Summary("score", scores=table(scores))
    summary.written = {
        str(path): "statistics by start, metrics with intervals, by lead, variable and region",
        str(directory / SCORES_TABLE): "the metrics, for spreadsheets",
        str(report): "curves, spectra, histograms and maps",
    }
    summary.facts = {
        "grid": record.grid.name,
        "starts": scores.sizes["time"],
        "members": resolved.rollout.members,
        "evaluations": f"{resolved.rollout.nfe} per sample",
        "climatology": f"{len(climatology(record))} states of the training part as members",
        "power spectrum": ", ".join(f"{name} {100 * value:.0f} %" for name, value in _pooled_deviation(scores).items())
        + ": largest deviation from the truth's, starts, lead times, u and v averaged first",
    }
    return summary


def _pooled_deviation(scores: xr.Dataset) -> dict[str, float]:
    """Largest deviation of the power spectrum where starts and lead times are averaged first, by forecast with members of its own.

    That of a single lead time rests on as many dates as there are starts; with a dozen, the truth's power at one wavenumber is known to
    10 % only.
    """
    names = {f"{name}{BY_START}": name for name in ("power", "power_truth")}
    mean = scores[list(names)].rename(names).sel(variable=BOTH).mean(["time", "prediction_timedelta"])
    largest = spectral(mean)["power_deviation"]
    return {name: float(largest.sel(forecast=name)) for name in (OURS, MOMENTS_ALONE) if name in largest["forecast"]}


def _score(recipe: Recipe, directory: Path, record: Analysis, forecasts: dict[str, Path]) -> xr.Dataset:
    """Statistics by start, and metrics of their mean over starts with intervals, (forecast, prediction_timedelta, variable, region)."""
    climate = climatology(record)
    parts: dict[str, list[xr.Dataset]] = {}
    stores = {name: open_store(path) for name, path in forecasts.items()}
    first = stores[OURS]
    if "number" not in first[VARIABLES[0]].dims:
        raise UserError(f"{forecasts[OURS]}: has statistics over members alone (rollout.keep); scores need the members")
    times, leads = first["time"].values, first["prediction_timedelta"].values
    for index, time in enumerate(track(times, "scoring", times.size)):
        now, truth = _truth(record, time, leads)
        for name, whole in _ensembles(record, stores, climate, index, now, leads.size):
            # A member that was stopped is left out, at the leads before too, so that it is the same members at all leads.
            ensemble = whole[np.isfinite(whole).all(axis=(1, 2, 3, 4))]
            if not ensemble.size:
                raise UserError(f"{name}: all members from {time.astype('datetime64[h]')} left the physical range; nothing to score")
            found = statistics(ensemble, truth, record.grid).merge(joint_statistics(ensemble, truth, record.grid))
            if ensemble.shape[0] < whole.shape[0]:
                found = found.drop_vars("rank_histogram")  # of fewer ranks than the others'
            parts.setdefault(name, []).append(found)
    for store in stores.values():
        store.close()
    by_forecast = [xr.concat(starts, dim="time", join="outer") for starts in parts.values()]
    sums = with_both(xr.concat(by_forecast, dim=xr.IndexVariable("forecast", list(parts)), join="outer"))
    sums = sums.assign_coords(time=times, prediction_timedelta=leads)
    scores = with_intervals(metrics(sums.mean("time")), sums, [name for name in parts if name != OURS])
    scores = scores.merge(sums.rename({name: f"{name}{BY_START}" for name in sums.data_vars}), join="outer")
    for name, (long_name, unit) in ABOUT.items():
        scores[name].attrs = {"long_name": long_name, "units": unit}
    scores.attrs = {
        "title": "scores of 10 m wind ensemble forecasts",
        "grid": record.grid.name,
        "members": recipe.rollout.members,
        "wsdcast": json.dumps(make_stamp(recipe, directory, SCORES)),
    }
    return scores


def _truth(record: Analysis, start: np.datetime64, leads: NDArray[np.timedelta64]) -> tuple[int, NDArray[np.float32]]:
    """Index of the start in the record and the truth (lead, channel, latitude, longitude)."""
    now = np.searchsorted(record.times, start)
    valid = start + leads
    truth = now + (leads // STEP)
    if truth[-1] >= record.times.size or record.times[now] != start or not np.array_equal(record.times[truth], valid):
        raise UserError(f"the prepared record has no gap-free truth for the forecast from {start.astype('datetime64[h]')}")
    return int(now), record.wind[truth]


def _ensembles(
    record: Analysis, stores: dict[str, xr.Dataset], climate: NDArray[np.float32], index: int, now: int, leads: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and members (member, lead, channel, latitude, longitude) of everything that is compared, for one start."""
    for name, store in stores.items():
        yield name, read_wind(store.isel(time=index))
    yield PERSISTENCE, persistence(record, now, leads)
    yield CLIMATOLOGY, np.broadcast_to(climate[:, None], (climate.shape[0], leads, *climate.shape[1:]))


def table(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for the terminal: one per lead time, both wind components together."""
    both = scores.sel(variable=BOTH, region=GLOBE)
    rows = []
    for lead in both["prediction_timedelta"].values:
        here = both.sel(prediction_timedelta=lead)
        row: dict[str, Any] = {"lead_hours": int(lead / np.timedelta64(1, "h"))}
        for forecast in here["forecast"].values:
            row[f"crps_fair: {forecast}"] = float(here["crps_fair"].sel(forecast=forecast))
        ours = here.sel(forecast=OURS)
        row |= {"crps_standard": float(ours["crps_standard"]), "rmse": float(ours["rmse"]), "spread_skill": float(ours["spread_skill"])}
        for forecast in (OURS, MOMENTS_ALONE):
            if forecast in here["forecast"]:
                row[f"power_deviation: {forecast}"] = float(here["power_deviation"].sel(forecast=forecast))
        rows.append(row)
    return rows
