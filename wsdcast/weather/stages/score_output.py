"""What the commands that score write and print: scores, their table, the report and the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.steps import time_in_words
from wsdcast.data.variables import DEFAULT
from wsdcast.data.winds import name_in_words, units_of
from wsdcast.report.figures import at_scored_leads
from wsdcast.report.page import write_report
from wsdcast.runs.complete import complete, complete_netcdf
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.names import PAST_ERRORS, REPORT, SCORES, SCORES_TABLE
from wsdcast.runs.summary import Summary
from wsdcast.verification.baselines import CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY, WINDOW
from wsdcast.verification.bootstrap import blocks_in_words, longest_lead
from wsdcast.verification.coordinates import write_netcdf
from wsdcast.verification.intervals import BY_START, as_table
from wsdcast.verification.metrics import GLOBE, headline_of, spectral, variables_of
from wsdcast.verification.scoring import Sources, fields_of, opened


def write_table_and_report(
    directory: Path, scores: xr.Dataset, sources: Sources, name: str, facts: dict[str, str], recipe: str, on_earth: bool
) -> None:
    """Write the table for spreadsheets and the report page."""
    with complete(directory / SCORES_TABLE) as partial:
        as_table(scores).to_csv(partial, index=False, float_format="%.6g")
    first, last = (time_in_words(scores["time"].values[end]) for end in (0, -1))
    facts |= {
        "grid": scores.attrs["grid"],
        "initial times": first if scores.sizes["time"] == 1 else f"{scores.sizes['time']}, {first} to {last}",
        "members": str(scores.attrs["members"]),
        "intervals": _blocks_of(scores),
    }
    facts |= _scored_and_left_out(scores)
    fields, grid = fields_of(sources), opened(sources).truth.grid
    with complete(directory / REPORT) as partial:
        title = f"Ensemble forecast{' of 10 m wind' if variables_of(scores) == list(DEFAULT) else ''}: {name}"
        write_report(partial, scores, grid, fields, title, facts, recipe, on_earth=on_earth, inside=sources.inside(grid))


def read_scores(path: Path) -> xr.Dataset:
    """The content of a file of scores, in memory.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with xr.open_dataset(path, decode_timedelta=True) as scores:
            return scores.load()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as scores ({first_line(error)})") from None


def set_headline(scores: xr.Dataset, headline: str | None) -> None:
    """Store the headline of a recipe in the attributes of scores. None, the default, is not stored.

    Raises:
        UserError: if that variable was not scored.
    """
    scores.attrs.pop("headline", None)
    if headline is not None:
        names = list(map(str, scores["variable"].values))
        if headline not in names:
            raise UserError(f"score.headline: {headline} was not scored, only {', '.join(names)}")
        scores.attrs["headline"] = headline


def write_scores(directory: Path, scores: xr.Dataset) -> None:
    """Write ``scores.nc``.

    Raises:
        OSError: if it cannot be written.
    """
    with complete_netcdf(directory / SCORES) as partial:
        write_netcdf(scores, partial)


def summary_of(directory: Path, scores: xr.Dataset) -> Summary:
    """Return the summary of scores: what was written, the table for the terminal, and what was left out."""
    summary = Summary("score", scores=table(scores))
    summary.written = {
        str(directory / SCORES): "statistics by initial time, metrics with intervals, by lead, variable and region",
        str(directory / SCORES_TABLE): "the metrics, for spreadsheets",
    }
    summary.written[str(directory / REPORT)] = "curves, spectra, histograms and maps"
    times = scores["time"].values
    count = times.size if times.size > 1 else time_in_words(times[0])
    summary.facts = {"grid": scores.attrs["grid"], "initial times": count, "members": scores.attrs["members"]}
    headline = headline_of(scores)
    summary.facts |= variable_shown(headline, scores)
    number = f"{scores.attrs['climatology_members']} " if "climatology_members" in scores.attrs else ""  # older scores do not say it
    for name, states in (
        (CLIMATOLOGY, "past states as members, the same for all initial times: too few states are of the same days of other years"),
        (PROBABILISTIC_CLIMATOLOGY, f"states of the same days of other years as members, within {WINDOW} days"),
    ):
        if name in scores["forecast"]:
            summary.facts["climatology"] = f"{number}{states}"
    summary.facts["intervals"] = _blocks_of(scores)
    summary.facts |= _scored_and_left_out(scores)
    if "scored_on" in scores.attrs:
        return summary  # a part of the globe has no spectra
    summary.facts["power spectrum"] = (
        "; ".join(f"{name} {100 * value:.0f} %" for name, value in _pooled_deviation(scores).items())
        + f": largest deviation from the truth's, initial times, lead times{', u and v' * ('both' in headline)} averaged first"
    )
    return summary


def variable_shown(headline: str, *scores: xr.Dataset) -> dict[str, str]:
    """In words: the variable of the table. Nothing if it is the 10 m wind and nothing else was scored."""
    if headline == "both" and all(variables_of(each) == list(DEFAULT) for each in scores):
        return {}
    return {"scores below": f"{name_in_words(headline)}, {units_of(headline)}"}


def _blocks_of(scores: xr.Dataset) -> str:
    """In words: from how many blocks of initial times the intervals are."""
    return blocks_in_words(scores["time"].values, longest_lead(scores["pairs"]))


def _scored_and_left_out(scores: xr.Dataset) -> dict[str, str]:
    """In words, each if any: what was dropped, the part of the globe, what baselines lack, the regridding of the truth, missing members."""
    pairs, whole = int(scores["pairs"].sum()), scores.sizes["time"] * scores.sizes["prediction_timedelta"]
    reasons = "no truth, fewer than two members left, or no baseline"
    facts = {"dropped": f"{whole - pairs} of {whole} initial and lead times: {reasons}"} if pairs < whole else {}
    names = ("scored_on", "left_out", "truth_regridded")
    facts |= {name.replace("_", " "): scores.attrs[name] for name in names if name in scores.attrs}
    of_members = scores.sel(region=GLOBE, forecast=_with_members(scores))
    has_ranks, has_scores = (
        of_members[f"{name}{BY_START}"].notnull().any(axes)
        for name, axes in (("rank_histogram", ["variable", "rank"]), ("crps_fair", "variable"))
    )
    if missing := int((has_scores & ~has_ranks).any("forecast").sum()):
        facts["missing members"] = f"at {missing} of {pairs} initial and lead times, which have no rank histogram"
    return facts


def _pooled_deviation(scores: xr.Dataset) -> dict[str, float]:
    """Largest deviation of the power spectrum, averaged over initial times and lead times first, by forecast of :func:`_with_members`.

    A deviation at a single lead time uses only as many dates as there are initial times. With a dozen of them the truth's power at one
    wavenumber is known to 10 % only.
    """
    names = {f"{name}{BY_START}": name for name in ("power", "power_truth")}
    mean = scores[list(names)].rename(names).sel(variable=headline_of(scores)).mean(["time", "prediction_timedelta"])
    largest = spectral(mean)["power_deviation"]
    return {name: float(largest.sel(forecast=name)) for name in _with_members(scores)}


def _with_members(scores: xr.Dataset) -> list[str]:
    """Names of the forecasts whose fields are meant to look like weather: the first, which the report is about, and past errors."""
    names = [str(name) for name in scores["forecast"].values]
    return [name for name in names if name in (names[0], PAST_ERRORS)]


def table(scores: xr.Dataset) -> list[dict[str, Any]]:
    """Rows for the terminal: one per lead time with scores, of the headline (:func:`wsdcast.verification.metrics.headline_of`)."""
    both = at_scored_leads(scores).sel(variable=headline_of(scores), region=GLOBE)
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
