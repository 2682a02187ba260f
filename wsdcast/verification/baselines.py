"""Forecasts that cost nothing, which every other has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.truth import Truth

PERSISTENCE, CLIMATOLOGY = "persistence", "climatology"
CLIMATOLOGY_MEMBERS = 50


def climatology(truth: Truth) -> NDArray[np.float32]:
    """Past states as members, at most 50 evenly spread; the same whatever the start, (member, channel, latitude, longitude).

    On a short record this is the best honest substitute for the same days of other years.
    """
    chosen = np.unique(np.linspace(0, truth.past.size - 1, min(CLIMATOLOGY_MEMBERS, truth.past.size)).round().astype(int))
    states = truth.read(truth.past[chosen])
    return states[np.isfinite(states).all(axis=(1, 2, 3))]
