"""The truth against which forecasts are scored: the prepared record of a run, or any source of analyses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.sources.blocks import stored_at
from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.sources.file_lock import reading_values
from wsdcast.data.sources.layout import values_of
from wsdcast.data.sources.opening import addresses, open_dataset, unpacked
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record
from wsdcast.data.steps import time_text
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.states import StoredStates
from wsdcast.data.variables import DEFAULT, words
from wsdcast.runs.errors import UserError

Field = NDArray[np.float32]

FINE_STATES = 16
"""States on a finer grid that are in memory at a time while they are regridded."""


@dataclass(frozen=True)
class Truth:
    """Analyses of the variables that are scored.

    Attributes:
        times: (time,), increasing.
        grid: grid of the fields.
        read: function from positions (n,) in ``times`` to fields (n, channel, latitude, longitude), NaN where they are missing. It raises a
            UserError if they cannot be read.
        past: positions in ``times`` of the states that a climatology may use. None of them is scored.
        regridded_from: the finer grid that the fields are brought from (:func:`truth_on_grid`), if they are.
        variables: names of the channels.
        notes: what is odd about the source, for the user.
    """

    times: NDArray[np.datetime64]
    grid: Grid
    read: Callable[[NDArray[np.intp]], Field]
    past: NDArray[np.intp]
    regridded_from: Grid | None = None
    variables: tuple[str, ...] = DEFAULT
    notes: tuple[str, ...] = ()

    def at(self, times: NDArray[np.datetime64]) -> Field:
        """Return the fields at any times (n,), (n, channel, latitude, longitude); NaN at times that the truth does not have."""
        positions = np.searchsorted(self.times, times).clip(0, self.times.size - 1)
        known = self.times[positions] == times
        fields = np.full((times.size, len(self.variables), *self.grid.shape), np.nan, dtype=np.float32)
        if known.any():
            fields[known] = self.read(positions[known])
        return fields


def truth_of(analysis: Analysis, variables: tuple[str, ...] = DEFAULT) -> Truth:
    """Return some variables of a prepared record as truth. Its training split is the past.

    Raises:
        UserError: if the record lacks a variable.
    """
    channels = (*analysis.variables, *analysis.forcing_variables)
    if missing := [name for name in variables if name not in channels]:
        raise UserError(f"the prepared store has no {missing[0]}, only {', '.join(channels)}")
    chosen, states = [channels.index(name) for name in variables], analysis.states
    if isinstance(states, StoredStates):  # only these channels are read
        states = StoredStates(tuple(states.arrays[channel] for channel in chosen), states.packing.of(chosen))
        chosen = list(range(len(variables)))

    def read(positions: NDArray[np.intp]) -> Field:
        fields = states[positions]
        return fields if chosen == list(range(fields.shape[1])) else fields[:, chosen]

    return Truth(analysis.times, analysis.grid, read, np.flatnonzero(analysis.part("train")), variables=variables)


def open_truth(source: str, scratch: Path, first: np.datetime64, variables: tuple[str, ...] = DEFAULT) -> Truth:
    """Return the truth from any source of analyses that ``wsdcast prepare`` reads, on the grid of that source.

    Args:
        source: path, glob or URL, or the name of a public store.
        scratch: directory where zipped files are unpacked.
        first: initial time of the first forecast. All times before it are the past.
        variables: the channels that are scored; default: the 10 m wind.

    Raises:
        UserError: if the source cannot be used.
    """
    record = open_record(source, scratch, all_hours=True, channels=variables)
    record.require_no_problems(source)
    assert record.grid is not None
    past = np.flatnonzero(record.times < first)

    def read(positions: NDArray[np.intp]) -> Field:
        return np.stack([_channel(record, name, positions) for name in record.channels], axis=1)

    return Truth(record.times, record.grid, read, past, variables=variables, notes=tuple(record.notes))


def channels_of_truth(source: str, scratch: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return those of the ``wanted`` channels that a source of analyses has. What cannot be opened is named by :func:`open_truth`.

    Args:
        source, scratch: as for :func:`open_truth`.
        wanted: names of channels. Files are opened until all are found.
    """
    found = set[str]()
    with suppress(UserError):
        for outer in addresses(source):
            for address in unpacked(outer, scratch):
                with suppress(UserError), open_dataset(address, wanted) as dataset:
                    found |= set(channels_in(dataset))
                if found >= set(wanted):
                    return tuple(wanted)
    return tuple(name for name in wanted if name in found)


def truth_on_grid(truth: Truth, grid: Grid) -> Truth:
    """Return the truth on a coarser grid: each state is regridded conservatively when it is read, as ``wsdcast prepare`` does.

    If the grid is not coarser along both axes, the truth is returned as it is.
    """
    if not truth.grid.is_finer_than(grid):
        return truth

    def read(positions: NDArray[np.intp]) -> Field:
        fields = np.empty((positions.size, len(truth.variables), *grid.shape), np.float32)
        for first in range(0, positions.size, FINE_STATES):
            chunk = slice(first, first + FINE_STATES)
            fields[chunk] = regrid(truth.read(positions[chunk]), truth.grid, grid, missing="nan")
        return fields

    return replace(truth, grid=grid, read=read, regridded_from=truth.grid)


def _channel(record: SourceRecord, name: str, positions: NDArray[np.intp]) -> Field:
    """Return one channel at positions (n,) in the record's times, (n, latitude, longitude); NaN where it is missing.

    Raises:
        UserError: if it cannot be read.
    """
    assert record.grid is not None
    values = np.full((positions.size, *record.grid.shape), np.nan, dtype=np.float32)
    pieces, indices = record.places[name][positions].T
    for number in np.unique(pieces):
        rows = np.flatnonzero(pieces == number)
        reading = record.reading(number, (name,), indices[rows], rows)
        with reading_values(reading.address, f"{reading.name}: {words(name)} from {time_text(reading.times[0])} on"):
            values[rows] = values_of(stored_at(reading), indices[rows])
    constant = values.min(axis=(1, 2)) == values.max(axis=(1, 2))  # for a missing chunk, some stores return their fill value
    values[constant] = np.nan
    return values
