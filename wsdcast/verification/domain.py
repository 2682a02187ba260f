"""The part of the globe that is scored: the points at which forecast and truth have values.

Points that are masked, or outside a region, are not gaps. They are left out of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.winds import winds_of
from wsdcast.runs.positions import evenly_spread
from wsdcast.verification.regions import REGIONS, region_weights
from wsdcast.verification.truth import Truth

Field = NDArray[np.floating]
Inside = NDArray[np.bool_]

POSITIONS_READ = 4
"""Number of initial times, and of lead times of each, that are read to see where a forecast has values."""
NEARLY = 0.9
"""Share of the scored part of the globe that a channel must have. Some variables lack the poles, or a few cells."""


def defined(fields: Field) -> Inside:
    """Return at which points any of the fields (..., channel, latitude, longitude) has values, (channel, latitude, longitude)."""
    has_values = np.isfinite(fields)
    return np.asarray(np.any(has_values, axis=tuple(range(has_values.ndim - 3))))


def domains_of(forecast: StoredForecast, truth: Truth) -> Inside:
    """Return at which points both the forecast and the truth have values, bool (channel, latitude, longitude).

    Both components of a wind have the points at which both have values. A few initial times with truth, and a few lead times with truth of
    each, are read. A point counts if any of them, and any member, has values there. So a chunk that is missing at one initial time does not
    change the domain, and is treated as a gap.
    """
    of_forecast, of_truth = np.zeros((2, len(truth.variables), *truth.grid.shape), dtype=bool)
    has_truth = np.isin(forecast.times[:, None] + forecast.leads, truth.times)
    pairs = [(row, lead) for row in a_few(has_truth.any(axis=1)) for lead in a_few(has_truth[row])]
    for row, lead in pairs:
        of_forecast |= defined(forecast.read(int(row), slice(int(lead), int(lead) + 1)))
        of_truth |= defined(truth.at(forecast.times[row] + forecast.leads[[lead]]))
        if of_forecast.all() and of_truth.all():
            break
    domains = of_forecast & of_truth
    for wind in winds_of(truth.variables):
        u, v = truth.variables.index(wind.u), truth.variables.index(wind.v)
        domains[u] = domains[v] = domains[u] & domains[v]
    return domains


def a_few(chosen: ArrayLike) -> NDArray[np.intp]:
    """Return at most :data:`POSITIONS_READ` of the positions at which ``chosen`` (position,) is True, evenly spread."""
    positions = np.flatnonzero(chosen)
    return positions[evenly_spread(positions.size, POSITIONS_READ)]


def scored_domain(domains: Inside, variables: Sequence[str], grid: Grid) -> tuple[Inside | None, NDArray[np.bool_]]:
    """Return the part of the globe that is scored, and which channels are scored on it.

    It is that of the first wind, or else the largest. A channel that lacks more than a tenth of it, such as the temperature of the sea
    surface, is not scored. The others are scored where all of them have values.

    Args:
        domains: points with values, (channel, latitude, longitude).
        variables: names of the channels.
        grid: of the domains.

    Returns:
        The points, (latitude, longitude), None if these are all or none; and whether each channel is scored, (channel,).
    """
    areas = (domains * grid.area_weights[:, None]).sum(axis=(1, 2))
    winds = winds_of(variables)
    reference = variables.index(winds[0].u) if winds else int(np.argmax(areas))
    common = (domains & domains[reference]) * grid.area_weights[:, None]
    scored = common.sum(axis=(1, 2)) >= NEARLY * areas[reference]
    inside = domains[scored].all(axis=0)
    return (inside if inside.any() and not inside.all() else None), scored


def domain_in_words(grid: Grid, inside: Inside) -> tuple[float, str]:
    """Return the share of the globe's area that is scored, and a line that says so and names regions and scores that are missing."""
    share = float((grid.area_weights[:, None] * inside).mean())
    on_grid, scored = (np.isfinite(region_weights(grid, points).sum(axis=(1, 2))) for points in (None, inside))
    empty = [name for name, has_cells, has_scores in zip(REGIONS, on_grid, scored, strict=True) if has_cells and not has_scores]
    without = f"; no point in {', '.join(empty)}" if empty else ""
    return share, (
        f"{100 * share:.3g} % of the globe, where forecast and truth have values{without}; spectra and kinetic energy need the whole globe"
    )
