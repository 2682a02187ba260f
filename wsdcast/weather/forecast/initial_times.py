"""The initial times of forecasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.steps import STEP, time_text
from wsdcast.data.store.analysis import Analysis
from wsdcast.runs.errors import UserError
from wsdcast.runs.times import times_between
from wsdcast.weather.recipe import Recipe, Rollout

LATEST = "latest"


def initial_times(available: NDArray[np.datetime64], start: str, source: str, past_states: int) -> NDArray[np.datetime64]:
    """The initial times that ``rollout.start`` asks for, (start,).

    Args:
        available: times of the states, (time,), increasing.
        start: ``latest``, a time, or FIRST/LAST/INTERVAL.
        source: names the states in the message of an error.
        past_states: number of states before an initial time that a forecast needs.

    Raises:
        UserError: if an initial time or one of the states before it is missing.
    """
    whole = available[np.isin(with_past(available, past_states), available).all(axis=1)]
    if start == LATEST:
        if not whole.size:
            raise UserError(f"--start latest: {source} has no {1 + past_states} states in a row, 6 h apart")
        return whole[-1:]
    requested = np.array(times_between(start), dtype="datetime64[ns]")
    if (missing := requested[~np.isin(requested, whole)]).size:
        first, last = map(time_text, available[[0, -1]])
        if requested.size == 1:
            needed = with_past(missing, past_states)[0]
            lacking = time_text(needed[~np.isin(needed, available)][0])
            needs = "" if lacking == time_text(missing[0]) else f", which a forecast from {time_text(missing[0])} needs"
            near = f"; the nearest possible start is {time_text(min(whole, key=lambda time: abs(time - missing[0])))}" if whole.size else ""
            raise UserError(f"--start {start}: {source} has no state at {lacking}{needs}{near}; {source} is from {first} to {last}")
        raise UserError(
            f"--start {start}: {source} lacks {missing.size} of {requested.size} initial times or the states up to {6 * past_states} h "
            f"before them; the first is {time_text(missing[0])}, and {source} is from {first} to {last}"
        )
    return requested


def with_past(begins: NDArray[np.datetime64], past_states: int) -> NDArray[np.datetime64]:
    """Each initial time (start,) and the times of the states before it, 6 h apart: (start, 1 + ``past_states``)."""
    return begins[:, None] - STEP * np.arange(1 + past_states)


def without_latest(recipe: Recipe, record: Analysis) -> Recipe:
    """The recipe with ``latest`` replaced by the last time of the record from which a forecast can begin.

    Raises:
        UserError: if the record has no such time.
    """
    if recipe.rollout.start != LATEST:
        return recipe
    (time,) = initial_times(record.times, LATEST, "the record", record.past_states)
    return recipe.changed(rollout__start=str(time.astype("datetime64[h]")))


def starts_of(recipe: Recipe, record: Analysis) -> NDArray[np.intp]:
    """Indices in the record of a recipe's initial times.

    These are the times in ``rollout.start``. If it is not set, they are ``rollout.starts`` times spread over the test split.

    Raises:
        UserError: if the record lacks an initial time or a state before it, or if the test split is too short for the forecasts; if
            forcing variables are prescribed, also if it lacks them at a step.
    """
    settings = recipe.rollout
    if settings.start is None:
        return record.starts(settings.starts, settings.steps)
    begins = initial_times(record.times, settings.start, "the record", record.past_states)
    if record.forcing_variables and settings.forcings == "prescribed":
        steps = begins[:, None] + STEP * np.arange(settings.steps)
        if (missing := steps[~np.isin(steps, record.times)]).size:
            more = f" and {missing.size - 1} more times of the forecasts" if missing.size > 1 else ""
            raise UserError(
                f"rollout.forcings: prescribed, but the record lacks {', '.join(record.forcing_variables)} at "
                f"{time_text(missing[0])}{more}; hold them instead"
            )
    return np.searchsorted(record.times, begins)


def initial_times_in_words(begins: NDArray[np.datetime64], settings: Rollout) -> str:
    """The initial times in words, and how many were asked for if the test split has fewer."""
    first, last = map(time_text, begins[[0, -1]])
    ends = first if len(begins) == 1 else f"{first} to {last}"
    if settings.start is None and len(begins) < settings.starts:
        return f"{len(begins)} of the {settings.starts} asked for (the test split has no more), {ends}"
    return first if len(begins) == 1 else f"{len(begins)}, {ends}"
