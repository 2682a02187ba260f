"""Write a trained model to one file that can be shared."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.steps import time_text
from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.data.variables import channel_units_in_words, decimals_of, words
from wsdcast.data.winds import name_in_words, units_of
from wsdcast.runs import devices
from wsdcast.runs.artefact import is_current, require, resolve
from wsdcast.runs.complete import complete
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, FINE_TUNED, FORECAST, GENERATOR, SCORES
from wsdcast.runs.summary import Summary
from wsdcast.verification.metrics import GLOBE, headline_of
from wsdcast.weather.forecast.past_errors import past_errors, require_errors
from wsdcast.weather.model_file import write_model
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import few_numbers_of, require_rollout
from wsdcast.weather.trained import trained

SCORED_LEADS = (6, 24, 72, 120, 240)
"""Lead times in hours whose scores are on the model card, if they were scored."""
SAMPLING = ("nfe", "solver", "grid_in_time", "log_snr_ends", "momentum", "warmth")
"""Keys of the section rollout on which a sample depends, apart from its noise."""


@devices.own_torch_settings()
def export_model(run: str | Path, out: str | Path, *, overwrite: bool = False) -> Summary:
    """Write the trained model of a run directory to one file, with weights, recipe, normalisation, static fields and a model card.

    The model card has the CRPS of ``RUN/scores.nc`` if that was made with this model. By default the model forecasts with the
    evaluations, solver, flow times and warmth of the forecast in ``run``; without one, with those of its recipe. If that forecast was made
    without a generator (``generator.objective: none``), the model has none.

    Args:
        run: run directory with a trained model.
        out: the file to write; its suffix is ``.wsd``.
        overwrite: replace a file that is there already.

    Raises:
        UserError: if the run has no trained model, the moments of its prior are not in the run directory (``given`` and ``climatology``),
            ``out`` is there already and ``overwrite`` is False, or there is no forecast and the networks cannot make the recipe's rollout.
    """
    resolved, directory = resolve(None, run, Recipe, FINE_TUNED)
    path = Path(out)
    if path.suffix != ".wsd":
        raise UserError(f"{path}: the name of a model file ends in .wsd")
    if path.is_dir():
        raise UserError(f"{path}: is a directory")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; choose another name, or replace it with --overwrite")
    if resolved.generator.prior in ("given", "climatology"):
        raise UserError(f"a model with the prior {resolved.generator.prior} has moments that are no trained network, so it cannot travel")
    forecast = _forecast(directory)
    if forecast is not None and forecast.generator.objective == "none":
        resolved = forecast  # without the generator, which the run may have
    record, facts = _described(resolved, directory)
    if forecast is not None:
        resolved = resolved.changed(**{f"rollout__{key}": getattr(forecast.rollout, key) for key in SAMPLING})
    try:
        require_rollout(resolved)
    except UserError as error:
        advice = "run `wsdcast rollout` with others first, such as --nfe, and the model keeps them"
        raise UserError(f"{run}: its networks cannot forecast with the settings of its recipe ({error}); {advice}") from None
    scores, errors = _scores(directory, forecast), None
    if resolved.generator.objective == "none":
        require_errors(record)
        of_networks = replace(record, past_states=resolved.forcings.past_states)
        errors = past_errors(trained(resolved, directory, of_networks), of_networks)
    with complete(path) as partial:
        digest = write_model(partial, resolved, record, directory, facts, _card(resolved, record, facts, scores), errors)
    summary = Summary("export-model", written={str(path): f"{path.stat().st_size / 1e3:.0f} kB"})
    summary.facts = {"model": resolved.name, "data": resolved.data.source, "trained on": " to ".join(facts["trained_on"])}
    summary.facts |= {"scores": scores or _why_no_scores(directory), "sha256": digest}
    return summary


def model_card(run: str | Path) -> str:
    """The model card of the trained model of a run directory that made the forecast there, in Markdown.

    Raises:
        UserError: if the run has no trained model, or its forecast was made with another one.
    """
    resolved, directory = resolve(None, run, Recipe, FORECAST)
    require(resolved, directory, FORECAST)
    record, facts = _described(resolved, directory)
    return _card(resolved, record, facts, _scores(directory, resolved))


def _described(resolved: Recipe, directory: Path) -> tuple[Analysis, dict[str, Any]]:
    """The record that a model was trained on, without its states in memory, and facts about both.

    Raises:
        UserError: if the record or a trained network is missing or was made from another recipe.
    """
    record = open_analysis(require(resolved, directory, ANALYSIS), whole=False)
    for artefact in resolved.networks:
        require(resolved, directory, artefact)
    train = record.times[record.part("train")]
    facts: dict[str, Any] = {
        "wsdcast": version("wsdcast"),
        "data": resolved.data.source,
        "grid": record.grid.name,
        "trained_on": [time_text(moment) for moment in (train[0], train[-1])],
        "steps_of_training": int(train.size),
    }
    return record, facts


def _forecast(directory: Path) -> Recipe | None:
    """The recipe of the forecast of the trained model, whose section ``rollout`` may be another than in training; None without one."""
    recipe, _ = resolve(None, directory, Recipe, FORECAST)
    return recipe if is_current(recipe, directory, FORECAST, True) else None


def _scores(directory: Path, forecast: Recipe | None) -> str:
    """The fair CRPS of a forecast by lead time and how many members have it, in words; empty if it was not scored."""
    if forecast is None or not is_current(forecast, directory, SCORES, True):
        return ""
    with xr.open_dataset(directory / SCORES, decode_timedelta=True) as scores:
        headline = headline_of(scores)
        crps = scores["crps_fair"].sel(variable=headline, region=GLOBE).isel(forecast=0)
        leads = crps["prediction_timedelta"].values // np.timedelta64(1, "h")
        values = ", ".join(f"{crps.values[leads == lead][0]:.3f} at {lead} h" for lead in SCORED_LEADS if lead in leads)
        what = "m/s, u and v" if headline == "both" else f"{name_in_words(headline)} in {units_of(headline)}"
        return f"{values} ({what}, {forecast.rollout.members} members)"


def _samples(recipe: Recipe) -> str:
    """How the model makes samples by default, in words."""
    settings = recipe.rollout
    if recipe.generator.objective == "none":
        return "the moments network with noise from its past errors, no generator"
    count = f"{settings.nfe} network evaluation{'s' * (settings.nfe > 1)} per sample"
    if settings.nfe in few_numbers_of(recipe):
        return f"{count}, with the network trained for this number"
    warmth = f", warmth {settings.warmth:g}" * (settings.warmth != 1)
    return f"{count}, solver {settings.solver}, {settings.grid_in_time} times{warmth}"


def _why_no_scores(directory: Path) -> str:
    """Why the card has no scores, in words."""
    if (directory / SCORES).exists():
        return f"none; {directory / SCORES} is of another forecast or model"
    return "none; run `wsdcast score` first"


def _card(recipe: Recipe, record: Analysis, facts: dict[str, Any], scores: str) -> str:
    """The model card, in Markdown."""
    generator, moments = recipe.generator, recipe.moments
    channels = (*record.variables, *record.forcing_variables)
    climate = []
    for name, mean, std in zip(channels, record.mean, record.std, strict=True):
        digits = f".{decimals_of(std, 3)}f"
        climate.append(f"{words(name)} {mean:{digits}} and {std:{digits}} {channel_units_in_words(name)}")
    past = [f"{6 * steps} h before" for steps in range(1, 1 + recipe.forcings.past_states)]
    widths = [str(list(moments.widths)), *([str(list(generator.widths))] if GENERATOR in recipe.networks else [])]
    needed = [f"the state {' and '.join(['now', *past])}", *record.forcing_variables, *recipe.forcings.static]
    lines = {
        "Forecasts": f"{', '.join(record.variables)} on {record.grid.name} (longitudes x latitudes), steps of 6 h",
        "Method": f"objective {generator.objective}, prior {generator.prior}, path {generator.path}; moments {generator.moments}",
        "Networks": f"U-Nets with {' and '.join(widths)} channels by level",
        "Needs": ", ".join(needed),
        "Trained on": f"{facts['data']}, {' to '.join(facts['trained_on'])}, {facts['steps_of_training']} states",
        "Climate": f"mean and standard deviation over the training split: {', '.join(climate)}",
        "By default": _samples(recipe),
        "Fair CRPS": f"{scores}, on the test split of its own record, sampled as above" if scores else "not scored",
        "Written by": f"wsdcast {facts['wsdcast']}",
    }
    warning = "Analyses of another system than the one it was trained on have another climate. Scores above do not hold for them."
    return "\n".join([f"# {recipe.name}", "", *(f"- {name}: {text}" for name, text in lines.items()), "", warning, ""])
