"""Regridding between regular global grids: first-order conservative (exact on the sphere), bilinear or nearest.

On regular grids each method is a weighted sum over rows and a weighted sum over columns. So it needs two sparse matrices, one for each
axis. The conservative method gives a target cell the mean of the source over the area of the cell. Its weights separate because the
overlap of two cells is an overlap in longitude times an overlap in the sine of latitude. Wind components are averaged as two scalars, as
WeatherBench 2 does; docs/prepare.md says what that means next to the poles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from wsdcast.data.grid import Grid
from wsdcast.runs.errors import UserError

Method = Literal["conservative", "bilinear", "nearest"]


def regrid(
    fields: NDArray[np.floating],
    source: Grid,
    target: Grid,
    method: Method = "conservative",
    missing: Literal["refuse", "nan"] = "refuse",
) -> NDArray[np.floating]:
    """Return fields on another grid.

    Args:
        fields: (..., latitude, longitude) on ``source``, float32 or float64.
        source: grid of the fields.
        target: grid of the result.
        method: ``conservative`` keeps the global mean. ``bilinear`` and ``nearest`` read the source around each target point. If the
            source has no rows at the poles, a point beyond its last row takes the values of that row.
        missing: what happens to a target cell that needs a missing or infinite value: ``refuse`` raises an error, ``nan`` makes the
            cell NaN. Missing values are never filled in.

    Returns:
        (..., latitude, longitude) on ``target``, of the same precision.

    Raises:
        UserError: if the shape of ``fields`` is not that of ``source``, or if a target cell needs a missing value and ``missing`` is
            ``refuse``.
    """
    if fields.shape[-2:] != source.shape:
        raise UserError(f"fields of shape {fields.shape[-2:]} are not on the grid {source.name}, which has shape {source.shape}")
    if source == target:
        out = fields.copy()  # all methods give the fields themselves, bit for bit
    else:
        rows, columns = matrices(source, target, method, fields.dtype.str)
        out = np.empty((*fields.shape[:-2], *target.shape), dtype=fields.dtype)
        with np.errstate(invalid="ignore"):
            for index in np.ndindex(fields.shape[:-2]):
                out[index] = (columns @ (rows @ fields[index]).T).T
    if not np.isfinite(out).all():
        if missing == "refuse":
            raise UserError(f"missing values in the source leave {int((~np.isfinite(out)).sum())} of {out.size} target cells without one")
        out[np.isinf(out)] = np.nan
    return out


@lru_cache(maxsize=16)
def matrices(source: Grid, target: Grid, method: Method, dtype: str) -> tuple[csr_array, csr_array]:
    """Return the weights of source rows in target rows, (target latitude, source latitude), and those of columns. Each line sums to 1."""
    if method == "conservative":
        rows, columns = _row_overlaps(source, target), _column_overlaps(source, target)
    else:
        weights = _linear if method == "bilinear" else _nearest
        rows = weights(-source.latitude, -target.latitude)
        # Three turns of the source, so that every target longitude lies between two of its columns.
        turns = (source.longitude[None, :] + np.array([[-360.0], [0.0], [360.0]])).ravel()
        three_turns = weights(turns, target.longitude).tocoo()
        shape = (target.longitude.size, source.longitude.size)
        columns = csr_array((three_turns.data, (three_turns.row, three_turns.col % source.longitude.size)), shape=shape)
    return rows.astype(dtype), columns.astype(dtype)


def _row_overlaps(source: Grid, target: Grid) -> csr_array:
    return _normalised(_overlaps(-np.sin(np.deg2rad(source.latitude_bounds)), -np.sin(np.deg2rad(target.latitude_bounds))))


def _column_overlaps(source: Grid, target: Grid) -> csr_array:
    bounds, target_bounds = source.longitude_bounds, target.longitude_bounds
    return _normalised(sum(_overlaps(bounds + turn, target_bounds) for turn in (-360, 0, 360)))


def _overlaps(source: NDArray[np.float64], target: NDArray[np.float64]) -> csr_array:
    """Return how long the overlaps of the intervals between rising bounds are, (target, source)."""
    length = np.minimum(source[None, 1:], target[1:, None]) - np.maximum(source[None, :-1], target[:-1, None])
    # Rounding leaves tiny overlaps between cells that only touch. They would spread a missing value to its neighbours.
    length[length < 1e-12 * np.abs(source).max()] = 0.0
    return csr_array(length)


def _normalised(matrix: csr_array) -> csr_array:
    return csr_array(matrix.multiply(1 / matrix.sum(axis=1)[:, None]))


def _linear(source: NDArray[np.float64], target: NDArray[np.float64]) -> csr_array:
    """Return the weights of the two points of a rising ``source`` around each ``target``. Beyond an end, only the end point counts."""
    right = np.clip(np.searchsorted(source, target), 1, source.size - 1)
    weight = np.clip((target - source[right - 1]) / (source[right] - source[right - 1]), 0, 1)
    line = np.arange(target.size)
    entries = np.concatenate([1 - weight, weight]), (np.concatenate([line, line]), np.concatenate([right - 1, right]))
    matrix = csr_array(entries, shape=(target.size, source.size))
    matrix.eliminate_zeros()  # a missing value of weight 0 must not count
    return matrix


def _nearest(source: NDArray[np.float64], target: NDArray[np.float64]) -> csr_array:
    """Return weights of 1 at the point of a rising ``source`` nearest to each ``target``. Halfway between two, the lower point counts."""
    right = np.clip(np.searchsorted(source, target), 1, source.size - 1)
    chosen = np.where(target - source[right - 1] <= source[right] - target, right - 1, right)
    return csr_array((np.ones(target.size), (np.arange(target.size), chosen)), shape=(target.size, source.size))
