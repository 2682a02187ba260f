"""Stage 4: score the forecasts of a run and baselines, or compare the scores of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.zarr_store import channels_of, open_store
from wsdcast.data.variables import SPEED
from wsdcast.data.winds import winds_of
from wsdcast.runs.artefact import is_current, make_stamp, require, resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import require_no_directories
from wsdcast.runs.names import ANALYSIS, FORECAST, MOMENTS_ALONE, PAST_ERRORS, PAST_ERRORS_FORECAST, REPORT, SCORES, SCORES_TABLE
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.summary import Summary
from wsdcast.runs.yaml_text import as_yaml
from wsdcast.verification.bootstrap import blocks_in_words
from wsdcast.verification.comparison import common_headline, compare
from wsdcast.verification.gaussian import gaussian_scores
from wsdcast.verification.intervals import BY_START, scores_of
from wsdcast.verification.memory import require_memory_to_score
from wsdcast.verification.metrics import ABOUT, headline_of, variables_of
from wsdcast.verification.scoring import Sources, opened, statistics_by_start
from wsdcast.verification.streamed import is_scored, lacks_truth, read_scored
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.solver_choice import without_auto
from wsdcast.weather.stages.score_output import (
    read_scores,
    set_headline,
    summary_of,
    variable_shown,
    write_scores,
    write_table_and_report,
)

OURS = "wsdcast"


def score(
    recipe: str | Path | Recipe | Overridden | None = None,
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
    require_no_directories(directory / SCORES_TABLE, directory / REPORT)
    analysis = require(resolved, directory, ANALYSIS)
    forecasts = {OURS: require(resolved, directory, FORECAST)}
    if resolved.rollout.keep == "statistics":
        raise UserError(f"{forecasts[OURS]}: has only statistics over members (rollout.keep); scores need the members")
    prepared = open_analysis(analysis, whole=False)
    past_until, recorded = prepared.validation_from, prepared.times
    extent = f"{recorded.size} states to {recorded[-1].astype('datetime64[h]')}"  # it may have become longer since
    without_moments = ""
    has_generator = resolved.generator.objective != "none"
    if resolved.generator.has_moments_model and has_generator:
        without_moments = _why_not_scored(directory / PAST_ERRORS_FORECAST, recorded, forecast=forecasts[OURS])
        if not without_moments:
            forecasts[PAST_ERRORS] = require(resolved, directory, PAST_ERRORS_FORECAST)
    scores = _stored(directory / SCORES, extent, PAST_ERRORS in forecasts) if is_current(resolved, directory, SCORES, overwrite) else None
    streamed = {name: read_scored(path) for name, path in forecasts.items() if is_scored(path)}
    with open_store(forecasts[OURS]) as store:
        times, leads = (store[name].values for name in ("time", "prediction_timedelta"))
        kept = variables_of(streamed[OURS]) if OURS in streamed else channels_in(store)
        variables = tuple(name for name in channels_of(analysis).state if name in kept)
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        named = tuple((name, str(path)) for name, path in forecasts.items() if name not in streamed)
        sources = Sources(named, str(analysis), past_until, scratch, variables=variables)
        truth = opened(sources).truth
        require_memory_to_score(sources, times, leads, len(streamed), resolved.rollout.members, workers)
        before = None if scores is None else headline_of(scores)
        if scores is None:
            scores = scores_of(statistics_by_start(sources, times, leads, streamed, scheduler, workers))
            if (gaussian := gaussian_scores(forecasts.get(PAST_ERRORS), truth, scores)) is not None:
                scores["crps_gaussian"] = gaussian
            stamp = json.dumps(make_stamp(resolved, directory, SCORES))
            scores.attrs |= {"grid": truth.grid.name, "members": resolved.rollout.members, "record": extent, "wsdcast": stamp}
        set_headline(scores, resolved.score.headline)
        if headline_of(scores) != before:
            write_scores(directory, scores)
        nfe = resolved.rollout.nfe
        sampled = f"{resolved.generator.prior} prior, {nfe} network evaluation{'s' * (nfe > 1)} per sample"
        facts = {
            "recipe": resolved.name,
            "hash": resolved.digest(),
            "model": sampled if has_generator else f"{PAST_ERRORS}: no generator",
            "data": resolved.data.source,
        }
        text = as_yaml(resolved.dump())
        write_table_and_report(directory, scores, sources, resolved.name, facts, text, resolved.data.source != "planet")
    summary = summary_of(directory, scores)
    summary.facts["evaluations"] = f"{resolved.rollout.nfe * has_generator} of the generator per sample"
    if OURS in streamed and lacks_truth(forecasts[OURS], recorded):
        summary.facts["truth added since the rollout"] = "not used (rollout.keep is scores); the same `wsdcast rollout --overwrite` does"
    if without_moments:
        summary.facts[PAST_ERRORS] = without_moments
    return summary


def _stored(path: Path, extent: str, with_moments: bool) -> xr.Dataset | None:
    """The scores of a file, if they are of this record and complete; else None.

    An older version stored fewer variables and had another baseline, and the moments with past errors may have come or gone since.
    """
    scores = read_scores(path)
    winds = winds_of(variables_of(scores))
    needed = {"pairs", *(ABOUT if any(wind.speed == SPEED for wind in winds) else ["crps_fair"])}
    needed |= {"wind"} if len(winds) > 1 else set()
    names = scores["forecast"].values
    is_complete = needed <= set(scores.variables) and MOMENTS_ALONE not in names and (PAST_ERRORS in names) == with_moments
    return scores if is_complete and scores.attrs.get("record") == extent else None


def score_pair(first: str | Path, second: str | Path) -> Summary:
    """Compare the scores of two forecasts of the same initial times, each given by its run directory or its ``scores.nc``.

    Returns:
        A summary whose scores are the rows of :func:`wsdcast.verification.comparison.compare`.

    Raises:
        UserError: if one has no scores, they have no initial times in common, or they were scored against different truth.
    """
    pair: list[xr.Dataset] = []
    for given in map(Path, (first, second)):
        path = given / SCORES if given.is_dir() else given
        if not path.is_file():
            raise UserError(f"{path} is not there; run `wsdcast score` for it first")
        scores = read_scores(path)
        names = {str(name): str(name).removesuffix(BY_START) for name in scores if str(name).endswith(BY_START)}
        if not names:
            raise UserError(f"{path}: has no statistics by start; it is of an older version, score again")
        pair.append(scores[list(names)].rename(names))
    summary = Summary("compare", scores=compare(pair[0], pair[1]))
    times = np.intersect1d(pair[0]["time"].values, pair[1]["time"].values)
    summary.facts = {
        "first": f"{first}: {pair[0]['forecast'].values[0]}",
        "second": f"{second}: {pair[1]['forecast'].values[0]}",
        "initial times in common": times.size,
        **variable_shown(common_headline(*pair), *pair),
        "difference": "first - second, with 95 % of block bootstrap samples of the initial times; below 0 the first is better",
        "intervals": blocks_in_words(times, np.timedelta64(max(row["lead_hours"] for row in summary.scores), "h")),
    }
    sizes = [int(scores.attrs["members"]) for scores in pair]
    if sizes[0] != sizes[1]:
        advice = "fewer make RMSE, standard CRPS, Brier and variogram score larger, not fair CRPS and energy score"
        summary.facts["members"] = f"{sizes[0]} and {sizes[1]}: {advice}"
    return summary


def _why_not_scored(moments: Path, recorded: NDArray[np.datetime64], forecast: Path) -> str:
    """In words why the ensembles of the moments with past errors cannot be scored; empty if they can.

    ``recorded`` are the times of the record. Statistics of ``forecast``, which is scored with them, are from the same rollout and lack the
    same truth.
    """
    if not moments.exists():
        return f"not scored: {moments} is not there; `wsdcast rollout` writes it where the record has truth and a validation split"
    if is_scored(moments) and not is_scored(forecast) and lacks_truth(moments, recorded):
        again = f"remove {moments}, and the same `wsdcast rollout` as before makes it again"
        return f"not scored: the record has more truth now than at the rollout; {again}"
    return ""
