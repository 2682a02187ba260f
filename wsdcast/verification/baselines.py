"""Forecasts that cost nothing, in the shape of ensembles (member, lead, channel, latitude, longitude)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.analysis import Analysis

CLIMATOLOGY_MEMBERS = 50


def persistence(record: Analysis, now: int, leads: int) -> NDArray[np.float32]:
    """The state now, unchanged: one member."""
    state = record.wind[now]
    return np.broadcast_to(state, (1, leads, *state.shape))


def climatology(record: Analysis) -> NDArray[np.float32]:
    """States of the training part as members, at most 50 evenly spread over it; the same whatever the start, (member, channel, ...).

    On a short record this is the best honest substitute for the same days of other years.
    """
    training = np.flatnonzero(record.part("train"))
    chosen = np.unique(np.linspace(0, training.size - 1, min(CLIMATOLOGY_MEMBERS, training.size)).round().astype(int))
    return record.wind[training[chosen]]
