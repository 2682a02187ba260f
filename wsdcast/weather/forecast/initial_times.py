"""The initial times of forecasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.steps import STEP
from wsdcast.data.store.analysis import Analysis
from wsdcast.runs.errors import UserError
from wsdcast.runs.times import times_between
from wsdcast.weather.recipe import Recipe


def without_latest(recipe: Recipe, record: Analysis) -> Recipe:
    """The recipe with ``latest`` replaced by the last time of the record that has a state 6 h before it.

    Raises:
        UserError: if the record has no such time.
    """
    if recipe.rollout.start != "latest":
        return recipe
    possible = np.flatnonzero(np.diff(record.times) == STEP) + 1
    if not possible.size:
        raise UserError("--start latest: the record has no two states 6 h apart")
    return recipe.changed(rollout__start=str(record.times[possible[-1]].astype("datetime64[h]")))


def starts_of(recipe: Recipe, record: Analysis) -> NDArray[np.intp]:
    """Indices in the record of a recipe's initial times.

    These are the times in ``rollout.start``. If it is not set, they are ``rollout.starts`` times spread over the test split.

    Raises:
        UserError: if the record lacks an initial time or the state 6 h before it, or if the test split is too short for the forecasts.
    """
    settings = recipe.rollout
    if settings.start is None:
        return record.starts(settings.starts, settings.steps)
    requested = np.array(times_between(settings.start), dtype="datetime64[ns]")
    indices = np.searchsorted(record.times, requested).clip(1, record.times.size - 1)
    usable = (record.times[indices] == requested) & (record.times[indices - 1] == requested - STEP)
    if not usable.all():
        missing = requested[~usable]
        first, last = (time.astype("datetime64[h]") for time in record.times[[0, -1]])
        raise UserError(
            f"--start {settings.start}: the record lacks {missing.size} of {requested.size} initial times or the states 6 h before them; "
            f"the first is {missing[0].astype('datetime64[h]')}, and the record is from {first} to {last}"
        )
    return indices
