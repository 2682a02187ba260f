"""The part of the globe where forecasts and truth have values, for a land mask or a region is no gap: scores are of that part alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.ensembles import StoredForecast
from wsdcast.verification.regions import REGIONS, region_weights
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]
Inside = NDArray[np.bool_]

LOOKED_AT = 4
"""Starts, and lead times of each, that tell where a forecast has values."""


def defined(fields: Field) -> Inside:
    """Where any of some fields (..., channel, latitude, longitude) has both components, (latitude, longitude)."""
    there = np.isfinite(fields).all(axis=-3)
    return np.asarray(np.any(there, axis=tuple(range(there.ndim - 2))))


def spread(count: int) -> NDArray[np.intp]:
    """Positions of at most :data:`LOOKED_AT` of so many, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(LOOKED_AT, count)).round().astype(int))


def domain_of(forecast: StoredForecast, truth: Truth) -> Inside | None:
    """Points that have values in any member of some starts and lead times, and in the truth of any of these, (latitude, longitude).

    What a chunk that was lost leaves out of one start is there in others, and stays a gap. None if it is the whole globe, or nowhere.
    """
    ours, true = np.zeros((2, *truth.grid.shape), dtype=bool)
    for row in spread(forecast.times.size):
        for lead in spread(forecast.leads.size):
            ours |= defined(forecast.read(int(row), slice(int(lead), int(lead) + 1)))
            true |= defined(truth.at(forecast.times[row] + forecast.leads[[lead]]))
            if ours.all() and true.all():
                return None
    inside = ours & true
    return inside if inside.any() else None


def in_words(grid: Grid, inside: Inside) -> tuple[float, str]:
    """The share of the globe's area that is scored, and a line that says so and what has no scores there."""
    share = float((grid.area_weights[:, None] * inside).mean())
    whole, part = (np.isfinite(region_weights(grid, where).sum(axis=(1, 2))) for where in (None, inside))
    empty = [name for name, there, left in zip(REGIONS, whole, part, strict=True) if there and not left]
    without = f"; no point in {', '.join(empty)}" if empty else ""
    return share, (
        f"{100 * share:.3g} % of the globe, where forecast and truth have values{without}; spectra and kinetic energy need the whole globe"
    )
