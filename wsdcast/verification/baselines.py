"""Forecasts that cost nothing, in the shape of ensembles (member, lead, channel, latitude, longitude)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.analysis import Analysis

CLIMATOLOGY_MEMBERS = 50
WINDOW = 5
"""Days before and after the same day of another year whose weather may stand for that day's."""
YEARS = 2
"""So many other years make a climatology by time of year."""

PROBABILISTIC_CLIMATOLOGY, CLIMATOLOGICAL_MEAN = "probabilistic climatology", "climatological mean"

Times = NDArray[np.datetime64]
Indices = NDArray[np.intp]
Wind = NDArray[np.float32]


def persistence(record: Analysis, now: int, leads: int) -> Wind:
    """The state now, unchanged: one member."""
    state = record.wind[now]
    return np.broadcast_to(state, (1, leads, *state.shape))


def climatology(record: Analysis) -> Wind:
    """States of the training part as members, at most 50 evenly spread over it; the same whatever the start, (member, channel, ...).

    On a short record this is the best honest substitute for the same days of other years.
    """
    return record.wind[_evenly(np.flatnonzero(record.part("train")), CLIMATOLOGY_MEMBERS)]


def other_years(record: Analysis, valid_times: Times) -> tuple[str, Indices]:
    """Probabilistic climatology: for each time the states of other years at the same time of year and hour, at most 50.

    They are of the training part, up to :data:`WINDOW` days from the same day of years other than that of the time itself; evenly chosen
    from the earliest to the latest, as many for one time as for another. 29 February is 1 March where there is none.

    Args:
        record: that the states are taken from.
        valid_times: all that are to be forecast, of any shape, such as (start, lead).

    Returns:
        What to call it, and indices of states of the record, (*valid_times.shape, member): "probabilistic climatology", or where some
        time has fewer than :data:`YEARS` other years "climatology of N states", the states of :func:`climatology` at all times.
    """
    training = np.flatnonzero(record.part("train"))
    there = record.times[training]
    valid = valid_times.ravel().astype(there.dtype)
    years = valid.astype("datetime64[Y]").astype(int)
    first, last = (int(there[end].astype("datetime64[Y]").astype(int)) for end in (0, -1))
    months = valid.astype("datetime64[M]")
    of_the_month = valid - months  # day and hour
    found = []
    for year in range(first - 1, last + 2):  # the window of a day may reach into the year beside
        same_day = (months + 12 * (year - years)) + of_the_month
        for days in range(-WINDOW, WINDOW + 1):
            wanted = same_day + np.timedelta64(days, "D")
            index = np.minimum(np.searchsorted(there, wanted), there.size - 1)
            found.append(np.where((there[index] == wanted) & (years != year), training[index], -1))
    states = np.stack(found, axis=-1).reshape(valid.size, -1, 2 * WINDOW + 1)
    usable = states >= 0
    if (usable.any(axis=-1).sum(axis=-1) < YEARS).any():
        everywhere = _evenly(training, CLIMATOLOGY_MEMBERS)
        return f"climatology of {everywhere.size} states", np.broadcast_to(everywhere, (*valid_times.shape, everywhere.size))
    members = min(CLIMATOLOGY_MEMBERS, int(usable.sum(axis=(1, 2)).min()))
    chosen = [_evenly(of[here], members) for of, here in zip(states, usable, strict=True)]
    return PROBABILISTIC_CLIMATOLOGY, np.stack(chosen).reshape(*valid_times.shape, members)


def _evenly(values: Indices, count: int) -> Indices:
    """At most ``count`` of them, from the first to the last."""
    return values[np.unique(np.linspace(0, values.size - 1, min(count, values.size)).round().astype(int))]


def climatological_mean(by_month: Wind, valid_times: Times) -> Wind:
    """The mean of the training part at a time of year and hour as a forecast of one member, (1, lead, channel, latitude, longitude).

    Between the middles of two months it goes over from the one's mean to the other's along a straight line.

    Args:
        by_month: means (channel, month, hour, latitude, longitude), as in a prepared store; for those that are missing, as on a short
            record, the mean of the other months at that hour is taken.
        valid_times: (lead,), at 00, 06, 12 or 18 UTC.
    """
    missing = np.isnan(by_month)
    total = np.where(missing, 0, by_month).sum(axis=1, keepdims=True)
    means = np.where(missing, total / np.maximum(1, (~missing).sum(axis=1, keepdims=True)), by_month)
    months = valid_times.astype("datetime64[M]")
    length = (months + 1).astype("datetime64[h]") - months.astype("datetime64[h]")
    passed = (valid_times - months) / length  # of the month, 0 to 1
    month, hour = months.astype(int) % 12, (valid_times - valid_times.astype("datetime64[D]")) // np.timedelta64(6, "h")
    other = (month + np.where(passed < 0.5, -1, 1)) % 12
    share = np.abs(passed - 0.5)[:, None, None, None]
    here, beside = (np.moveaxis(means[:, which, hour], 0, 1) for which in (month, other))
    return ((1 - share) * here + share * beside).astype(np.float32)[None]
