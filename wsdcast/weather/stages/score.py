"""Stage 4: from forecasts to scores beside baselines, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
import yaml

from wsdcast.data.steps import STEP
from wsdcast.data.store.zarr_store import VARIABLES, open_store
from wsdcast.report.interactive_maps import in_words as time_in_words
from wsdcast.report.page import write_report
from wsdcast.runs.artefact import Summary, complete, digest_of, is_current, make_stamp, require, resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, FORECAST, MOMENTS_ALONE, MOMENTS_FORECAST, REPORT, SCORES, SCORES_TABLE
from wsdcast.runs.resources import require_memory
from wsdcast.verification.alignment import require_aligned
from wsdcast.verification.baselines import CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY, WINDOW
from wsdcast.verification.comparison import compare
from wsdcast.verification.domain import in_words
from wsdcast.verification.gaussian import one_step_scores
from wsdcast.verification.intervals import BY_START, as_table, scores_of
from wsdcast.verification.memory import needs
from wsdcast.verification.scoring import Sources, fields_of, opened, statistics_by_start
from wsdcast.verification.statistics import ABOUT, BOTH, GLOBE, spectral
from wsdcast.verification.streamed import STRINGS
from wsdcast.verification.truth import Truth
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import without_auto

OURS = "wsdcast"


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
        UserError: if there is no forecast, it does not match the prepared record, or memory cannot hold what is scored at a time.
    """
    resolved, directory = resolve(recipe, run, Recipe, FORECAST)
    resolved = without_auto(resolved, directory)
    analysis = require(resolved, directory, ANALYSIS, "prepare")
    forecasts = {OURS: require(resolved, directory, FORECAST, "rollout")}
    if resolved.generator.has_moments_model:
        forecasts[MOMENTS_ALONE] = require(resolved, directory, MOMENTS_FORECAST, "rollout")
    keep = resolved.rollout.keep
    if keep == "statistics":
        raise UserError(f"{forecasts[OURS]}: has statistics over members alone (rollout.keep); scores need the members")
    scores = None
    if is_current(resolved, directory, SCORES, overwrite):
        with xr.open_dataset(directory / SCORES, decode_timedelta=True) as dataset:
            scores = dataset.load() if {*ABOUT, "pairs"} <= set(dataset) else None  # an older version had fewer
    streamed = {name: _made_in_the_rollout(path) for name, path in forecasts.items()} if keep == "scores" else {}
    with open_store(analysis) as store:
        past_until = np.datetime64(store.attrs["validation_from"], "ns")
    with open_store(forecasts[OURS]) as store:
        times, leads = (store[name].values for name in ("time", "prediction_timedelta"))
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        named = tuple((name, str(path)) for name, path in forecasts.items() if name not in streamed)
        sources = Sources(named, str(analysis), past_until, scratch)
        grid = opened(sources)[1].grid
        _require_memory(sources, times, leads, len(streamed), resolved.rollout.members, workers)
        if scores is None:
            scores = scores_of(statistics_by_start(sources, times, leads, streamed, scheduler, workers))
            if (gaussian := _gaussian(forecasts.get(MOMENTS_ALONE), opened(sources)[1], scores)) is not None:
                scores["crps_gaussian"] = gaussian
            stamp = json.dumps(make_stamp(resolved, directory, SCORES))
            scores.attrs |= {"grid": grid.name, "members": resolved.rollout.members, "wsdcast": stamp}
            _write(directory, scores)
        facts = {
            "recipe": resolved.name,
            "hash": digest_of(resolved.dump()),
            "model": f"{resolved.generator.prior} prior, {resolved.rollout.nfe} network evaluations per sample",
            "data": resolved.data.source,
        }
        text = yaml.safe_dump(resolved.dump(), sort_keys=False)
        _report(directory, scores, sources, resolved.name, facts, text, resolved.data.source != "planet")
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
    """Score a forecast of any origin into ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    Args:
        forecast: path or URL of a store of forecasts, in the layout of WeatherBench 2 or one near to it.
        truth: path, glob or URL of analyses, or the name of a public store, on the same grid.
        run: directory for what is found; default ``runs/<name of the store>``.
        scheduler, workers: as for :func:`score`.
        overwrite: replace scores of something else.

    Raises:
        UserError: if one of them cannot be read, they are on different grids, are found not to fit together, or memory cannot hold what
            is scored at a time.
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
        _require_memory(sources, stored.times, stored.leads, 0, stored.members, workers)
        inside = require_aligned(stored, opened(sources)[1], truth)
        domain = b"" if inside is None else np.packbits(inside).tobytes()
        sources = Sources(((name, forecast),), truth, stored.times.min(), scratch, domain)
        scores = scores_of(statistics_by_start(sources, stored.times, stored.leads, {}, scheduler, workers))
        scores.attrs |= {"grid": stored.grid.name, "members": stored.members, "forecast": forecast, "truth": truth}
        if inside is not None:
            scores.attrs["share_of_globe"], scores.attrs["scored_on"] = in_words(stored.grid, inside)
        _write(directory, scores)
        _report(directory, scores, sources, name, {"forecast": forecast, "truth": truth}, "", on_earth=True)
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


def _require_memory(sources: Sources, *sizes: Any) -> None:
    """Refuse scores or a report that cannot fit before anything is read; arguments as for :func:`needs`.

    Raises:
        UserError: if so, saying what needs how much.
    """
    for needed, what in needs(sources, *sizes):
        require_memory(needed, what)


def _gaussian(path: Path | None, truth: Truth, scores: xr.Dataset) -> xr.DataArray | None:
    """CRPS in closed form of what the moments network predicts, where the scores have it: its own forecast and 6 h ahead.

    None without such a network, and for a forecast of an older version, which did not keep what it predicts.
    """
    if path is None:
        return None
    with open_store(path) as store:
        if f"{VARIABLES[0]}_mean" not in store:
            return None
        found = one_step_scores(store, truth).expand_dims(forecast=[MOMENTS_ALONE], prediction_timedelta=[STEP.astype("timedelta64[ns]")])
    axes = ("forecast", "prediction_timedelta", "variable", "region")
    there = found.reindex({name: scores[name] for name in axes})
    return there.assign_attrs(long_name="continuous ranked probability score of the predicted Gaussian, in closed form", units="m s-1")


def _made_in_the_rollout(path: Path) -> xr.Dataset:
    """Statistics by start of forecasts that were scored as they were made."""
    with open_store(path) as store:
        found = store[[name for name, field in store.data_vars.items() if "prediction_timedelta" in field.dims]].load()
    return found.assign_coords({name: found[name].values.astype(object).astype(str) for name in STRINGS})


def _report(directory: Path, scores: xr.Dataset, sources: Sources, name: str, facts: dict[str, str], recipe: str, on_earth: bool) -> None:
    """The table for spreadsheets and the page."""
    with complete(directory / SCORES_TABLE) as partial:
        as_table(scores).to_csv(partial, index=False, float_format="%.6g")
    starts = [time_in_words(scores["time"].values[end]) for end in (0, -1)]
    facts |= {
        "grid": scores.attrs["grid"],
        "starts": f"{scores.sizes['time']}, {starts[0]} to {starts[1]}",
        "members": str(scores.attrs["members"]),
    }
    facts |= _what_is_missing(scores)
    fields, grid = fields_of(sources), opened(sources)[1].grid
    with complete(directory / REPORT) as partial:
        write_report(partial, scores, grid, fields, f"Ensemble forecast of 10 m wind: {name}", facts, recipe, on_earth=on_earth)


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
    summary.written[str(directory / REPORT)] = "curves, spectra, histograms and maps"
    pairs, whole = int(scores["pairs"].sum()), scores.sizes["time"] * scores.sizes["prediction_timedelta"]
    summary.facts = {"grid": scores.attrs["grid"], "starts": scores.sizes["time"], "members": scores.attrs["members"]}
    if pairs < whole:
        summary.facts["dropped"] = f"{whole - pairs} of {whole} starts and lead times: no truth, or fewer than two members left"
    if CLIMATOLOGY in scores["forecast"]:
        summary.facts["climatology"] = "past states as members, the same for all starts: too few years for the same days of others"
    if PROBABILISTIC_CLIMATOLOGY in scores["forecast"]:
        summary.facts["climatology"] = f"the same days of other years as members, within {WINDOW} days"
    summary.facts |= _what_is_missing(scores)
    if "scored_on" in scores.attrs:
        return summary  # no spectra
    summary.facts["power spectrum"] = (
        ", ".join(f"{name} {100 * value:.0f} %" for name, value in _pooled_deviation(scores).items())
        + ": largest deviation from the truth's, starts, lead times, u and v averaged first"
    )
    return summary


def _what_is_missing(scores: xr.Dataset) -> dict[str, str]:
    """What of the globe and of the baselines is not in the scores, in words."""
    return {name.replace("_", " "): scores.attrs[name] for name in ("scored_on", "left_out") if name in scores.attrs}


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
        for forecast in _with_members(scores) if "scored_on" not in scores.attrs else ():  # which has no spectra
            row[f"power_deviation: {forecast}"] = float(here["power_deviation"].sel(forecast=forecast))
        rows.append(row)
    return rows
