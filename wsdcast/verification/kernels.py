"""Scores of one ensemble at one time, each a few lines that read like its formula.

Ensembles are (member, ...), truth is (...); results keep the shape of the truth. Averages over area and time are taken elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import properscoring
from numpy.typing import NDArray

from wsdcast.data.grid import Grid

Field = NDArray[np.floating]

EARTH_RADIUS = 6367.5e3
"""m, as in WeatherBench 2's spectra."""

AT_ONCE = 256
"""Points that one thread takes at a time."""


class Ranked(NamedTuple):
    """What the members sorted once tell at every point.

    Attributes:
        members: how many there are.
        error: mean |X - y|.
        difference: sum_i (2 i - M - 1) X_(i), half the sum of |X - X'| over all pairs.
        mean: of the members.
        squares: sum of their squared distances from it.
        below: how many are below the truth.
        equal: how many are equal to it.
    """

    members: int
    error: Field
    difference: Field
    mean: Field
    squares: Field
    below: NDArray[np.intp]
    equal: NDArray[np.intp]


def ranked(ensemble: Field, truth: Field) -> Ranked:
    """Sort the members at each point, and take from that what CRPS, spread, error of the mean and rank need, in one pass."""
    found, counts = _ranked(ensemble.reshape(ensemble.shape[0], -1), truth.reshape(-1))
    fields = (part.reshape(truth.shape) for part in (*found, *counts))
    return Ranked(ensemble.shape[0], *fields)


@numba.njit(parallel=True, cache=True, nogil=True)
def _ranked(ensemble: Field, truth: Field) -> tuple[Field, NDArray[np.intp]]:
    members, points = ensemble.shape
    found, counts = np.empty((4, points)), np.empty((2, points), dtype=np.intp)
    for block in numba.prange((points + AT_ONCE - 1) // AT_ONCE):
        values = np.empty(members)
        for point in range(block * AT_ONCE, min(points, (block + 1) * AT_ONCE)):
            y = np.float64(truth[point])
            error = total = 0.0
            below = equal = 0
            for member in range(members):
                value = np.float64(ensemble[member, point])
                values[member] = value
                error += abs(value - y)
                total += value
                below += int(value < y)
                equal += int(value == y)
            values.sort()
            mean = total / members
            difference = squares = 0.0
            for i in range(members):
                difference += (2 * i + 1 - members) * values[i]
                squares += (values[i] - mean) ** 2
            found[0, point], found[1, point], found[2, point], found[3, point] = error / members, difference, mean, squares
            counts[0, point], counts[1, point] = below, equal
    return found, counts


def fair_crps(of: Ranked) -> Field:
    """Continuous ranked probability score, unbiased in the number of members (Zamo and Naveau 2018; Ferro 2014).

    mean |X - y| - 1/2 mean |X - X'| over distinct pairs. One member has no pairs, and its score is the absolute error.
    """
    return of.error if of.members == 1 else of.error - of.difference / (of.members * (of.members - 1))


def standard_crps(of: Ranked) -> Field:
    """CRPS of the empirical distribution: falls with the number of members even where the forecast is as good."""
    return of.error - of.difference / of.members**2


def variance(of: Ranked) -> Field:
    """Variance of the members with M - 1 in the denominator; zero for one member."""
    return of.squares / max(1, of.members - 1)


def squared_error(of: Ranked, truth: Field) -> Field:
    """Of the ensemble mean."""
    return (of.mean - truth) ** 2


def debiased_squared_error(of: Ranked, truth: Field) -> Field:
    """Squared error of the ensemble mean less what the finite number of members adds to it, (mean - y)^2 - variance / M."""
    return squared_error(of, truth) - variance(of) / of.members


def ranks(of: Ranked, seed: int = 0) -> NDArray[np.intp]:
    """How many members are below the truth; among those equal to it the truth takes a random place."""
    return of.below + np.random.default_rng(seed).integers(0, of.equal + 1)


def energy_score(ensemble: Field, truth: Field, weights: Field) -> float:
    """Energy score of whole fields, fair (Gneiting and Raftery 2007, Eq. 22): CRPS with the norm in the place of the absolute value.

    mean |X - y| - 1/2 mean |X - X'| over distinct pairs, |x|^2 being the weighted sum of squares over all points and channels.

    Args:
        ensemble: (member, channel, point).
        truth: (channel, point).
        weights: (point,), of sum 1.
    """
    members = ensemble.shape[0]
    scaled = ((ensemble - truth) * np.sqrt(weights)).reshape(members, -1).astype(np.float64)
    products = scaled @ scaled.T
    squared = np.diag(products)
    error = np.sqrt(squared).mean()
    if members == 1:
        return float(error)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * products, 0))
    return float(error - distances.sum() / (2 * members * (members - 1)))


def variogram_score(ensemble: Field, truth: Field, lag: int) -> Field:
    """Variogram score of order 1/2 (Scheuerer and Hamill 2015) of each point and the one ``lag`` points east of it.

    (|y - y'|^(1/2) - mean |X - X'|^(1/2))^2: whether differences between places are as large as in the truth.
    """
    return (_variogram(truth, lag) - np.mean([_variogram(member, lag) for member in ensemble], axis=0)) ** 2


def _variogram(field: Field, lag: int) -> Field:
    return np.sqrt(np.abs(np.roll(field, -lag, axis=-1) - field))


def brier_score(ensemble: Field, truth: Field, threshold: float) -> tuple[Field, Field, Field]:
    """Squared error of the probability that the threshold is exceeded; beside it that probability and whether it was, 0 or 1."""
    probability, observed = (ensemble > threshold).mean(axis=0), (truth > threshold).astype(float)
    return properscoring.threshold_brier_score(truth, np.moveaxis(ensemble, 0, -1), threshold), probability, observed


def zonal_power(field: Field, grid: Grid) -> Field:
    """Zonal energy spectrum as WeatherBench 2 defines it, averaged over the latitudes that are no pole rows.

    With F the Fourier coefficients along a circle of circumference C, the energy at wavenumber k is C |F_k|^2, doubled for k > 0, so
    that its sum over k is C times the mean square on the circle.

    Args:
        field: (..., latitude, longitude).

    Returns:
        (..., wavenumber) for 0 to longitudes / 2.
    """
    rows = np.abs(grid.latitude) < 90
    circumference = 2 * np.pi * EARTH_RADIUS * np.cos(np.deg2rad(grid.latitude[rows]))
    coefficients = np.fft.rfft(field[..., rows, :], axis=-1, norm="forward")
    # The highest wavenumber of an even number of points stands alone, as wavenumber 0 does.
    times = np.full(coefficients.shape[-1], 2.0)
    times[0] = 1.0
    if field.shape[-1] % 2 == 0:
        times[-1] = 1.0
    return (circumference[:, None] * np.abs(coefficients) ** 2).mean(axis=-2) * times
