"""Chooses and orders the times of a record, and notes what is odd about them."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.sources.blocks import label
from wsdcast.data.sources.layout import WIND_NAMES
from wsdcast.data.sources.pieces import Piece, Record, Times
from wsdcast.data.steps import STEP


def choose_times(record: Record, start: datetime | None, end: datetime | None, skip: Times, all_hours: bool) -> None:
    """Set the times and places of a record: the selected times of all pieces, in order. Add problems and notes about them."""
    times_of: dict[str, Times] = {}
    for component in WIND_NAMES:
        pieces = [index for index, piece in enumerate(record.pieces) if component in piece.chunks]
        if not pieces:
            record.problems.append(f"has no 10 m wind {component}; looked for {' or '.join(WIND_NAMES[component][:3])}")
            return
        times = np.concatenate([record.pieces[index].times for index in pieces])
        piece = np.concatenate([np.full(record.pieces[index].times.size, index) for index in pieces])
        index = np.concatenate([np.arange(record.pieces[index].times.size) for index in pieces])
        selected = np.concatenate([_in_period(record.pieces[index], start, end) for index in pieces]) & ~np.isin(times, skip)
        synoptic = all_hours | (times.astype("datetime64[s]").astype(np.int64) % 21600 == 0)
        if component == "u":
            record.notes += _oddities(times[selected], synoptic[selected])
        chosen = np.flatnonzero(selected & synoptic)
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
        repeated = np.flatnonzero(np.diff(times[chosen]) == np.timedelta64(0))
        if repeated.size:
            both = [str(record.pieces[piece[chosen[position]]].address) for position in (repeated[0], repeated[0] + 1)]
            where = f"in {both[0]}" if both[0] == both[1] else f"in {both[0]} and in {both[1]}"
            problem = f"{repeated.size} times occur twice, the first {label(times[chosen[repeated[0]]])}, {where}"
            record.problems += [problem] if problem not in record.problems else []
        times_of[component] = times[chosen]
        record.places[component] = np.stack([piece[chosen], index[chosen]], axis=1)
    lone = np.setxor1d(times_of["u"], times_of["v"])
    if lone.size:
        record.problems.append(f"{lone.size} times have only one of u and v, the first {label(lone[0])}")
    record.times = times_of["u"]
    if not record.times.size:
        record.problems.append(
            "none of its times lies at 00, 06, 12 or 18 UTC" + (" in the period from data.start to data.end" if start or end else "")
        )
    elif not all_hours and _one_day_a_month(record.times):
        record.problems.append("its times are some hours of one day a month: means of a month by hour of day, no six-hourly record")
    elif not all_hours and not np.any(np.diff(record.times) == STEP):
        record.problems.append(f"none of its {record.times.size} times at 00, 06, 12 or 18 UTC is followed by one 6 h later")


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


def _oddities(times: Times, synoptic: NDArray[np.bool_]) -> list[str]:
    """Return notes about times at other hours and times out of order."""
    notes = []
    if not synoptic.all():
        hours = ", ".join(sorted({str(time)[11:16] for time in times[~synoptic]})[:6])
        notes.append(f"{(~synoptic).sum()} of {times.size} times are at other hours ({hours}) and left out")
    if np.any(np.diff(times) < np.timedelta64(0)):
        notes.append("times are not in order; they are sorted")
    return notes
