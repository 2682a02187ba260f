"""A record before its values are read: its pieces, grid, times and problems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.blocks import Block, Reading
from wsdcast.data.sources.opening import Address, of_address
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError

BLOCK_BYTES = 64e6
"""Size of a block, as float32, if the chunks of the source are smaller. Larger chunks are read whole up to four times this size."""
SHOWN = 3
"""Number of problems that the line of an error names."""

Times = NDArray[np.datetime64]
Statics = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Piece:
    """One file or store.

    Attributes:
        address: address of the file or store.
        name: what messages call it.
        state: text that changes with its content.
        times: all its times, (time,).
        chunks: for each channel that it has, the number of times in one chunk.
        groups: the channels that are stored in one variable and can be read together.
        valid: first and last time that it has data for.
    """

    address: Address
    name: str
    state: str
    times: Times
    chunks: dict[str, int]
    groups: tuple[tuple[str, ...], ...]
    valid: tuple[np.datetime64, np.datetime64]


@dataclass
class SourceRecord:
    """The channels of a source, as a rule at 00, 06, 12 and 18 UTC, and what is known about it.

    Attributes:
        times: (time,), strictly increasing. Gaps are not filled.
        grid: grid of all pieces, in order; None if no piece could be used.
        channels: names of the channels.
        pieces: all files or stores that have some of the channels.
        places: for each channel, the index of the piece that holds each time and the index of the time in that piece, (time, 2).
        without_any: a message for each file or store that has none of the channels, by its name.
        contents: what the pieces hold, in words.
        misfits: addresses of pieces that are not on a global grid, or not on that of the other pieces.
        forecasts: names of pieces that are forecasts, not analyses.
        static: static fields, (latitude, longitude) on ``grid``.
        problems: reasons why the record cannot be used. If there are any, the other attributes are not reliable.
        notes: remarks for the user.
    """

    times: Times = field(default_factory=lambda: np.empty(0, dtype="datetime64[ns]"))
    grid: Grid | None = None
    channels: tuple[str, ...] = DEFAULT
    pieces: list[Piece] = field(default_factory=list)
    places: dict[str, NDArray[np.intp]] = field(default_factory=dict)
    without_any: dict[str, str] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    misfits: list[Address] = field(default_factory=list)
    forecasts: list[str] = field(default_factory=list)
    static: Statics = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def require_no_problems(self, source: str) -> None:
        """Check that the record can be used. ``source`` is what the user gave.

        Raises:
            UserError: if the record has problems; the message names the first ones.
        """
        if len(self.problems) > 1:
            rest = "; `wsdcast prepare --check` lists all" * (len(self.problems) > SHOWN)
            raise UserError(f"{source}: {len(self.problems)} problems: {'; '.join(self.problems[:SHOWN])}{rest}")
        if self.problems:
            raise UserError(of_address(source, self.problems[0]))

    def note_if_coarser(self, target: Grid) -> None:
        """Add a note if the grid that the record is brought to is finer than its own."""
        if self.grid is not None and target.is_finer_than(self.grid):
            self.notes.append(f"the grid {target.name} is finer than {self.grid.name} of the source, and regridding adds no detail")

    def at(self, chosen: NDArray[np.bool_]) -> SourceRecord:
        """Return the record of some of its times: those that are ``chosen``, (time,)."""
        return replace(self, times=self.times[chosen], places={channel: places[chosen] for channel, places in self.places.items()})

    def blocks(self) -> Iterator[Block]:
        """Yield all times in blocks that share no chunk of the source, so that each chunk is read once. Too large blocks are split."""
        assert self.grid is not None
        may_begin = np.ones(self.times.size, dtype=bool)  # whether a block may begin here: no chunk has times on both sides
        for channel, places in self.places.items():
            piece, index = places.T
            chunk = index // np.array([each.chunks.get(channel, 1) for each in self.pieces])[piece]
            _, same = np.unique(np.stack([piece, chunk]), axis=1, return_inverse=True)
            last = np.zeros(same.max(initial=0) + 1, dtype=np.intp)
            np.maximum.at(last, same, np.arange(same.size))
            may_begin[1:] &= np.maximum.accumulate(last[same])[:-1] < np.arange(1, same.size)
        starts, groups = [*np.flatnonzero(may_begin).tolist(), self.times.size], self._groups()
        rows, columns = self.grid.shape
        usual = max(1, int(BLOCK_BYTES / (4 * len(self.channels) * rows * columns)))
        begin = 0
        for start, end in pairwise(starts):
            if start > begin and end - begin > usual:
                yield from self._split(begin, start, 4 * usual, groups)
                begin = start
        yield from self._split(begin, self.times.size, 4 * usual, groups)

    def _groups(self) -> list[tuple[str, ...]]:
        """Return the channels in groups that can be read together: every piece has them all in one variable, or none of them."""
        groups: dict[tuple[tuple[str, ...] | None, ...], list[str]] = {}
        for channel in self.channels:
            variables = tuple(next((group for group in piece.groups if channel in group), None) for piece in self.pieces)
            groups.setdefault(variables, []).append(channel)
        # In the order of the levels in the first piece that has them, because files are read faster by rising indices.
        return [tuple(sorted(channels, key=next(filter(None, variables)).index)) for variables, channels in groups.items()]

    def _split(self, first: int, last: int, largest: int, groups: list[tuple[str, ...]]) -> Iterator[Block]:
        """Yield one block, or several of at most ``largest`` times each."""
        for begin in range(first, last, largest):
            end = min(last, begin + largest)
            yield Block(begin, end, tuple(reading for group in groups for reading in self._readings(begin, end, group)))

    def _readings(self, begin: int, end: int, group: tuple[str, ...]) -> Iterator[Reading]:
        """Yield what each piece has of a group at the times ``begin`` to ``end`` (exclusive)."""
        places = self.places[group[0]][begin:end]  # the same for all channels of the group
        for number in np.unique(places[:, 0]):
            steps = np.flatnonzero(places[:, 0] == number)
            steps = steps[np.argsort(places[steps, 1])]
            yield self.reading(number, group, places[steps, 1], steps)

    def reading(self, number: int, channels: tuple[str, ...], indices: NDArray[np.intp], places: NDArray[np.intp]) -> Reading:
        """Return the reading of some channels of one piece; the other attributes of :class:`Reading` are known here."""
        piece = self.pieces[number]
        return Reading(channels, self.channels, piece.address, piece.name, piece.state, indices, piece.times[indices], places)

    def sources(self, first: int, last: int) -> list[str]:
        """Return the states of the pieces that hold the times ``first`` to ``last`` (exclusive)."""
        chosen = np.unique(np.concatenate([places[first:last, 0] for places in self.places.values()]))
        return [self.pieces[index].state for index in chosen]
