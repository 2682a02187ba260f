"""From which times forecasts start."""

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
        UserError: if there is none.
    """
    if recipe.rollout.start != "latest":
        return recipe
    possible = np.flatnonzero(np.diff(record.times) == STEP) + 1
    if not possible.size:
        raise UserError("--start latest: the record has no two states 6 h apart")
    return recipe.changed(rollout__start=str(record.times[possible[-1]].astype("datetime64[h]")))


def starts_of(recipe: Recipe, record: Analysis) -> NDArray[np.intp]:
    """Indices in the record of the start times of a recipe: those it names, else ``starts`` of them spread over the test part.

    Raises:
        UserError: if the record has not all of them, or not the states 6 h before; or has no test part with so much truth.
    """
    settings = recipe.rollout
    if settings.start is None:
        return record.starts(settings.starts, settings.steps)
    wanted = np.array(times_between(settings.start), dtype="datetime64[ns]")
    found = np.searchsorted(record.times, wanted).clip(1, record.times.size - 1)
    there = (record.times[found] == wanted) & (record.times[found - 1] == wanted - STEP)
    if not there.all():
        missing = wanted[~there]
        raise UserError(
            f"--start {settings.start}: {missing.size} of {wanted.size} are not in the record with the state 6 h before, the first of them "
            f"{missing[0].astype('datetime64[h]')}; it is of {record.times[0].astype('datetime64[h]')} to "
            f"{record.times[-1].astype('datetime64[h]')}"
        )
    return found
