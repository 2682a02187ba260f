"""Scores of one ensemble at one time, each a few lines that read like its formula.

Ensembles are (member, ...), truth is (...); results keep the shape of the truth. Averages over area and time are taken elsewhere.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numba
import numpy as np
import properscoring
import scipy.fft
from numpy.typing import NDArray

from wsdcast.data.grid import EARTH_RADIUS, Grid

Field = NDArray[np.floating]

# Through OpenMP numba would change how many threads torch has, and with it the last bits of what is trained or forecast afterwards in the
# same process. Its own threads do not, but take one caller at a time.
numba.config.THREADING_LAYER = "workqueue"  # type: ignore[attr-defined]
ONE_AT_A_TIME = threading.Lock()

AT_ONCE = 128
"""Points that one thread takes at a time; their members fit into a core's nearest cache."""


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
    members = ensemble.shape[0]
    with ONE_AT_A_TIME:
        found, counts = _ranked(ensemble.reshape(members, -1), truth.reshape(-1), sorting_network(members))
    fields = (part.reshape(truth.shape) for part in (*found, *counts))
    return Ranked(members, *fields)


def sorting_network(count: int) -> NDArray[np.intp]:
    """Pairs (first, second) that sort any ``count`` values when each in turn is put in order: Batcher's merge exchange (Knuth, 5.2.2 M).

    The same comparisons whatever the values, so that a processor makes them for many points at once: for 50 members five times as fast
    as sorting each point by itself.
    """
    pairs = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    step = top
    while step and count > 1:
        distance, rest, stride = step, 0, top
        while True:
            pairs += [(i, i + distance) for i in range(count - distance) if i & step == rest]
            if stride == step:
                break
            distance, rest, stride = stride - step, step, stride // 2
        step //= 2
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


@numba.njit(parallel=True, cache=True, nogil=True)
def _ranked(ensemble: Field, truth: Field, network: NDArray[np.intp]) -> tuple[Field, NDArray[np.intp]]:
    members, points = ensemble.shape
    found, counts = np.zeros((4, points)), np.zeros((2, points), dtype=np.intp)
    for block in numba.prange((points + AT_ONCE - 1) // AT_ONCE):
        here = slice(block * AT_ONCE, min(points, (block + 1) * AT_ONCE))
        x, y = ensemble[:, here].copy(), truth[here].astype(np.float64)
        error, difference, mean, squares = found[0, here], found[1, here], found[2, here], found[3, here]
        below, equal = counts[0, here], counts[1, here]
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
                one, other = x[first, i], x[second, i]
                swap = other < one
                x[first, i], x[second, i] = other if swap else one, one if swap else other
        for member in range(members):
            for i in range(y.size):
                difference[i] += (2 * member + 1 - members) * np.float64(x[member, i])
                squares[i] += (np.float64(x[member, i]) - mean[i]) ** 2
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
    """Variance of the members with M - 1 in the denominator; NaN for one member, which has none."""
    return of.squares / (of.members - 1) if of.members > 1 else np.full_like(of.squares, np.nan)


def squared_error(of: Ranked, truth: Field) -> Field:
    """Of the ensemble mean."""
    return (of.mean - truth) ** 2


def debiased_squared_error(of: Ranked, truth: Field) -> Field:
    """Squared error of the ensemble mean less what the finite number of members adds to it, (mean - y)^2 - variance / M."""
    return squared_error(of, truth) - variance(of) / of.members


def ranks(of: Ranked) -> NDArray[np.intp]:
    """How many members are below the truth; among those equal to it the truth takes a random place."""
    return of.below + np.random.default_rng(0).integers(0, of.equal + 1)


def energy_scores(ensemble: Field, truth: Field, weights: Field) -> Field:
    """Energy score of whole fields, fair (Gneiting and Raftery 2007, Eq. 22), in each of several regions.

    mean |X - y| - 1/2 mean |X - X'| over distinct pairs: CRPS with the norm in the place of the absolute value, |x|^2 being the weighted
    sum of squares over all channels and points.

    Args:
        ensemble: (member, channel, latitude, longitude).
        truth: (channel, latitude, longitude).
        weights: (region, latitude, longitude), of sum 1; the score is NaN where they are.
    """
    members = ensemble.shape[0]
    errors = ensemble.astype(np.float64) - truth
    scores = np.full(weights.shape[0], np.nan)
    for region, weight in enumerate(weights):
        inside = weight > 0
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if rows.size:
            box = slice(rows[0], rows[-1] + 1)
            part = errors[:, :, box] if columns.size == inside.shape[1] else errors[:, :, box][..., columns]
            scaled = (part * np.sqrt(weight[box, columns])).reshape(members, -1)
            scores[region] = _energy_score(scaled @ scaled.T)
    return scores


def _energy_score(products: Field) -> float:
    """From the products of all pairs of members' errors, (member, member)."""
    members, squared = len(products), np.diag(products)
    error = np.sqrt(squared).mean()
    if members == 1:
        return float(error)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * products, 0))
    return float(error - distances.sum() / (2 * members * (members - 1)))


def variogram_score(ensemble: Field, truth: Field, lag: int) -> Field:
    """Variogram score of order 1/2 (Scheuerer and Hamill 2015) of each point and the one ``lag`` points east of it.

    (|y - y'|^(1/2) - mean |X - X'|^(1/2))^2: whether differences between places are as large as in the truth.
    """
    return (_variogram(truth, lag) - sum(_variogram(member, lag) for member in ensemble) / len(ensemble)) ** 2


def _variogram(field: Field, lag: int) -> Field:
    return np.sqrt(np.abs(np.roll(field, -lag, axis=-1) - field))


def brier_score(ensemble: Field, truth: Field, threshold: float) -> tuple[Field, Field, Field]:
    """Squared error of the probability that the threshold is exceeded; beside it that probability and whether it was, 0 or 1."""
    probability, observed = (ensemble > threshold).mean(axis=0), (truth > threshold).astype(float)
    return properscoring.brier_score(observed, probability), probability, observed


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
    coefficients = scipy.fft.rfft(field[..., rows, :].astype(np.float64), axis=-1, norm="forward", workers=-1)
    # The highest wavenumber of an even number of points stands alone, as wavenumber 0 does.
    times = np.full(coefficients.shape[-1], 2.0)
    times[0] = 1.0
    if field.shape[-1] % 2 == 0:
        times[-1] = 1.0
    return (circumference[:, None] * np.abs(coefficients) ** 2).mean(axis=-2) * times
