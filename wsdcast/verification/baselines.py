"""Forecasts that cost nothing, which every other has to beat: made of states of the past."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from wsdcast.verification.truth import Truth

PERSISTENCE, CLIMATOLOGY, CLIMATOLOGICAL_MEAN = "persistence", "climatology", "climatological mean"
PROBABILISTIC_CLIMATOLOGY = "probabilistic climatology"
CLIMATOLOGY_MEMBERS = 50
WINDOW = 5
"""Days before and after the same day of another year whose weather may stand for that day's."""
YEARS = 2
"""So many other years make a climatology by time of year."""

Times = NDArray[np.datetime64]
Indices = NDArray[np.intp]
Field = NDArray[np.floating]


def past_states(truth: Truth) -> Indices:
    """Climatology of a short record: at most 50 states evenly spread over the past, the same at all times, (member,)."""
    return _evenly(truth.past, CLIMATOLOGY_MEMBERS)


def other_years(truth: Truth, valid_times: Times) -> Indices | None:
    """Probabilistic climatology: for each time the states of other years at the same time of year and hour, at most 50.

    They are of the past, up to :data:`WINDOW` days from the same day of years other than that of the time itself; evenly chosen
    from the earliest to the latest, as many for one time as for another. 29 February is 1 March where there is none.

    Args:
        truth: that the states are taken from.
        valid_times: all that are to be forecast, of any shape, such as (start, lead).

    Returns:
        Positions of the states, (*valid_times.shape, member); None where some time has fewer than :data:`YEARS` other years.
    """
    if not truth.past.size:
        return None
    there = truth.times[truth.past]
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
            found.append(np.where((there[index] == wanted) & (years != year), truth.past[index], -1))
    states = np.stack(found, axis=-1).reshape(valid.size, -1, 2 * WINDOW + 1)
    usable = states >= 0
    if (usable.any(axis=-1).sum(axis=-1) < YEARS).any():
        return None
    members = min(CLIMATOLOGY_MEMBERS, int(usable.sum(axis=(1, 2)).min()))
    chosen = [_evenly(of[here], members) for of, here in zip(states, usable, strict=True)]
    return np.stack(chosen).reshape(*valid_times.shape, members)


def mean_of(ensemble: Field, whole: NDArray[np.bool_]) -> Field:
    """Mean over the members that are whole (member, lead), one member (1, lead, ...); NaN at lead times without any."""
    if whole.all():
        return ensemble.mean(axis=0, keepdims=True)
    mean = np.full_like(ensemble[:1], np.nan)
    for lead in np.flatnonzero(whole.any(axis=0)):
        mean[0, lead] = ensemble[whole[:, lead], lead].mean(axis=0)
    return mean


def too_poor(there: Mapping[str, NDArray[np.bool_]], forecasts: Collection[str]) -> tuple[list[str], list[str]]:
    """Baselines that would take out more than half of what can be scored, and what is left out, in words.

    What a baseline lacks is left out for all forecasts, so that all are of the same weather, unless it is that much: then the baseline is.

    Args:
        there: by forecast and baseline, which starts and lead times it has scores at, (time, prediction_timedelta).
        forecasts: those that are no baselines.
    """
    pairs = np.all([there[name] for name in forecasts], axis=0)
    poor, words = [], []
    for name in there:
        if lacking := int((pairs & ~there[name]).sum()):
            if 2 * lacking > pairs.sum():
                poor.append(name)
                words.append(f"{name}, missing at {lacking} of {pairs.sum()} starts and lead times")
            else:
                words.append(f"{lacking} starts and lead times for want of {name}")
    return poor, words


def _evenly(values: Indices, count: int) -> Indices:
    """At most ``count`` of them, from the first to the last."""
    return values[np.unique(np.linspace(0, values.size - 1, min(count, values.size)).round().astype(int))]
