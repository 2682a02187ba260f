"""Stage 4: score forecasts and baselines, and write the report."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
import yaml
from numpy.typing import NDArray

from wsdcast.data.sources.blocks import label
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.sources.open_data import fetch, newest
from wsdcast.data.sources.open_data_layouts import SYSTEMS
from wsdcast.data.store.zarr_store import open_store
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
from wsdcast.verification.gaussian import gaussian_scores
from wsdcast.verification.intervals import BY_START, as_table, scores_of
from wsdcast.verification.memory import needs
from wsdcast.verification.metrics import ABOUT, BOTH, GLOBE, spectral
from wsdcast.verification.scoring import Sources, fields_of, opened, statistics_by_start
from wsdcast.verification.streamed import is_scored, lacks_truth, read_scored
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
    """Score the forecasts of a run, and write ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    Args:
        recipe: path or name of a recipe; default: the one of the forecast.
        run: run directory; default ``runs/<recipe name>``.
        scheduler: address of a running dask.distributed scheduler, which then does the work, one initial time per task.
        workers: number of processes of this machine that do the work; default: this process alone.
        overwrite: replace scores of another recipe.

    Raises:
        UserError: if there is no forecast, it does not match the prepared record, or memory cannot hold what is scored at the same time.
    """
    resolved, directory = resolve(recipe, run, Recipe, FORECAST)
    resolved = without_auto(resolved, directory)
    analysis = require(resolved, directory, ANALYSIS, "prepare")
    forecasts = {OURS: require(resolved, directory, FORECAST, "rollout")}
    if resolved.rollout.keep == "statistics":
        raise UserError(f"{forecasts[OURS]}: has only statistics over members (rollout.keep); scores need the members")
    with open_store(analysis) as store:
        past_until, recorded = np.datetime64(store.attrs["validation_from"], "ns"), store["time"].values
    without_moments = ""
    if resolved.generator.has_moments_model:
        without_moments = _why_not_scored(directory / MOMENTS_FORECAST, recorded, forecast=forecasts[OURS])
        if not without_moments:
            forecasts[MOMENTS_ALONE] = require(resolved, directory, MOMENTS_FORECAST, "rollout")
    scores = None
    if is_current(resolved, directory, SCORES, overwrite):
        with xr.open_dataset(directory / SCORES, decode_timedelta=True) as dataset:
            # An older version stored fewer variables, and the moments alone may have come or gone since.
            same = {*ABOUT, "pairs"} <= set(dataset) and (MOMENTS_ALONE in dataset["forecast"]) == (MOMENTS_ALONE in forecasts)
            scores = dataset.load() if same else None
    streamed = {name: read_scored(path) for name, path in forecasts.items() if is_scored(path)}
    with open_store(forecasts[OURS]) as store:
        times, leads = (store[name].values for name in ("time", "prediction_timedelta"))
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        named = tuple((name, str(path)) for name, path in forecasts.items() if name not in streamed)
        sources = Sources(named, str(analysis), past_until, scratch)
        grid = opened(sources)[1].grid
        _require_memory(sources, times, leads, len(streamed), resolved.rollout.members, workers)
        if scores is None:
            scores = scores_of(statistics_by_start(sources, times, leads, streamed, scheduler, workers))
            if (gaussian := gaussian_scores(forecasts.get(MOMENTS_ALONE), opened(sources)[1], scores)) is not None:
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
    if without_moments:
        summary.facts[MOMENTS_ALONE] = without_moments
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
    """Score a forecast of any origin, and write ``RUN/scores.nc``, ``RUN/scores.csv`` and ``RUN/report.html``.

    Args:
        forecast: path or URL of a store of forecasts, in the layout of WeatherBench 2 or a similar one; or a run directory with one.
        truth: path, glob or URL of analyses, or the name of a public store, on the same grid or on a finer one. Of ``gfs`` and ``ifs`` the
            analyses at the valid times are fetched.
        run: directory for the scores; default ``runs/<name of the store>``, or the run directory of the forecast.
        scheduler, workers: as for :func:`score`.
        overwrite: replace scores of another forecast.

    Raises:
        UserError: if the forecast or the truth cannot be read, they are on different grids or do not fit together, or memory cannot hold
            what is scored at the same time.
    """
    if (Path(forecast) / FORECAST).is_dir():
        run, forecast = run or forecast, str(Path(forecast) / FORECAST)
    name = forecast.rstrip("/").split("/")[-1].removesuffix(".zarr").removesuffix(".nc")
    directory = Path(run) if run is not None else Path("runs") / name
    if (directory / SCORES).exists() and not overwrite:
        with xr.open_dataset(directory / SCORES) as stored:
            if (stored.attrs.get("forecast"), stored.attrs.get("truth")) != (forecast, truth):
                raise UserError(f"{directory / SCORES} is of another forecast; choose another --run, or replace it with --overwrite")
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        files = _fetched(truth, forecast, Path(scratch)) if truth in SYSTEMS else truth
        sources = Sources(((name, forecast),), files, np.datetime64("1678-01-01"), scratch)
        fields = opened(sources)[0][name]
        _require_memory(sources, fields.times, fields.leads, 0, fields.members, workers)
        inside = require_aligned(fields, opened(sources)[1], truth)
        domain = b"" if inside is None else np.packbits(inside).tobytes()
        sources = Sources(((name, forecast),), files, fields.times.min(), scratch, domain)
        scores = scores_of(statistics_by_start(sources, fields.times, fields.leads, {}, scheduler, workers))
        scores.attrs |= {"grid": fields.grid.name, "members": fields.members, "forecast": forecast, "truth": truth}
        if (finer := opened(sources)[1].regridded_from) is not None:
            scores.attrs["truth_regridded"] = f"conservatively, from {finer.name} to {fields.grid.name}"
        if inside is not None:
            scores.attrs["share_of_globe"], scores.attrs["scored_on"] = in_words(fields.grid, inside)
        _write(directory, scores)
        _report(directory, scores, sources, name, {"forecast": forecast, "truth": truth}, "", on_earth=True)
    return _summary(directory, scores)


def _fetched(system: str, forecast: str, scratch: Path) -> str:
    """Fetch the analyses at the initial and valid times of a forecast that exist already. Returns a directory that has their files.

    Raises:
        UserError: if there is none yet, or they cannot be fetched.
    """
    stored = open_forecast(forecast)
    valid = np.unique(np.concatenate([stored.times, (stored.times[:, None] + stored.leads).ravel()]))
    valid, last = valid[valid == valid.astype("datetime64[6h]")], newest(system).time
    if not (valid[valid > stored.times[0]] <= last).any():
        raise UserError(f"--truth {system}: its newest analysis is of {label(last)}, before the first valid time of {forecast}")
    directory = scratch / system
    directory.mkdir()
    for path in fetch(system, valid[valid <= last]):
        (directory / path.name).symlink_to(path)
    return str(directory)


def score_pair(first: str | Path, second: str | Path) -> Summary:
    """Compare the scores of two forecasts of the same dates, each given by its run directory or its ``scores.nc``.

    Returns:
        A summary whose scores are the rows of :func:`wsdcast.verification.comparison.compare`.

    Raises:
        UserError: if one has no scores, they have no dates in common, or they were scored against different truth.
    """
    pair: list[xr.Dataset] = []
    for given in map(Path, (first, second)):
        path = given / SCORES if given.is_dir() else given
        if not path.is_file():
            raise UserError(f"{path} is not there; run `wsdcast score` for it first")
        try:
            with xr.open_dataset(path, decode_timedelta=True) as dataset:
                names = {str(name): str(name).removesuffix(BY_START) for name in dataset if str(name).endswith(BY_START)}
                pair.append(dataset[list(names)].rename(names).load())
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as scores ({error})") from None
        if not names:
            raise UserError(f"{path}: has no statistics by start; it is of an older version, score again")
    summary = Summary("compare", scores=compare(pair[0], pair[1]))
    summary.facts = {
        "first": f"{first}: {pair[0]['forecast'].values[0]}",
        "second": f"{second}: {pair[1]['forecast'].values[0]}",
        "starts in common": int(np.intersect1d(pair[0]["time"].values, pair[1]["time"].values).size),
        "difference": "first - second, with 95 % of block bootstrap samples of the starts; below 0 the first is better",
    }
    return summary


def _require_memory(sources: Sources, *sizes: Any) -> None:
    """Check before anything is read that the scores and the report fit in memory. The arguments are those of :func:`needs`.

    Raises:
        UserError: if they do not fit; the message says which task needs how much memory.
    """
    for needed, task in needs(sources, *sizes):
        require_memory(needed, task)


def _why_not_scored(moments: Path, recorded: NDArray[np.datetime64], forecast: Path) -> str:
    """In words why the ensembles of the moments model alone cannot be scored; empty if they can.

    Args:
        moments: their store.
        recorded: times of the record.
        forecast: store of the forecast that is scored with them. Statistics of both are from the same rollout and lack the same truth.
    """
    if not moments.exists():
        return f"not scored: {moments} is not there; `wsdcast rollout` writes it where the record has truth"
    if is_scored(moments) and not is_scored(forecast) and lacks_truth(moments, recorded):
        return f"not scored: the record has more truth now than at the rollout; remove {moments}, and `wsdcast rollout` makes it again"
    return ""


def _report(directory: Path, scores: xr.Dataset, sources: Sources, name: str, facts: dict[str, str], recipe: str, on_earth: bool) -> None:
    """Write the table for spreadsheets and the report page."""
    with complete(directory / SCORES_TABLE) as partial:
        as_table(scores).to_csv(partial, index=False, float_format="%.6g")
    starts = [time_in_words(scores["time"].values[end]) for end in (0, -1)]
    facts |= {
        "grid": scores.attrs["grid"],
        "starts": f"{scores.sizes['time']}, {starts[0]} to {starts[1]}",
        "members": str(scores.attrs["members"]),
    }
    facts |= _scored_and_left_out(scores)
    fields, grid = fields_of(sources), opened(sources)[1].grid
    with complete(directory / REPORT) as partial:
        write_report(partial, scores, grid, fields, f"Ensemble forecast of 10 m wind: {name}", facts, recipe, on_earth=on_earth)


def _write(directory: Path, scores: xr.Dataset) -> None:
    with complete(directory / SCORES) as partial:
        try:
            scores.to_netcdf(partial)
        except RuntimeError as error:  # the NetCDF library raises this for any failure of the disk
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
    summary.facts |= _scored_and_left_out(scores)
    if "scored_on" in scores.attrs:
        return summary  # a part of the globe has no spectra
    summary.facts["power spectrum"] = (
        ", ".join(f"{name} {100 * value:.0f} %" for name, value in _pooled_deviation(scores).items())
        + ": largest deviation from the truth's, starts, lead times, u and v averaged first"
    )
    return summary


def _scored_and_left_out(scores: xr.Dataset) -> dict[str, str]:
    """In words: the part of the globe that was scored, if not all of it, what was left out, and how the truth was regridded, if it was."""
    names = ("scored_on", "left_out", "truth_regridded")
    return {name.replace("_", " "): scores.attrs[name] for name in names if name in scores.attrs}


def _pooled_deviation(scores: xr.Dataset) -> dict[str, float]:
    """Largest deviation of the power spectrum, averaged over initial times and lead times first, by forecast of :func:`_with_members`.

    A deviation at a single lead time uses only as many dates as there are initial times. With a dozen of them the truth's power at one
    wavenumber is known to 10 % only.
    """
    names = {f"{name}{BY_START}": name for name in ("power", "power_truth")}
    mean = scores[list(names)].rename(names).sel(variable=BOTH).mean(["time", "prediction_timedelta"])
    largest = spectral(mean)["power_deviation"]
    return {name: float(largest.sel(forecast=name)) for name in _with_members(scores)}


def _with_members(scores: xr.Dataset) -> list[str]:
    """Names of the forecasts whose fields are meant to look like wind: the first, which the report is about, and the moments alone."""
    names = [str(name) for name in scores["forecast"].values]
    return [name for name in names if name in (names[0], MOMENTS_ALONE)]


def table(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for the terminal: one per lead time, both wind components together."""
    both = scores.sel(variable=BOTH, region=GLOBE)
    first = both["forecast"].values[0]
    rows = []
    for lead in both["prediction_timedelta"].values:
        at_lead = both.sel(prediction_timedelta=lead)
        row: dict[str, Any] = {"lead_hours": int(lead / np.timedelta64(1, "h"))}
        for forecast in at_lead["forecast"].values:
            row[f"crps_fair: {forecast}"] = float(at_lead["crps_fair"].sel(forecast=forecast))
        ours = at_lead.sel(forecast=first)
        row |= {"crps_standard": float(ours["crps_standard"]), "rmse": float(ours["rmse"]), "spread_skill": float(ours["spread_skill"])}
        for forecast in _with_members(scores) if "scored_on" not in scores.attrs else ():  # a part of the globe has no spectra
            row[f"power_deviation: {forecast}"] = float(at_lead["power_deviation"].sel(forecast=forecast))
        rows.append(row)
    return rows
