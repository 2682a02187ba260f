"""What is known of a record before its values are read: its pieces, grid, times and problems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.blocks import Block, Reading
from wsdcast.data.sources.opening import Address

BLOCK_BYTES = 64e6
"""Read at once where the source's chunks are smaller, as float32; larger chunks are read whole up to four times that."""


Times = NDArray[np.datetime64]
Statics = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Piece:
    """One file or store.

    Attributes:
        address: where it is.
        state: changes with its content.
        times: all that it has, (time,).
        chunks: for each component that it has, how many times are kept together.
        valid: first and last time that are filled.
    """

    address: Address
    state: str
    times: Times
    chunks: dict[str, int]
    valid: tuple[np.datetime64, np.datetime64]


@dataclass
class Record:
    """What a source holds at 00, 06, 12 and 18 UTC.

    Attributes:
        times: (time,), strictly increasing; gaps stay gaps.
        grid: of all of it, after ordering; None if no piece could be used.
        pieces: that have wind.
        places: for u and v, the piece of each time and its index there, (time, 2).
        without_wind: a line for each piece that has none.
        misfits: addresses of pieces that are on no grid of the globe, or not on that of the others.
        forecasts: pieces that are forecasts, not analyses.
        static: fields that do not change, (latitude, longitude) on ``grid``.
        problems: why it cannot be used; nothing else may be relied on if there are any.
        notes: what a person may want to know.
    """

    times: Times = field(default_factory=lambda: np.empty(0, dtype="datetime64[ns]"))
    grid: Grid | None = None
    pieces: list[Piece] = field(default_factory=list)
    places: dict[str, NDArray[np.intp]] = field(default_factory=dict)
    without_wind: list[str] = field(default_factory=list)
    misfits: list[Address] = field(default_factory=list)
    forecasts: list[str] = field(default_factory=list)
    static: Statics = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def after(self, moment: np.datetime64) -> Record:
        """The part that is later than ``moment``."""
        later = self.times > moment
        places = {component: places[later] for component, places in self.places.items()}
        return replace(self, times=self.times[later], places=places)

    def blocks(self) -> Iterator[Block]:
        """All steps in blocks that share no chunk of the source, so that each is read once; only what is too large for that is split."""
        assert self.grid is not None
        whole = np.ones(self.times.size, dtype=bool)  # where a block may begin: no chunk has steps before and after
        for component, places in self.places.items():
            piece, index = places.T
            chunk = index // np.array([each.chunks.get(component, 1) for each in self.pieces])[piece]
            _, same = np.unique(np.stack([piece, chunk]), axis=1, return_inverse=True)
            last = np.zeros(same.max(initial=0) + 1, dtype=np.intp)
            np.maximum.at(last, same, np.arange(same.size))
            whole[1:] &= np.maximum.accumulate(last[same])[:-1] < np.arange(1, same.size)
        starts = [*np.flatnonzero(whole).tolist(), self.times.size]
        rows, columns = self.grid.shape
        usual = max(1, int(BLOCK_BYTES / (8 * rows * columns)))
        begin = 0
        for start, end in pairwise(starts):
            if start > begin and end - begin > usual:
                yield from self._split(begin, start, 4 * usual)
                begin = start
        yield from self._split(begin, self.times.size, 4 * usual)

    def _split(self, first: int, last: int, largest: int) -> Iterator[Block]:
        """One block, or several of at most ``largest`` steps."""
        for begin in range(first, last, largest):
            end = min(last, begin + largest)
            readings = []
            for component, places in self.places.items():
                for number in np.unique(places[begin:end, 0]):
                    steps = np.flatnonzero(places[begin:end, 0] == number)
                    steps = steps[np.argsort(places[begin + steps, 1])]
                    piece = self.pieces[number]
                    readings.append(Reading(component, piece.address, piece.state, places[begin + steps, 1], steps))
            yield Block(begin, end, tuple(readings))

    def sources(self, first: int, last: int) -> list[str]:
        """The states of the pieces that steps ``first`` to ``last`` come from."""
        chosen = np.unique(np.concatenate([places[first:last, 0] for places in self.places.values()]))
        return [self.pieces[index].state for index in chosen]
