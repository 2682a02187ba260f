"""Spectra beside those of the truth, and how long the waves in them are."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from wsdcast.data.grid import EARTH_RADIUS

ENERGETIC = 1e-3
"""Waves with a smaller share of the truth's energy are left out where spectra are summed up in one number."""


def compared(power: xr.DataArray, truth: xr.DataArray, along: str, name: str, whole: xr.DataArray | None = None) -> xr.Dataset:
    """How a mean spectrum differs from the truth's.

    Args:
        power, truth: spectra without wave 0, averaged over all that is to be averaged: ratios come last.
        along: their dimension of waves.
        name: what results are called.
        whole: the spectrum that ``truth`` is a part of; default: itself.

    Returns:
        ``{name}_ratio`` by wave; and over the waves that hold more than a thousandth of the whole energy the largest, the mean and the
        sum of |1 - ratio|, ``{name}_deviation``, ``{name}_deviation_mean`` and ``{name}_deviation_sum``, missing where there is none, and
        how many waves these are, ``energetic_{along}s``.
    """
    ratio = power / truth
    energetic = truth > ENERGETIC * (truth if whole is None else whole).sum(along)
    deviation = abs(1 - ratio).where(energetic)
    return xr.Dataset(
        {
            f"{name}_ratio": ratio,
            f"{name}_deviation": deviation.max(along),
            f"{name}_deviation_mean": deviation.mean(along),
            f"{name}_deviation_sum": deviation.sum(along, min_count=1),
            f"energetic_{along}s": energetic.sum(along),
        }
    )


def wavelength_of_degree(degree: ArrayLike) -> NDArray[np.float64]:
    """Kilometres from crest to crest of a spherical harmonic, 2 pi R / sqrt(l (l + 1)) (Jeans' relation); infinite for degree 0."""
    degree = np.asarray(degree, dtype=np.float64)
    return _wavelength(np.sqrt(degree * (degree + 1)))


def wavelength_of_wavenumber(wavenumber: ArrayLike) -> NDArray[np.float64]:
    """Kilometres from crest to crest along the equator, 2 pi R / k; shorter by cos(latitude) elsewhere, infinite for wavenumber 0."""
    return _wavelength(np.asarray(wavenumber, dtype=np.float64))


def _wavelength(waves: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return 2 * np.pi * EARTH_RADIUS / 1000 / waves
