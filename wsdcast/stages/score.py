"""Stage 4: from forecasts to scores beside baselines, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
import yaml
from dask.base import compute
from dask.delayed import delayed
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
    is_current,
    make_stamp,
    require,
    resolve,
)
from wsdcast.data.analysis import open_analysis
from wsdcast.data.building import scheduler as at_work
from wsdcast.data.forecasts import STOPPED
from wsdcast.data.store import open_store
from wsdcast.errors import UserError
from wsdcast.forecasting.sampling import without_auto
from wsdcast.progress import track
from wsdcast.report.page import write_report
from wsdcast.verification.alignment import misalignment
from wsdcast.verification.baselines import CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY, WINDOW
from wsdcast.verification.comparison import compare
from wsdcast.verification.intervals import as_table, with_intervals
from wsdcast.verification.kinetic_energy import kinetic_energy_metrics
from wsdcast.verification.scoring import Sources, climate_of, joined, opened, score_start
from wsdcast.verification.statistics import ABOUT, BOTH, GLOBE, metrics, scored_pairs, spectral, with_both
from wsdcast.verification.streamed import STRINGS

OURS, MOMENTS_ALONE = "wsdcast", "moments alone"

BY_START = "_by_start"
"""Ending of the names of statistics in ``scores.nc``, to tell them from metrics."""
CHECKED = 4
"""Starts whose first lead times are compared with the truth before a forecast of unknown origin is scored."""


def score(
    recipe: str | Path | None = None,
    run: str | Path | None = None,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Score the forecasts of a run into ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    Args:
        recipe: path or name of a recipe; default: the one of the forecast.
        run: run directory; default ``runs/<recipe name>``.
        scheduler: address of a running dask.distributed scheduler that is to do the work, start by start.
        workers: do it in so many processes of this machine; default: in this one.
        overwrite: replace scores of another recipe.

    Raises:
        UserError: if there is no forecast, or it does not match the prepared record.
    """
    resolved, directory = resolve(recipe, run, FORECAST)
    resolved = without_auto(resolved, directory)
    analysis = require(resolved, directory, ANALYSIS, "prepare")
    forecasts = {OURS: require(resolved, directory, FORECAST, "rollout")}
    if resolved.generator.has_moments_model:
        forecasts[MOMENTS_ALONE] = require(resolved, directory, MOMENTS_FORECAST, "rollout")
    record, scores = open_analysis(analysis), None
    if is_current(resolved, directory, SCORES, overwrite):
        with xr.open_dataset(directory / SCORES, decode_timedelta=True) as dataset:
            scores = dataset.load() if {*ABOUT, "pairs"} <= set(dataset) else None  # an older version had fewer
    if scores is None:
        if resolved.rollout.keep == "statistics":
            raise UserError(f"{forecasts[OURS]}: has statistics over members alone (rollout.keep); scores need the members")
        with open_store(forecasts[OURS]) as store:
            times, leads = (store[name].values for name in ("time", "prediction_timedelta"))
        streamed, named = {}, tuple[tuple[str, str], ...]()
        if resolved.rollout.keep == "scores":
            streamed = {name: _made_in_the_rollout(path) for name, path in forecasts.items()}
        else:
            named = tuple((name, str(path)) for name, path in forecasts.items())
        with TemporaryDirectory(prefix="wsdcast-") as scratch:
            sources = Sources(named, str(analysis), record.validation_from, scratch)
            sums = _statistics(sources, times, leads, streamed, scheduler, workers)
        scores = _scores(sums)
        scores.attrs = {
            "title": "scores of 10 m wind ensemble forecasts",
            "grid": record.grid.name,
            "members": resolved.rollout.members,
            "wsdcast": json.dumps(make_stamp(resolved, directory, SCORES)),
        }
        _write(directory, scores)
    with complete(directory / SCORES_TABLE) as partial:
        as_table(scores).to_csv(partial, index=False, float_format="%.6g")
    if resolved.rollout.keep != "scores":  # it has maps
        with complete(directory / REPORT) as partial:
            about = (
                f"{resolved.data.source}, {record.grid.name} grid, {scores.sizes['time']} starts, {resolved.rollout.members} members, "
                f"{resolved.rollout.nfe} network evaluations per sample, prior: {resolved.generator.prior}"
            )
            text = yaml.safe_dump(resolved.dump(), sort_keys=False)
            write_report(partial, scores, record, forecasts[OURS], resolved.name, about, text)
    summary = _summary(directory, scores)
    summary.facts["evaluations"] = f"{resolved.rollout.nfe} per sample"
    return summary


def score_forecast(
    forecast: str,
    truth: str,
    run: str | Path | None = None,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Score a forecast of any origin into ``RUN/scores.nc`` and ``RUN/scores.csv``.

    Args:
        forecast: path or URL of a store of forecasts, in the layout of WeatherBench 2 or one near to it.
        truth: path, glob or URL of analyses, or the name of a public store, on the same grid.
        run: directory for what is found; default ``runs/<name of the store>``.
        scheduler, workers: as for :func:`score`.
        overwrite: replace scores of something else.

    Raises:
        UserError: if one of them cannot be read, they are on different grids, or are found not to fit together.
    """
    name = forecast.rstrip("/").split("/")[-1].removesuffix(".zarr").removesuffix(".nc")
    directory = Path(run) if run is not None else Path("runs") / name
    if (directory / SCORES).exists() and not overwrite:
        with xr.open_dataset(directory / SCORES) as there:
            if (there.attrs.get("forecast"), there.attrs.get("truth")) != (forecast, truth):
                raise UserError(f"{directory / SCORES} is of another forecast; choose another --run, or replace it with --overwrite")
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        sources = Sources(((name, forecast),), truth, np.datetime64("1678-01-01"), scratch)
        stored = opened(sources)[0][name]
        sources = Sources(((name, forecast),), truth, stored.times.min(), scratch)
        _require_aligned(sources)
        sums = _statistics(sources, stored.times, stored.leads, {}, scheduler, workers)
    scores = _scores(sums)
    about = {"grid": stored.grid.name, "members": stored.members, "forecast": forecast, "truth": truth}
    scores.attrs = {"title": "scores of 10 m wind ensemble forecasts", **about}
    _write(directory, scores)
    with complete(directory / SCORES_TABLE) as partial:
        as_table(scores).to_csv(partial, index=False, float_format="%.6g")
    return _summary(directory, scores)


def score_pair(first: str | Path, second: str | Path) -> Summary:
    """Compare the scores of two forecasts of the same dates, each a run directory or a ``scores.nc``.

    Returns:
        Rows as :func:`wsdcast.verification.comparison.compare` gives them.

    Raises:
        UserError: if one has no scores, they have no dates in common, or were scored against different truth.
    """
    found: list[xr.Dataset] = []
    for place in map(Path, (first, second)):
        path = place / SCORES if place.is_dir() else place
        if not path.is_file():
            raise UserError(f"{path} is not there; run `wsdcast score` for it first")
        try:
            with xr.open_dataset(path, decode_timedelta=True) as dataset:
                names = {str(name): str(name).removesuffix(BY_START) for name in dataset if str(name).endswith(BY_START)}
                found.append(dataset[list(names)].rename(names).load())
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as scores ({error})") from None
        if not names:
            raise UserError(f"{path}: has no statistics by start; it is of an older version, score again")
    summary = Summary("compare", scores=compare(found[0], found[1]))
    summary.facts = {
        "first": f"{first}: {found[0]['forecast'].values[0]}",
        "second": f"{second}: {found[1]['forecast'].values[0]}",
        "starts in common": int(np.intersect1d(found[0]["time"].values, found[1]["time"].values).size),
        "difference": "first - second, with 95 % of block bootstrap samples of the starts; below 0 the first is better",
    }
    return summary


def _made_in_the_rollout(path: Path) -> xr.Dataset:
    """Statistics by start of forecasts that were scored as they were made."""
    with open_store(path) as store:
        found = store.drop_vars(STOPPED).load()
    return found.assign_coords({name: found[name].values.astype(object).astype(str) for name in STRINGS})


def _statistics(
    sources: Sources,
    times: NDArray[np.datetime64],
    leads: NDArray[np.timedelta64],
    streamed: dict[str, xr.Dataset],
    scheduler: str | None,
    workers: int | None,
) -> xr.Dataset:
    """Statistics of all forecasts and baselines, (forecast, time, prediction_timedelta, ...), start by start.

    Args:
        sources: of what is to be scored.
        times, leads: of all of them.
        streamed: statistics by start that are there already.
        scheduler, workers: as for :func:`score`.
    """
    climate, states = climate_of(opened(sources)[1], times[:, None] + leads)
    tasks = [(sources, row, time, leads, (climate, states[row])) for row, time in enumerate(times)]
    parts: dict[str, list[xr.Dataset]] = {}
    for found in track(_in_turn(score_start, tasks, scheduler, workers), "scoring", times.size):
        for name, part in found.items():
            parts.setdefault(name, []).append(part)
    sums = joined(streamed | {name: xr.concat(starts, dim="time", join="outer") for name, starts in parts.items()}, times, leads)
    if not scored_pairs(sums).any():
        raise UserError(f"{sources.truth} has no truth for any start and lead time of the forecast")
    return sums


def _in_turn(function: Callable[..., Any], tasks: list[tuple[Any, ...]], scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Results in order: one by one here, or as many at once as a cluster has workers."""
    if scheduler is None and workers is None:
        yield from (function(*task) for task in tasks)
        return
    with at_work(scheduler, workers, "") as how:
        yield from compute(*(delayed(function)(*task) for task in tasks), **how)


def _scores(sums: xr.Dataset) -> xr.Dataset:
    """Metrics of the mean over starts with intervals, (forecast, prediction_timedelta, variable, region), and the statistics by start."""
    there, sums = scored_pairs(sums), with_both(sums)
    names = [str(name) for name in sums["forecast"].values]
    mean = sums.mean("time")
    scores = with_intervals(metrics(mean).merge(kinetic_energy_metrics(mean)), sums, names[1:])
    scores = scores.merge(sums.rename({name: f"{name}{BY_START}" for name in sums.data_vars}), join="outer")
    for name, (long_name, unit) in ABOUT.items():
        scores[name].attrs = {"long_name": long_name, "units": unit}
    scores["pairs"] = there.sum("time").assign_attrs(long_name="starts with truth and with every forecast", units="1")
    return scores


def _require_aligned(sources: Sources) -> None:
    """Refuse a forecast that fits the truth better in another place.

    Raises:
        UserError: if so, saying what is wrong.
    """
    forecasts, truth = opened(sources)
    for forecast in forecasts.values():
        rows = np.unique(np.linspace(0, forecast.times.size - 1, min(CHECKED, forecast.times.size)).round().astype(int))
        leads = forecast.leads[:2]
        mean = np.stack([forecast.read(int(row), slice(0, leads.size)).mean(axis=0) for row in rows]).astype(np.float64)
        valid = forecast.times[rows][:, None] + leads

        def at(hours: int, valid: Any = valid, shape: tuple[int, ...] = mean.shape) -> Any:
            return truth.at((valid + np.timedelta64(hours, "h")).ravel()).reshape(shape)

        hours = tuple(int(lead / np.timedelta64(1, "h")) for lead in leads)
        if wrong := misalignment(mean, at, hours, truth.grid):
            raise UserError(f"{forecast.name} {wrong}, as its first lead times beside the truth {sources.truth} tell; correct it first")


def _write(directory: Path, scores: xr.Dataset) -> None:
    with complete(directory / SCORES) as partial:
        try:
            scores.to_netcdf(partial)
        except RuntimeError as error:  # the NetCDF library's word for any failure of the disk
            raise OSError(f"{directory / SCORES}: cannot be written ({error})") from None


def _summary(directory: Path, scores: xr.Dataset) -> Summary:
    summary = Summary("score", scores=table(scores))
    summary.written = {
        str(directory / SCORES): "statistics by start, metrics with intervals, by lead, variable and region",
        str(directory / SCORES_TABLE): "the metrics, for spreadsheets",
    }
    if (directory / REPORT).exists():
        summary.written[str(directory / REPORT)] = "curves, spectra, histograms and maps"
    pairs, whole = int(scores["pairs"].sum()), scores.sizes["time"] * scores.sizes["prediction_timedelta"]
    summary.facts = {"grid": scores.attrs["grid"], "starts": scores.sizes["time"], "members": scores.attrs["members"]}
    if pairs < whole:
        summary.facts["dropped"] = f"{whole - pairs} of {whole} starts and lead times: no truth, or no members left"
    if CLIMATOLOGY in scores["forecast"]:
        summary.facts["climatology"] = "past states as members, the same for all starts: too few years for the same days of others"
    if PROBABILISTIC_CLIMATOLOGY in scores["forecast"]:
        summary.facts["climatology"] = f"the same days of other years as members, within {WINDOW} days"
    summary.facts["power spectrum"] = (
        ", ".join(f"{name} {100 * value:.0f} %" for name, value in _pooled_deviation(scores).items())
        + ": largest deviation from the truth's, starts, lead times, u and v averaged first"
    )
    return summary


def _pooled_deviation(scores: xr.Dataset) -> dict[str, float]:
    """Largest deviation of the power spectrum where starts and lead times are averaged first, by forecast with members of its own.

    That of a single lead time rests on as many dates as there are starts; with a dozen, the truth's power at one wavenumber is known to
    10 % only.
    """
    names = {f"{name}{BY_START}": name for name in ("power", "power_truth")}
    mean = scores[list(names)].rename(names).sel(variable=BOTH).mean(["time", "prediction_timedelta"])
    largest = spectral(mean)["power_deviation"]
    return {name: float(largest.sel(forecast=name)) for name in _with_members(scores)}


def _with_members(scores: xr.Dataset) -> list[str]:
    """What is reported, and the moments alone: forecasts whose fields are meant to look like wind."""
    names = [str(name) for name in scores["forecast"].values]
    return [name for name in names if name in (names[0], MOMENTS_ALONE)]


def table(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for the terminal: one per lead time, both wind components together."""
    both = scores.sel(variable=BOTH, region=GLOBE)
    first = both["forecast"].values[0]
    rows = []
    for lead in both["prediction_timedelta"].values:
        here = both.sel(prediction_timedelta=lead)
        row: dict[str, Any] = {"lead_hours": int(lead / np.timedelta64(1, "h"))}
        for forecast in here["forecast"].values:
            row[f"crps_fair: {forecast}"] = float(here["crps_fair"].sel(forecast=forecast))
        ours = here.sel(forecast=first)
        row |= {"crps_standard": float(ours["crps_standard"]), "rmse": float(ours["rmse"]), "spread_skill": float(ours["spread_skill"])}
        for forecast in _with_members(scores):
            row[f"power_deviation: {forecast}"] = float(here["power_deviation"].sel(forecast=forecast))
        rows.append(row)
    return rows
