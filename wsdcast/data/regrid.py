"""First-order conservative regridding between regular grids of the globe, exact on the sphere.

A target cell gets the mean of the source over the cell's area. On regular grids the overlap of two cells is the product of an overlap in
longitude and one in the sine of latitude, so the whole is two sparse matrices, one for each axis. Wind components are averaged as two
scalars, as WeatherBench 2 does: next to a pole, where u and v turn with the meridian, that is not the mean of the vector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from wsdcast.data.grid import Grid


def conservative(fields: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.floating]:
    """Area means over the cells of ``target``.

    Args:
        fields: (..., latitude, longitude) on ``source``. A missing value (NaN) makes every target cell it touches missing.

    Returns:
        (..., latitude, longitude) on ``target``, of the same precision.
    """
    rows, columns = latitude_matrix(source, target), longitude_matrix(source, target)
    rows, columns = rows.astype(fields.dtype), columns.astype(fields.dtype)
    out = np.empty((*fields.shape[:-2], *target.shape), dtype=fields.dtype)
    for index in np.ndindex(fields.shape[:-2]):
        out[index] = (columns @ (rows @ fields[index]).T).T
    return out


def latitude_matrix(source: Grid, target: Grid) -> csr_array:
    """Share of each source row in each target row, (target latitude, source latitude), rows summing to 1."""
    return _overlaps(-np.sin(np.deg2rad(source.latitude_bounds)), -np.sin(np.deg2rad(target.latitude_bounds)))


def longitude_matrix(source: Grid, target: Grid) -> csr_array:
    """Share of each source column in each target column, (target longitude, source longitude), rows summing to 1."""
    bounds, target_bounds = source.longitude_bounds, target.longitude_bounds
    turns = sum(_overlaps(bounds + turn, target_bounds, normalise=False) for turn in (-360, 0, 360))
    return _normalised(turns)


def _overlaps(source: NDArray[np.float64], target: NDArray[np.float64], normalise: bool = True) -> csr_array:
    """Lengths of the overlaps of intervals between rising bounds, (target, source)."""
    length = np.minimum(source[None, 1:], target[1:, None]) - np.maximum(source[None, :-1], target[:-1, None])
    # Bounds that agree but for rounding leave slivers; they would spread a missing value to cells that it does not touch.
    length[length < 1e-12 * np.abs(source).max()] = 0.0
    return _normalised(csr_array(length)) if normalise else csr_array(length)


def _normalised(matrix: csr_array) -> csr_array:
    return csr_array(matrix.multiply(1 / matrix.sum(axis=1)[:, None]))
