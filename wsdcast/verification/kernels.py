"""The formulas of the scores: one function for each, for one ensemble at one time.

The ensemble has shape (member, ...) and the truth (...); other shapes raise ValueError. Unless a docstring says otherwise, the score has
the shape of the truth: nothing is averaged over area or time in this module. Scores that treat each point by itself take the result of
:func:`ranked`, which sorts the members once for all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from wsdcast.data.grid import EARTH_RADIUS, Grid
from wsdcast.verification.machine_code import NUMBA_LOCK, machine_code
from wsdcast.verification.members import require_members, require_on_grid

Field = NDArray[np.floating]

POINTS_PER_BLOCK = 128
"""Number of points that a thread processes together. The members at these points fit into the first-level cache."""
POINTS_PER_PRODUCT = 1024
"""Number of points whose errors are multiplied together. Those of all members fit into the second-level cache."""


class Ranked(NamedTuple):
    """Sums over the members X at every point, from which the scores below are computed. X_(i) are the sorted members.

    Attributes:
        members: number of members M.
        truth: the truth y.
        error: mean |X - y|.
        difference: sum_i (2 i - M - 1) X_(i), half the sum of |X - X'| over all pairs.
        mean: mean of the members.
        squares: sum of (X - mean)^2.
        below: number of members below the truth.
        equal: number of members equal to the truth.
    """

    members: int
    truth: Field
    error: Field
    difference: Field
    mean: Field
    squares: Field
    below: NDArray[np.intp]
    equal: NDArray[np.intp]


def ranked(ensemble: Field, truth: Field) -> Ranked:
    """Return all that CRPS, variance, error of the mean and rank need. The members of each point are sorted only once."""
    ensemble, truth = np.asarray(ensemble), np.asarray(truth)  # of tensors and xarray's arrays
    require_members(ensemble, truth)
    with NUMBA_LOCK:
        sums, counts = _ranked(ensemble.reshape(len(ensemble), -1), truth.reshape(-1), sorting_network(len(ensemble)))
    return Ranked(len(ensemble), truth, *(field.reshape(truth.shape) for field in (*sums, *counts)))


def sorting_network(count: int) -> NDArray[np.intp]:
    """Return the index pairs, (pair, 2), of Batcher's merge exchange (Knuth, 5.2.2 M).

    Any ``count`` values are sorted once the two values of each pair have been put in order, pair after pair. The comparisons do not depend
    on the values, so the processor makes them for many points at once. For 50 members this is five times as fast as sorting each point by
    itself.
    """
    pairs = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    step = top
    while step and count > 1:
        distance, remainder, stride = step, 0, top
        while True:
            pairs += [(i, i + distance) for i in range(count - distance) if i & step == remainder]
            if stride == step:
                break
            distance, remainder, stride = stride - step, step, stride // 2
        step //= 2
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


@machine_code(parallel=True)
def _ranked(ensemble: Field, truth: Field, network: NDArray[np.intp]) -> tuple[Field, NDArray[np.intp]]:
    members, points = ensemble.shape
    sums, counts = np.zeros((4, points)), np.zeros((2, points), dtype=np.intp)
    for block in numba.prange((points + POINTS_PER_BLOCK - 1) // POINTS_PER_BLOCK):
        block_points = slice(block * POINTS_PER_BLOCK, min(points, (block + 1) * POINTS_PER_BLOCK))
        x, y = ensemble[:, block_points].copy(), truth[block_points].astype(np.float64)
        error, difference, mean, squares = sums[0, block_points], sums[1, block_points], sums[2, block_points], sums[3, block_points]
        below, equal = counts[0, block_points], counts[1, block_points]
        for member in range(members):
            for i in range(y.size):
                value = np.float64(x[member, i])
                error[i] += abs(value - y[i])
                mean[i] += value
                below[i] += int(value < y[i])
                equal[i] += int(value == y[i])
        error /= members
        mean /= members
        for pair in range(network.shape[0]):
            first, second = network[pair, 0], network[pair, 1]
            for i in range(y.size):
                a, b = x[first, i], x[second, i]
                swap = b < a
                x[first, i], x[second, i] = b if swap else a, a if swap else b
        for member in range(members):
            for i in range(y.size):
                difference[i] += (2 * member + 1 - members) * np.float64(x[member, i])
                squares[i] += (np.float64(x[member, i]) - mean[i]) ** 2
    return sums, counts


def fair_crps(ensemble: Ranked) -> Field:
    """Return the continuous ranked probability score, unbiased in the number of members (Zamo and Naveau 2018; Ferro 2014).

    mean |X - y| - 1/2 mean |X - X'| over distinct pairs. With one member there is no pair, and the score is the absolute error.
    """
    if ensemble.members == 1:
        return ensemble.error
    return ensemble.error - ensemble.difference / (ensemble.members * (ensemble.members - 1))


def standard_crps(ensemble: Ranked) -> Field:
    """Return the CRPS of the empirical distribution, mean |X - y| - 1/2 mean |X - X'| over all pairs, including (X, X).

    It falls with the number of members even if the forecast does not get better.
    """
    return ensemble.error - ensemble.difference / ensemble.members**2


def variance(ensemble: Ranked) -> Field:
    """Return the variance of the members with M - 1 in the denominator; NaN for a single member."""
    return ensemble.squares / (ensemble.members - 1) if ensemble.members > 1 else np.full_like(ensemble.squares, np.nan)


def squared_error(ensemble: Ranked) -> Field:
    """Return the squared error of the ensemble mean, (mean - y)^2."""
    return (ensemble.mean - ensemble.truth) ** 2


def squared_error_debiased(ensemble: Ranked) -> Field:
    """Return (mean - y)^2 - variance / M, the squared error without the part that is due to the finite number of members."""
    return squared_error(ensemble) - variance(ensemble) / ensemble.members


def bias(ensemble: Ranked) -> Field:
    """Return the error of the ensemble mean, mean - y."""
    return ensemble.mean - ensemble.truth


def rank_shares(ensemble: Ranked, weights: Field) -> Field:
    """Return the share of each region in which so many members are below the truth, (channel, region, rank).

    Where members equal the truth, each rank that it may have among them gets the same part of the area.

    Args:
        ensemble: of fields (channel, latitude, longitude).
        weights: (region, latitude, longitude), with sum 1 over each region.
    """
    regions, count = weights.reshape(len(weights), -1), ensemble.members + 1
    shares = np.empty((len(ensemble.below), len(regions), count))
    for channel, region in np.ndindex(shares.shape[:2]):
        below, equal, weight = ensemble.below[channel].ravel(), ensemble.equal[channel].ravel(), regions[region]
        (tied,) = np.nonzero(equal)
        first, after, each = below[tied], (below + equal + 1)[tied], (weight / (equal + 1))[tied]
        of_ties = np.cumsum(np.bincount(first, each, count + 1) - np.bincount(after, each, count + 1))
        shares[channel, region] = np.bincount(below, weight * (equal == 0), count) + of_ties[:-1]
    return shares


def energy_scores(ensemble: Field, truth: Field, weights: Field) -> Field:
    """Return the fair energy score of whole fields (Gneiting and Raftery 2007, Eq. 22) in each region, (region,).

    mean |X - y| - 1/2 mean |X - X'| over distinct pairs, as for the fair CRPS, but with a norm instead of the absolute value: |x|^2 is the
    weighted sum of squares over all channels and points. It is computed in double precision from the scalar products of all errors, because
    members may differ far less from each other than from the truth. Points that belong to the same regions are multiplied only once.

    Args:
        ensemble: (member, channel, latitude, longitude).
        truth: (channel, latitude, longitude).
        weights: (region, latitude, longitude), with sum 1 over each region, and proportional where regions overlap. A region whose weights
            are NaN has the score NaN.
    """
    require_members(ensemble, truth, weights.shape[1:])
    members, regions = ensemble.shape[0], weights.shape[0]
    fields, true, shares = (field.reshape(*field.shape[:-2], -1) for field in (ensemble, truth, weights))
    inside = shares > 0
    membership = 2 ** np.arange(regions) @ inside
    products = np.zeros((regions, members, members))
    for common in np.unique(membership[membership > 0]):
        points = np.flatnonzero(membership == common)
        own = np.flatnonzero(inside[:, points[0]])
        roots, of_points = np.sqrt(shares[own[0]]), np.zeros((members, members))
        for first in range(0, points.size, POINTS_PER_PRODUCT):
            errors = _scaled_errors(fields, true, roots, points[first : first + POINTS_PER_PRODUCT])
            of_points += errors @ errors.T
        area = shares[:, points].sum(axis=1)
        products[own] += (area[own] / area[own[0]])[:, None, None] * of_points
    return np.array([_energy_score(each) if cells.any() else np.nan for each, cells in zip(products, inside, strict=True)])


@machine_code()
def _scaled_errors(ensemble: Field, truth: Field, scale: Field, points: NDArray[np.intp]) -> Field:
    """Return the errors at some points, each times the scale of its point, (member, channels x points)."""
    members, channels, count = ensemble.shape[0], ensemble.shape[1], points.size
    errors = np.empty((members, channels * count))
    for member in range(members):
        for channel in range(channels):
            for i in range(count):
                point = points[i]
                error = np.float64(ensemble[member, channel, point]) - np.float64(truth[channel, point])
                errors[member, channel * count + i] = error * scale[point]
    return errors


def _energy_score(products: Field) -> float:
    """Return the fair energy score, given the scalar products of all pairs of members' errors, (member, member)."""
    members, squared = len(products), np.diag(products)
    error = np.sqrt(squared).mean()
    if members == 1:
        return float(error)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * products, 0))
    return float(error - distances.sum() / (2 * members * (members - 1)))


def variogram_score(ensemble: Field, truth: Field, lag: int) -> Field:
    """Return the variogram score of order 1/2 (Scheuerer and Hamill 2015) of each point and the point ``lag`` columns east of it.

    (|y - y'|^(1/2) - mean |X - X'|^(1/2))^2, where y' and X' are at the eastern point. It measures whether differences between points are
    as large as in the truth.
    """
    require_members(ensemble, truth)
    columns = truth.shape[-1]
    with NUMBA_LOCK:
        of_members = _mean_variogram(ensemble.reshape(len(ensemble), -1, columns), lag % columns)
        of_truth = _mean_variogram(truth.reshape(1, -1, columns), lag % columns)
    return ((of_truth - of_members) ** 2).reshape(truth.shape)


@machine_code(parallel=True)
def _mean_variogram(ensemble: Field, lag: int) -> Field:
    """Return the mean of |X - X'|^(1/2) over members, (row, column), of members (member, row, column)."""
    members, rows, columns = ensemble.shape
    total = np.zeros((rows, columns), ensemble.dtype)
    for row in numba.prange(rows):
        for member in range(members):
            circle = ensemble[member, row]
            for column in range(columns - lag):
                total[row, column] += np.sqrt(np.abs(circle[column + lag] - circle[column]))
            for column in range(columns - lag, columns):
                total[row, column] += np.sqrt(np.abs(circle[column + lag - columns] - circle[column]))
        for column in range(columns):
            total[row, column] /= members
    return total


def brier_score(ensemble: Field, truth: Field, threshold: float) -> tuple[Field, Field, Field]:
    """Return the Brier score (p - o)^2, the probability p and the outcome o.

    p is the share of members above the threshold. o is 1 where the truth is above it, else 0.
    """
    import properscoring  # not before it is needed: importing it compiles functions for a second

    require_members(ensemble, truth)
    probability, observed = (ensemble > threshold).mean(axis=0), (truth > threshold).astype(float)
    return properscoring.brier_score(observed, probability), probability, observed


def zonal_power(field: Field, grid: Grid) -> Field:
    """Return the zonal energy spectrum as WeatherBench 2 defines it, averaged over all latitudes except the pole rows.

    Let F be the Fourier coefficients along a latitude circle of circumference C. The energy at wavenumber k is C |F_k|^2, doubled for k >
    0. Its sum over k is C times the mean square on the circle.

    The transform is in double precision. In single precision its rounding errors would be as large as those of the fields themselves.

    Args:
        field: (..., latitude, longitude).

    Returns:
        (..., wavenumber) for 0 to longitudes / 2.
    """
    require_on_grid("the field", field, grid.shape)
    (without_poles,), longitudes = np.nonzero(np.abs(grid.latitude) < 90), field.shape[-1]
    rows = slice(without_poles[0], without_poles[-1] + 1)
    circumference = 2 * np.pi * EARTH_RADIUS * np.cos(np.deg2rad(grid.latitude[rows]))
    # rfft leaves out the negative wavenumbers, so the others count twice. Wavenumber 0 has no negative counterpart, and neither has the
    # highest one if the number of points is even. WeatherBench 2 counts that twice all the same, which changes no ratio.
    factor = np.full(longitudes // 2 + 1, 2.0)
    factor[0] = 1.0
    if longitudes % 2 == 0:
        factor[-1] = 1.0
    fields = field.reshape(-1, *field.shape[-2:])
    power = np.empty((len(fields), factor.size))
    for number, one in enumerate(fields):  # a single field stays in the cache
        coefficients = scipy.fft.rfft(one[rows].astype(np.float64), axis=-1, norm="forward")
        means = circumference / circumference.size @ np.square(coefficients.view(np.float64))  # of real and imaginary parts in turn
        power[number] = means[::2] + means[1::2]
    return (power * factor).reshape(*field.shape[:-2], -1)
