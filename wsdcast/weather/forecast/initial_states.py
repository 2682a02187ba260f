"""Initial states from any source: the state now and the states before it, brought to the grid of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from wsdcast.data.sources.blocks import BadValuesError
from wsdcast.data.sources.open_data import fetch, newest
from wsdcast.data.sources.open_data_layouts import ATTRIBUTION, SYSTEMS
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record
from wsdcast.data.steps import time_text
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.packings import beyond_packing
from wsdcast.data.store.shards import regridded
from wsdcast.data.store.states import PackedStates
from wsdcast.data.variables import attributes as attributes_of
from wsdcast.data.variables import decimals_of, short_name, units_in_words, variable
from wsdcast.report.display_units import display_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.times import times_between
from wsdcast.weather.forecast.initial_times import LATEST, initial_times, with_past
from wsdcast.weather.recipe import Recipe

NAMED = 3
"""Number of channels whose climate is named at most."""


def initial_states(record: Analysis, recipe: Recipe, source: str, scratch: Path) -> tuple[Analysis, dict[str, str]]:
    """Read the states at the initial times and before them, as many as the model needs, as ``wsdcast prepare`` would.

    ``rollout.start`` has the initial times; None is the latest. Only the states that are needed are fetched and read.

    Returns:
        ``record`` with these states, in order of time, and facts about the source.

    Raises:
        UserError: if the source cannot be read, or lacks an initial time or a state before it.
    """
    names = record.variables + record.forcing_variables
    files: str | list[Path] = source
    facts = {"initial states": source}
    if source in SYSTEMS:
        files, facts = _fetched(source, recipe.rollout.start, names, record.past_states)
    source_record = open_record(files, scratch, channels=names, in_a_row=1 + record.past_states)
    source_record.require_no_problems(source)
    source_record.note_if_coarser(record.grid)
    begins = initial_times(source_record.times, recipe.rollout.start or LATEST, source, record.past_states)
    source_record = source_record.at(np.isin(source_record.times, with_past(begins, record.past_states)))
    try:
        states = _states(source_record, record, recipe)
    except BadValuesError as error:
        raise UserError(f"{error}; choose other initial times with --start") from None
    if notes := source_record.notes + [
        f"{name}: {count} values far beyond those of the model's record, taken as the highest or lowest that it can store"
        for name, count in zip(names, beyond_packing(states.values).tolist(), strict=True)
        if count
    ]:
        facts["notes"] = "; ".join(notes)
    return replace(record, states=states, times=source_record.times), facts


def _fetched(system: str, start: str | None, names: tuple[str, ...], past_states: int) -> tuple[list[Path], dict[str, str]]:
    """Fetch the analyses of a system at the initial times and before them. Returns the files, and facts about them."""
    facts = {"initial states": f"analyses of {system}"}
    if start is None or start == LATEST:
        time, skipped = newest(system, names)
        begins = np.array([time])
        later = ", ".join(map(time_text, skipped))
        facts["cycle"] = f"{time_text(time)}, the newest" + (f"; not complete yet: {later}" if later else "")
    else:
        begins = np.array(times_between(start), dtype="datetime64[ns]")
        if (begins != begins.astype("datetime64[6h]")).any():
            raise UserError(f"--start {start}: {system} has analyses of 00, 06, 12 and 18 UTC")
    return fetch(system, np.unique(with_past(begins, past_states)), names), facts | {"attribution": ATTRIBUTION[system]}


def _states(source_record: SourceRecord, record: Analysis, recipe: Recipe) -> PackedStates:
    """The states of a source on the model's grid, packed as in the model's prepared store."""
    channels, grid, packing = source_record.channels, source_record.grid, record.states.packing
    assert grid is not None
    blocks = [regridded(block, channels, grid, record.grid, recipe.data.method, packing) for block in source_record.blocks()]
    return PackedStates(np.concatenate(blocks), packing)


def write_states(path: Path, record: Analysis, attributes: Mapping[str, str]) -> None:
    """Write initial states to a NetCDF file, (time, latitude, longitude) for each channel."""
    coordinates = {"time": record.times, "latitude": record.grid.latitude, "longitude": record.grid.longitude}
    names = (*record.variables, *record.forcing_variables)
    fields = {
        name: (tuple(coordinates), record.states[:][:, channel], {key: attributes_of(name)[key] for key in ("standard_name", "units")})
        for channel, name in enumerate(names)
    }
    xr.Dataset(fields, coordinates, {"Conventions": "CF-1.11", "title": "initial states of a forecast", **attributes}).to_netcdf(path)


def difference_in_words(record: Analysis) -> str:
    """Mean and standard deviation of initial states, next to those of the model's training split, in words and in the units that are shown.

    Of many channels, these are the :data:`NAMED` whose mean is farthest from that of the training split, measured by its std.
    """
    weights = record.grid.area_weights[:, None]  # of mean 1
    fields = record.states[:].astype(np.float64)
    mean = (fields * weights).mean(axis=(0, 2, 3))
    std = np.sqrt(((fields - mean[:, None, None]) ** 2 * weights).mean(axis=(0, 2, 3)))
    names = (*record.variables, *record.forcing_variables)
    farthest = np.argsort(-np.abs(mean - record.mean) / record.std)[:NAMED]
    words = []
    for channel in farthest if len(names) > NAMED else range(len(names)):
        display = display_of(variable(names[channel]).units)
        now, usual = (display.of(each[channel]) for each in (mean, record.mean))
        spread, usual_spread = (display.of_differences(each[channel]) for each in (std, record.std))
        digits = f".{decimals_of(usual_spread, 2)}f"
        of_training = f"training {usual:{digits}} ± {usual_spread:{digits}}"
        words.append(f"{short_name(names[channel])} {now:{digits}} ± {spread:{digits}} {units_in_words(display.units)} ({of_training})")
    return f"{'' if len(names) <= NAMED else f'of {len(names)} channels, farthest from training are '}{', '.join(words)}"
