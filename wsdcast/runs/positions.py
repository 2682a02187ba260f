"""Positions that are chosen evenly out of many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def evenly_spread(count: int, most: int) -> NDArray[np.intp]:
    """Return at most ``most`` positions, increasing and evenly spread from 0 to ``count - 1``, (position,)."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.intp))
