"""What forecasts are scored against: the prepared record of a run, or any source of analyses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.blocks import opened
from wsdcast.data.sources.layout import values_of
from wsdcast.data.sources.pieces import Record
from wsdcast.data.sources.record import open_record
from wsdcast.data.store.analysis import Analysis
from wsdcast.runs.errors import UserError

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """Analyses of 10 m wind.

    Attributes:
        times: (time,), increasing.
        grid: where.
        read: values at positions (n,) among the times, (n, channel, latitude, longitude) in m s-1, NaN where they are missing.
        past: positions among the times of what a forecaster could know of the climate: none of what is scored.
    """

    times: NDArray[np.datetime64]
    grid: Grid
    read: Callable[[NDArray[np.intp]], Field]
    past: NDArray[np.intp]

    def at(self, times: NDArray[np.datetime64]) -> Field:
        """Wind at any times (n,), NaN where there is none, (n, channel, latitude, longitude)."""
        found = np.searchsorted(self.times, times).clip(0, self.times.size - 1)
        there = self.times[found] == times
        wind = np.full((times.size, 2, *self.grid.shape), np.nan, dtype=np.float32)
        if there.any():
            wind[there] = self.read(found[there])
        return wind


def truth_of(record: Analysis) -> Truth:
    """A prepared record as truth; its training part is the past."""
    return Truth(record.times, record.grid, record.wind.__getitem__, np.flatnonzero(record.part("train")))


def open_truth(source: str, scratch: Path, first: np.datetime64) -> Truth:
    """Analyses from whatever ``wsdcast prepare`` reads, on the grid that they are on.

    Args:
        source: path, glob or URL, or the name of a public store.
        scratch: directory where zipped files are unpacked.
        first: start of the first forecast; the past is what lies before it.

    Raises:
        UserError: if it cannot be used.
    """
    record = open_record(source, scratch, all_hours=True)
    if record.problems:
        raise UserError(f"{source}: {record.problems[0]}" + (f" (and {len(record.problems) - 1} more)" if record.problems[1:] else ""))
    assert record.grid is not None
    past = np.flatnonzero(record.times < first)

    def read(positions: NDArray[np.intp]) -> Field:
        return np.stack([_component(record, component, positions) for component in ("u", "v")], axis=1)

    return Truth(record.times, record.grid, read, past)


def _component(record: Record, component: str, positions: NDArray[np.intp]) -> Field:
    """One component at some times (n,), (n, latitude, longitude)."""
    assert record.grid is not None
    values = np.full((positions.size, *record.grid.shape), np.nan, dtype=np.float32)
    pieces, indices = record.places[component][positions].T
    for number in np.unique(pieces):
        piece: Any = record.pieces[number]
        mine = np.flatnonzero(pieces == number)
        array = opened(piece.address, piece.state)[component]
        try:
            values[mine] = values_of(array, indices[mine])
        except ValueError:  # of chunks that are missing: what is there of them is found time by time
            for place in mine:
                try:
                    values[place] = values_of(array, indices[[place]])[0]
                except ValueError:
                    continue
    constant = values.min(axis=(1, 2)) == values.max(axis=(1, 2))  # as where a store lacks a chunk and answers with its fill value
    values[constant] = np.nan
    return values
