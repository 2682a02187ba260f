"""A record of wind in one or many files or stores: their steps in order of time, what is wrong with them, and how to read them once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.blocks import Block, Reading, label
from wsdcast.data.grid import Grid
from wsdcast.data.layout import WIND_NAMES, order_of, static_of, to_the_second, values_of, wind_of
from wsdcast.data.opening import Address, addresses, first_line, open_dataset, state_of, unpacked
from wsdcast.errors import UserError

BLOCK_BYTES = 64e6
"""Read at once where the source's chunks are smaller, as float32; larger chunks are read whole up to four times that."""

STEP = np.timedelta64(6, "h")

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


def open_record(
    source: Address,
    scratch: Path,
    start: datetime | None = None,
    end: datetime | None = None,
    skip: Sequence[datetime] = (),
    all_hours: bool = False,
) -> Record:
    """Look at all files or stores of a source, without reading wind.

    Args:
        source: a built-in name, URL, store, path, directory or glob.
        scratch: directory where zipped files are unpacked.
        start, end: first and last time wanted, UTC; default: all.
        skip: times to leave out, UTC.
        all_hours: whether times at other hours than 00, 06, 12 and 18 UTC are kept, as where forecasts are scored.

    Returns:
        The record, or one that lists its problems.

    Raises:
        UserError: if there is no source of that name.
    """
    record, static = Record(), list[_Static]()
    for outer in addresses(source):
        try:
            for address in unpacked(outer, scratch):
                try:
                    _look_at(address, record, static)
                except UserError as error:
                    record.problems.append(str(error) if str(error).startswith(str(address)) else f"{address}: {error}")
        except (UserError, OSError) as error:
            record.problems.append(str(error))
    if record.pieces:
        if record.without_wind:
            files = _some(line.split(":")[0] for line in record.without_wind)
            record.notes.append(f"{len(record.without_wind)} of its files have no 10 m wind and are left out: {files}")
        if record.forecasts:
            record.notes.append(f"{len(record.forecasts)} of its files are forecasts, not analyses: {_some(record.forecasts)}")
        _place(record, start, end, np.array(skip, dtype="datetime64[ns]"), all_hours)
    else:
        record.problems += record.without_wind
    for found in static:
        if record.grid is None or not record.grid.is_close(found.grid):
            record.notes.append(f"{found.address}: {found.name} is on another grid and left out")
        else:
            record.static.setdefault(found.name, found.values)
    return record


@dataclass(frozen=True)
class _Static:
    """A field that does not change, as one file or store has it."""

    address: Address
    name: str
    grid: Grid
    values: NDArray[np.float32]


def _look_at(address: Address, record: Record, static: list[_Static]) -> None:
    """Add what one file or store has to the record, and its static fields to ``static``.

    Raises:
        UserError: if it cannot be read, or is on another grid than those before it; its times are in the record then.
    """
    with open_dataset(address) as dataset:
        first, _ = valid = _valid(dataset)
        try:
            for name, array in static_of(dataset).items():
                chosen = int(np.argmax(array["time"].values >= first))
                static.append(_Static(address, name, order_of(array)[2], values_of(array, np.array([chosen]))[0]))
        except UserError as error:
            record.notes.append(f"{address}: its static fields are left out ({error})")
        except Exception as error:  # damage of as many kinds as there are formats
            raise UserError(f"its static fields cannot be read ({first_line(error)})") from None
        _add(address, dataset, valid, record)


def _add(address: Address, dataset: xr.Dataset, valid: tuple[np.datetime64, np.datetime64], record: Record) -> None:
    wind = wind_of(dataset)
    if not wind:
        record.without_wind.append(f"{address}: has no 10 m wind; looked for {_names()} among {_some(map(str, dataset.data_vars))}")
        return
    times = to_the_second(wind["time"].values)
    chunks = {str(name): array.attrs["chunk"] for name, array in wind.items()}
    record.pieces.append(Piece(address, f"{state_of(address)} {times.size} times", times, chunks, valid))
    for array in wind.values():
        if over := re.search(r"time\d*: *(mean|maximum|minimum|sum)", str(array.attrs.get("cell_methods", ""))):
            said = f"10 m wind {array.name} is the {over[1]} over an interval (cell_methods), not the wind at its time"
            record.notes += [said] if said not in record.notes else []
    if max(array.attrs["lead_hours"] for array in wind.values()):
        record.forecasts.append(str(address))
    if np.isnat(times).any():
        raise UserError(f"{np.isnat(times).sum()} of its {times.size} times are missing")
    record.misfits.append(address)  # until its grid is known to fit
    for array in wind.values():
        grid = order_of(array)[2]
        rows = -np.diff(grid.latitude)
        if rows.max() > 1.6 * np.median(rows):
            gap = int(np.argmax(rows))
            raise UserError(f"rows are missing between latitudes {grid.latitude[gap]:g} and {grid.latitude[gap + 1]:g}")
        if record.grid is None:
            record.grid = grid
        elif not record.grid.is_close(grid):
            raise UserError(f"its grid ({grid.name}) differs from that of the files before it ({record.grid.name})")
    record.misfits.pop()


def _valid(dataset: xr.Dataset) -> tuple[np.datetime64, np.datetime64]:
    """From when to when a store is filled, by its attributes: ARCO-ERA5's axis of times reaches to 2050.

    Raises:
        UserError: if they are no dates.
    """
    start, stop = (dataset.attrs.get(f"valid_time_{name}") for name in ("start", "stop"))
    for text in (start, stop):
        if text is not None and not re.fullmatch(r"\d{4}(-\d\d(-\d\d([T ][\d:]+Z?)?)?)?", str(text)):
            raise UserError(f"its attribute valid_time_start or valid_time_stop is no date: {text}")
    first, last = (np.datetime64(str(text or default).removesuffix("Z")) for text, default in ((start, "1678-01-01"), (stop, "2262-01-01")))
    if np.datetime_data(last.dtype)[0] in ("Y", "M", "D"):  # all of that year, month or day
        return first.astype("datetime64[ns]"), (last + 1).astype("datetime64[ns]") - np.timedelta64(1, "ns")
    return first.astype("datetime64[ns]"), last.astype("datetime64[ns]")


def _place(record: Record, start: datetime | None, end: datetime | None, skip: Times, all_hours: bool) -> None:
    """Bring the times of all pieces in order, and note what is odd about them."""
    known: dict[str, Times] = {}
    for component in WIND_NAMES:
        pieces = [index for index, piece in enumerate(record.pieces) if component in piece.chunks]
        if not pieces:
            record.problems.append(f"has no 10 m wind {component}; looked for {' or '.join(WIND_NAMES[component][:3])}")
            return
        times = np.concatenate([record.pieces[index].times for index in pieces])
        piece = np.concatenate([np.full(record.pieces[index].times.size, index) for index in pieces])
        index = np.concatenate([np.arange(record.pieces[index].times.size) for index in pieces])
        wanted = np.concatenate([_wanted(record.pieces[index], start, end) for index in pieces]) & ~np.isin(times, skip)
        synoptic = all_hours | (times.astype("datetime64[s]").astype(np.int64) % 21600 == 0)
        if component == "u":
            record.notes += _oddities(times[wanted], synoptic[wanted])
        chosen = np.flatnonzero(wanted & synoptic)
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
        again = np.flatnonzero(np.diff(times[chosen]) == np.timedelta64(0))
        if again.size:
            both = [str(record.pieces[piece[chosen[place]]].address) for place in (again[0], again[0] + 1)]
            where = f"in {both[0]}" if both[0] == both[1] else f"in {both[0]} and in {both[1]}"
            problem = f"{again.size} times occur twice, the first {label(times[chosen[again[0]]])}, {where}"
            record.problems += [problem] if problem not in record.problems else []
        known[component] = times[chosen]
        record.places[component] = np.stack([piece[chosen], index[chosen]], axis=1)
    lone = np.setxor1d(known["u"], known["v"])
    if lone.size:
        record.problems.append(f"{lone.size} times have only one of u and v, the first {label(lone[0])}")
    record.times = known["u"]
    if not record.times.size:
        record.problems.append(
            "none of its times lies at 00, 06, 12 or 18 UTC" + (" in the period from data.start to data.end" if start or end else "")
        )
    elif not all_hours and _one_day_a_month(record.times):
        record.problems.append("its times are some hours of one day a month: means of a month by hour of day, no six-hourly record")
    elif not all_hours and not np.any(np.diff(record.times) == STEP):
        record.problems.append(f"none of its {record.times.size} times at 00, 06, 12 or 18 UTC is followed by one 6 h later")


def _one_day_a_month(times: Times) -> bool:
    """Whether there are several days, each in another month, and whole weeks between them: so monthly means by hour of day are stamped."""
    days = np.unique(times.astype("datetime64[D]"))
    return days.size > 2 and bool((np.diff(days) >= np.timedelta64(28, "D")).all())


def _wanted(piece: Piece, start: datetime | None, end: datetime | None) -> NDArray[np.bool_]:
    first, last = piece.valid
    first = max(first, np.datetime64(start, "ns")) if start else first
    last = min(last, np.datetime64(end, "ns")) if end else last
    return (piece.times >= first) & (piece.times <= last)


def _oddities(times: Times, synoptic: NDArray[np.bool_]) -> list[str]:
    notes = []
    if not synoptic.all():
        hours = ", ".join(sorted({str(time)[11:16] for time in times[~synoptic]})[:6])
        notes.append(f"{(~synoptic).sum()} of {times.size} times are at other hours ({hours}) and left out")
    if np.any(np.diff(times) < np.timedelta64(0)):
        notes.append("times are not in order; they are sorted")
    return notes


def _names() -> str:
    return " or ".join(WIND_NAMES["u"][:3])


def _some(names: Iterable[str], most: int = 5) -> str:
    """The first few of many names."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "") if listed else "nothing"
