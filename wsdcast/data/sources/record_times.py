"""Chooses and orders the times of a record, and notes what is odd about them."""

from __future__ import annotations

import functools
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.sources.naming import known_names
from wsdcast.data.sources.pieces import Piece, SourceRecord, Times
from wsdcast.data.steps import STEP, time_text
from wsdcast.data.variables import words
from wsdcast.runs.errors import first_few


def choose_times(record: SourceRecord, start: datetime | None, end: datetime | None, skip: Times, all_hours: bool, in_a_row: int) -> None:
    """Set the times and places of a record: the selected times of all pieces, in order. Add problems and notes about them."""
    times_of: dict[str, Times] = {}
    pieces_of = {channel: [index for index, piece in enumerate(record.pieces) if channel in piece.chunks] for channel in record.channels}
    # In a file that could not be read there may be more variables. It has a problem already, and is not among the misfits.
    is_read = len(record.problems) == len(record.misfits)
    if absent := [channel for channel, pieces in pieces_of.items() if not pieces]:
        is_among = f"among {', '.join(record.contents)}"
        record.problems += [f"has no {words(channel)}; looked for {known_names(channel)} {is_among}" for channel in absent if is_read]
        return
    for channel, pieces in pieces_of.items():
        times = np.concatenate([record.pieces[index].times for index in pieces])
        piece = np.concatenate([np.full(record.pieces[index].times.size, index) for index in pieces])
        index = np.concatenate([np.arange(record.pieces[index].times.size) for index in pieces])
        selected = np.concatenate([_in_period(record.pieces[index], start, end) for index in pieces]) & ~np.isin(times, skip)
        synoptic = all_hours | (times.astype("datetime64[s]").astype(np.int64) % 21600 == 0)
        if channel == record.channels[0]:
            record.notes += _oddities(times[selected], piece[selected], synoptic[selected])
        chosen = np.flatnonzero(selected & synoptic)
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
        repeated = np.flatnonzero(np.diff(times[chosen]) == np.timedelta64(0, "h"))
        if repeated.size:
            both = [record.pieces[piece[chosen[position]]].name for position in (repeated[0], repeated[0] + 1)]
            where = f"in {both[0]}" if both[0] == both[1] else f"in {both[0]} and in {both[1]}"
            problem = f"{repeated.size} times occur twice, the first {time_text(times[chosen[repeated[0]]])}, {where}"
            record.problems += [problem] if problem not in record.problems else []
        times_of[channel] = times[chosen]
        record.places[channel] = np.stack([piece[chosen], index[chosen]], axis=1)
    record.times = times_of[record.channels[0]]
    _require_all(record, times_of)
    if not record.times.size:
        why = (
            " in the period from data.start to data.end"
            if start or end
            else "; of means over hours, as at 00:30, take instantaneous values"
        )
        record.problems.append(f"none of its times lies at 00, 06, 12 or 18 UTC{why}")
    elif not all_hours and _one_day_a_month(record.times):
        record.problems.append("its times are some hours of one day a month: means of a month by hour of day, no six-hourly record")
    elif not all_hours and in_a_row > 1 and not np.any(np.diff(record.times) == STEP):
        record.problems.append(f"none of its {record.times.size} times at 00, 06, 12 or 18 UTC is followed by one 6 h later")


def _require_all(record: SourceRecord, times_of: dict[str, Times]) -> None:
    """Add a problem to a record if there are times that some of its channels lack. These times are left out."""
    everything = functools.reduce(np.union1d, times_of.values())
    common = functools.reduce(np.intersect1d, times_of.values())
    lone = np.setdiff1d(everything, common)
    if not lone.size:
        return
    record.times = record.times[np.isin(record.times, common)]
    record.places = {channel: places[np.isin(times_of[channel], common)] for channel, places in record.places.items()}
    lacking = [words(channel) for channel, times in times_of.items() if lone[0] not in times]
    record.problems.append(
        f"{lone.size} times lack some of the variables, the first {time_text(lone[0])}: {', '.join(lacking)}"
        + (f"; all are there from {time_text(common[0])} to {time_text(common[-1])} (--start, --end, --skip)" if common.size else "")
    )


def _one_day_a_month(times: Times) -> bool:
    """Return whether there are at least three days, all 28 days or more apart. Monthly means by hour of day have such times."""
    days = np.unique(times.astype("datetime64[D]"))
    return days.size > 2 and bool((np.diff(days) >= np.timedelta64(28, "D")).all())


def _in_period(piece: Piece, start: datetime | None, end: datetime | None) -> NDArray[np.bool_]:
    """Return which times of a piece lie between ``start`` and ``end`` and have data, (time,)."""
    first, last = piece.valid
    first = max(first, np.datetime64(start, "ns")) if start else first
    last = min(last, np.datetime64(end, "ns")) if end else last
    return (piece.times >= first) & (piece.times <= last)


def _oddities(times: Times, piece: NDArray[np.intp], synoptic: NDArray[np.bool_]) -> list[str]:
    """Return notes about times at other hours, and about times out of order in a file. The order of files is that of their names."""
    notes = []
    if not synoptic.all():
        hours = sorted({str(time)[11:16] for time in times[~synoptic]})
        notes.append(f"{(~synoptic).sum()} of {times.size} times are at other hours ({first_few(hours, most=6)}) and left out")
    if np.any((np.diff(times) < np.timedelta64(0, "h")) & (np.diff(piece) == 0)):
        notes.append("times are not in order; they are sorted")
    return notes
