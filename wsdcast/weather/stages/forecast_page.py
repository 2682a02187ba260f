"""Write the page of a forecast whose truth is not known yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import ORIGIN, Members, addresses_of, readable_channels
from wsdcast.data.sources.opening import addresses, is_remote, open_dataset, unpacked
from wsdcast.data.steps import time_in_words
from wsdcast.data.store.forecasts import row_of, store_of
from wsdcast.data.variables import DEFAULT
from wsdcast.output.fields import open_fields
from wsdcast.output.products import in_order, require_no_wind
from wsdcast.report.coastlines import coastlines_of
from wsdcast.report.forecast_page import grid_in_words, write_forecast_page
from wsdcast.report.shown_fields import Field
from wsdcast.runs.complete import complete
from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import require_no_input
from wsdcast.runs.names import ANALYSIS, FORECAST_PAGE, GENERATOR, INITIAL_STATES, MODEL_CARD, MOMENTS
from wsdcast.runs.summary import Summary
from wsdcast.runs.times import TimeLike
from wsdcast.verification.thresholds import THRESHOLDS
from wsdcast.verification.truth import channels_of_truth, open_truth


def forecast_page(
    forecast: str | Path,
    out: str | Path | None = None,
    *,
    start: TimeLike | None = None,
    initial: str | Path | None = None,
    thresholds: Sequence[float | str] | None = None,
) -> Summary:
    """Write one HTML page of a forecast: maps of median and spread of each variable, and the ensemble at any place.

    Of the 10 m wind there are maps of probabilities too. The page needs no truth and opens offline. A page of one variable has less than
    5 MB; with several variables, maps and plumes take at most four times the room of one.

    Args:
        forecast: path or URL of a store of forecasts, in any layout that :func:`wsdcast.score_forecast` reads; or a run directory with one.
            A file ``model-card.md`` next to the store, or the trained model there that made the forecast, gives the model card.
        out: HTML file to write; default ``forecast.html`` next to the store, or in the current directory if the store is remote.
        start: initial time, UTC; default: the first of the forecast.
        initial: analyses with the initial time, any that :func:`wsdcast.prepare` reads, to show the state then. Default:
            ``initial_states.nc`` or ``analysis.zarr`` next to the store, if it has that time.
        thresholds: 10 m wind speeds of which the probability of exceeding is shown, in m s-1, or texts with a unit, as ``25kn``;
            default: where Beaufort 6, 8 and 10 begin.

    Raises:
        UserError: if the forecast or the initial analysis cannot be read or lack the initial time, the forecast has no members or its
            points are not equally spaced, a threshold is no number of 0 or more or given without 10 m wind, or ``out`` is what is read.
    """
    limits = THRESHOLDS if thresholds is None else in_order("thresholds", thresholds)
    address = store_of(forecast)
    files = addresses_of(address)
    directory = None if is_remote(files[0]) else Path(address).parent
    path = (directory or Path()) / FORECAST_PAGE if out is None else Path(out)
    if path.is_dir():
        raise UserError(f"--out {path}: is a directory")
    variables, refused = readable_channels(address)
    store = open_fields(address, variables=variables)
    if not set(DEFAULT) <= set(store.variables):
        require_no_wind(store.name, {"thresholds": thresholds})
    beside = [directory / name for name in (MODEL_CARD, INITIAL_STATES, ANALYSIS)] if directory else []
    require_no_input([path], [*files, *beside, *(addresses(str(initial)) if initial else ())])
    row = 0 if start is None else row_of(store.times, start, address)
    attributes = open_dataset(files[0]).attrs
    recipe = _recipe(attributes)
    states, grid, origin = _initial(store, row, directory, initial)
    facts = _facts(recipe, attributes, origin)
    card = "" if directory is None else _card(directory)
    lines = coastlines_of(recipe["data"]["source"] if recipe else "")
    with complete(path) as partial:
        rounding = write_forecast_page(
            partial, store, row=row, initial=states, initial_grid=grid, facts=facts, card=card, lines=lines, thresholds=limits
        )
    summary = Summary("forecast-page", written={str(path): f"maps and plumes, {path.stat().st_size / 1e6:.1f} MB"})
    summary.facts = {
        "initial time": time_in_words(store.times[row]),
        "members": store.members,
        "grid": grid_in_words(store),
        "rounding": rounding,
    }
    if refused:
        summary.facts["not read"] = "; ".join(refused.values())
    summary.facts["initial analysis"] = "none" if states is None else "shown"
    summary.facts["model card"] = "shown" if card else "none"
    return summary


def _recipe(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe in the stamp of a store; empty if the store is not one of ours."""
    with suppress(KeyError, TypeError, ValueError):
        recipe = json.loads(attributes["wsdcast"])["recipe"]
        return {key: recipe[key] for key in ("name", "data", "generator", "rollout")}
    return {}


def _facts(recipe: Mapping[str, Any], attributes: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, str]:
    """Facts about source and model for the page, from the recipe of a forecast, its attributes and those of its initial states."""
    facts = {name: str(of[name]) for of in (attributes, origin) for name in ORIGIN if name in of}
    if recipe:
        facts["source"] = str(recipe["data"].get("source"))
        facts["model"] = f"{recipe['name']}, {recipe['generator'].get('prior')} prior"
        facts["evaluations"] = f"{recipe['rollout'].get('nfe')} of the network per sample"
    if "model" in origin:  # the forecast of a model file
        facts |= {"model": str(origin["model"]), "source": str(origin.get("initial_states", ""))}
    names = {"sha256 of the model": "sha256_of_the_model", "cycle": "cycle", "climate of the initial states": "climate"}
    for name, attribute in names.items():
        if attribute in origin:
            facts[name] = str(origin[attribute])
    return {name: fact for name, fact in facts.items() if fact}


def _initial(
    store: Members, row: int, directory: Path | None, given: str | Path | None
) -> tuple[Field | None, Grid | None, dict[str, Any]]:
    """The channels of a forecast at an initial time, (channel, latitude, longitude), their grid, and the attributes of their file.

    Channels that the file does not have are NaN.

    Raises:
        UserError: if the user gave analyses that cannot be read or lack this time.
    """
    time, names = store.times[row], store.variables
    if given is not None:
        if (states := _state(str(given), time, names)) is None:
            raise UserError(f"--initial {given}: has no state at the initial time {time_in_words(time)}")
        return states
    for path in [directory / name for name in (INITIAL_STATES, ANALYSIS)] if directory else []:
        if path.exists():
            with suppress(UserError):  # what lies next to the store may be of another forecast
                if (states := _state(str(path), time, names)) is not None:
                    return states
    return None, None, {}


def _state(source: str, time: np.datetime64, names: Sequence[str]) -> tuple[Field, Grid, dict[str, Any]] | None:
    """The channels at a time, NaN if the analyses lack them, their grid, and the attributes of their first file; None without that time.

    Raises:
        UserError: if the analyses cannot be read, or have none of the channels.
    """
    with TemporaryDirectory(prefix="wsdcast-") as scratch:
        known = channels_of_truth(source, Path(scratch), names) or tuple(names)
        analyses = open_truth(source, Path(scratch), time, known)
        if time not in analyses.times:
            return None
        state = dict(zip(known, analyses.at(np.array([time]))[0], strict=True))
        unknown = np.full(analyses.grid.shape, np.nan, np.float32)
        with open_dataset(unpacked(addresses(source)[0], Path(scratch))[0]) as dataset:
            return np.stack([state.get(name, unknown) for name in names]), analyses.grid, dict(dataset.attrs)


def _card(directory: Path) -> str:
    """The model card next to a forecast, or that of the trained model that made it; empty if there is neither."""
    if (directory / MODEL_CARD).is_file():
        return (directory / MODEL_CARD).read_text(encoding="utf-8", errors="replace")
    if any((directory / name).is_dir() for name in (MOMENTS, GENERATOR)):
        from wsdcast.weather.stages.export import model_card  # imports torch, which takes seconds

        with suppress(UserError):  # a model that has changed since did not make the forecast
            return model_card(directory)
    return ""
