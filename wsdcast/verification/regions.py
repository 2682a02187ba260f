"""The regions of WeatherBench 2, as weights for area means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import Grid

REGIONS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "globe": ((-90, 90), (0, 360)),
    "tropics": ((-20, 20), (0, 360)),
    "northern extratropics": ((20, 90), (0, 360)),
    "southern extratropics": ((-90, -20), (0, 360)),
    "Europe": ((35, 75), (-12.5, 42.5)),
    "North America": ((25, 60), (240, 285)),
}
"""(south, north), (west, east) in degrees. A cell belongs to the region of its centre. Centres at 20 degrees are in the tropics only."""


def region_weights(grid: Grid, inside: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return the share of each cell in the area of each region, (region, latitude, longitude); NaN for a region without any cell.

    Args:
        grid: of the cells.
        inside: cells that count, (latitude, longitude); default: all.
    """
    weights = np.empty((len(REGIONS), *grid.shape))
    for weight, (name, ((south, north), (west, east))) in zip(weights, REGIONS.items(), strict=True):
        rows = (grid.latitude >= south) & (grid.latitude <= north)
        if "extratropics" in name:
            rows &= np.abs(grid.latitude) > 20
        columns = (grid.longitude - west) % 360 <= east - west
        weight[:] = np.where(rows, grid.area_weights, 0)[:, None] * columns
        if inside is not None:
            weight *= inside
        weight /= weight.sum() or np.nan
    return weights
