"""Scores of one ensemble at one time, each a few lines that read like its formula.

Ensembles are (member, ...), truth is (...); results keep the shape of the truth. Averages over area and time are taken elsewhere.
"""

from __future__ import annotations

import numpy as np
import properscoring
from numpy.typing import NDArray

from wsdcast.data.grid import Grid

Field = NDArray[np.floating]

EARTH_RADIUS = 6367.5e3
"""m, as in WeatherBench 2's spectra."""


def fair_crps(ensemble: Field, truth: Field) -> Field:
    """Continuous ranked probability score, unbiased in the number of members (Zamo and Naveau 2018; Ferro 2014).

    mean |X - y| - 1/2 mean |X - X'| over distinct pairs, the latter from the sorted members: sum_i (2 i - M - 1) X_(i) / (M (M - 1)).
    One member has no pairs, and its score is the absolute error.
    """
    members = ensemble.shape[0]
    error = np.abs(ensemble - truth).mean(axis=0)
    if members == 1:
        return error
    rank = 2 * np.arange(1, members + 1) - members - 1
    return error - np.tensordot(rank, np.sort(ensemble, axis=0), axes=1) / (members * (members - 1))


def standard_crps(ensemble: Field, truth: Field) -> Field:
    """CRPS of the empirical distribution: falls with the number of members even where the forecast is as good."""
    return properscoring.crps_ensemble(truth, np.moveaxis(ensemble, 0, -1))


def debiased_squared_error(ensemble: Field, truth: Field) -> Field:
    """Squared error of the ensemble mean less what the finite number of members adds to it, (mean - y)^2 - variance / M."""
    error = (ensemble.mean(axis=0) - truth) ** 2
    return error if ensemble.shape[0] == 1 else error - variance(ensemble) / ensemble.shape[0]


def variance(ensemble: Field) -> Field:
    """Variance of the members with M - 1 in the denominator; zero for one member."""
    return np.zeros_like(ensemble[0]) if ensemble.shape[0] == 1 else ensemble.var(axis=0, ddof=1)


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
