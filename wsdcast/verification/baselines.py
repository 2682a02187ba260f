"""Baselines: forecasts made of states of the truth without any model, which every forecast should beat."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from wsdcast.runs.positions import evenly_spread
from wsdcast.verification.truth import Truth

PERSISTENCE, CLIMATOLOGY, CLIMATOLOGICAL_MEAN = "persistence", "climatology", "climatological mean"
PROBABILISTIC_CLIMATOLOGY = "probabilistic climatology"
BASELINES = (PERSISTENCE, CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY, CLIMATOLOGICAL_MEAN)
"""Names of the baselines that consist of states of the record."""
CLIMATOLOGY_MEMBERS = 50
WINDOW = 5
"""Largest distance in days from the same day of another year at which a state is used for that day."""
YEARS = 2
"""Smallest number of other years for a climatology by time of year."""
STATES = 10
"""Smallest number of states of one. The RMSE of the mean of ten independent states is 5 % larger than that of the mean of the climate."""

Times = NDArray[np.datetime64]
Indices = NDArray[np.intp]
Field = NDArray[np.floating]


def past_states(truth: Truth) -> Indices:
    """Return the climatology of a short record: positions of at most 50 states, evenly spread over the past, (member,)."""
    return truth.past[evenly_spread(truth.past.size, CLIMATOLOGY_MEMBERS)]


def other_years(truth: Truth, valid_times: Times) -> Indices | None:
    """Return the probabilistic climatology: for each valid time at most 50 past states of other years at the same time of year and hour.

    The states are within :data:`WINDOW` days of the same day of another year than that of the valid time. In years without 29 February, 1
    March is used. All valid times get the same number of states, evenly chosen from the earliest to the latest.

    Args:
        truth: source of the states.
        valid_times: all valid times, of any shape, such as (time, lead).

    Returns:
        Positions of the states in ``truth.times``, (*valid_times.shape, member). None if any valid time has fewer than :data:`STATES`
        states, or states in fewer than :data:`YEARS` other years.
    """
    if not truth.past.size:
        return None
    past = truth.times[truth.past]
    valid = valid_times.ravel().astype(past.dtype)
    years = valid.astype("datetime64[Y]").astype(int)
    first, last = (int(past[end].astype("datetime64[Y]").astype(int)) for end in (0, -1))
    months = valid.astype("datetime64[M]")
    within_month = valid - months  # day and hour
    candidates = []
    for year in range(first - 1, last + 2):  # the window around a day may reach into the next or the previous year
        same_day = (months + 12 * (year - years)) + within_month
        for days in range(-WINDOW, WINDOW + 1):
            day = same_day + np.timedelta64(days, "D")
            index = np.minimum(np.searchsorted(past, day), past.size - 1)
            candidates.append(np.where((past[index] == day) & (years != year), truth.past[index], -1))
    states = np.stack(candidates, axis=-1).reshape(valid.size, -1, 2 * WINDOW + 1)
    usable = states >= 0
    fewest = int(usable.sum(axis=(1, 2)).min())
    if fewest < STATES or (usable.any(axis=-1).sum(axis=-1) < YEARS).any():
        return None
    members = min(CLIMATOLOGY_MEMBERS, fewest)
    chosen = [row[mask][evenly_spread(int(mask.sum()), members)] for row, mask in zip(states, usable, strict=True)]
    return np.stack(chosen).reshape(*valid_times.shape, members)


def climate_of(truth: Truth, valid_times: Times) -> tuple[str, Indices]:
    """Return the name of the climatology, and the positions of its states in the truth at all valid times, (*valid_times.shape, member).

    With enough years for the valid times that have truth it is the probabilistic climatology (:func:`other_years`), else the same past
    states at all times (:func:`past_states`). At valid times without truth the states mean nothing.
    """
    known = np.isin(valid_times, truth.times)
    if known.any() and (states := other_years(truth, valid_times[known])) is not None:
        of_all = np.full((*valid_times.shape, states.shape[-1]), states.flat[0])
        of_all[known] = states
        return PROBABILISTIC_CLIMATOLOGY, of_all
    states = past_states(truth)
    return CLIMATOLOGY, np.broadcast_to(states, (*valid_times.shape, states.size))


def mean_of(ensemble: Field, whole: NDArray[np.bool_]) -> Field:
    """Return the mean of the members without gaps as an ensemble of one member, (1, lead, ...); NaN at lead times without any.

    Args:
        ensemble: (member, lead, ...).
        whole: which members have no gap at which lead time, (member, lead).
    """
    if whole.all():
        return ensemble.mean(axis=0, keepdims=True)
    mean = np.full_like(ensemble[:1], np.nan)
    for lead in np.flatnonzero(whole.any(axis=0)):
        mean[0, lead] = ensemble[whole[:, lead], lead].mean(axis=0)
    return mean


def too_poor(scored: Mapping[str, NDArray[np.bool_]], forecasts: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the names of baselines that must be left out, and descriptions of all that is left out.

    All forecasts and baselines are scored at the same initial times and lead times, so that they are scored on the same weather. Those that
    a baseline lacks are therefore left out for all. But if a baseline lacks more than half of those of the forecasts, the baseline itself
    is left out.

    Args:
        scored: by name of forecast or baseline, at which initial times and lead times it has scores, (time, prediction_timedelta).
        forecasts: the names that are not baselines.
    """
    pairs = np.all([scored[name] for name in forecasts], axis=0)
    poor, words = [], []
    for name in scored:
        if lacking := int((pairs & ~scored[name]).sum()):
            if 2 * lacking > pairs.sum():
                poor.append(name)
                words.append(f"{name}, missing at {lacking} of {pairs.sum()} initial and lead times")
            else:
                words.append(f"{lacking} initial and lead times for want of {name}")
    return poor, words
