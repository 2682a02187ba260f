"""Comparison of power spectra with those of the truth, and the wavelengths that belong to wavenumbers and degrees."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from wsdcast.data.grid import EARTH_RADIUS

ENERGETIC = 1e-3
"""A wave is energetic if it has more than this share of the truth's energy. Only these count when a spectrum is reduced to one number."""


def compared(power: xr.DataArray, truth: xr.DataArray, along: str, name: str, whole: xr.DataArray | None = None) -> xr.Dataset:
    """Return the ratio of a mean spectrum to that of the truth, and its deviation from 1.

    Args:
        power, truth: spectra without wave 0, after all averaging: ratios are taken last.
        along: their dimension of wavenumbers or degrees.
        name: first part of the names of the results.
        whole: the spectrum of which ``truth`` is a part, for the share of the energy; default: ``truth``.

    Returns:
        ``{name}_ratio`` by wave. ``{name}_deviation``, ``{name}_deviation_mean`` and ``{name}_deviation_sum``: the largest, the mean and
        the sum of |1 - ratio| over the energetic waves (:data:`ENERGETIC`), NaN if there are none. ``energetic_{along}s``: their number.
    """
    ratio = power / truth.where(truth > 0)
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
    """Return the wavelength of spherical harmonics of degree l in km, 2 pi R / sqrt(l (l + 1)) (Jeans' relation); infinite for degree 0."""
    degree = np.asarray(degree, dtype=np.float64)
    return _wavelength(np.sqrt(degree * (degree + 1)))


def wavelength_of_wavenumber(wavenumber: ArrayLike) -> NDArray[np.float64]:
    """Return the wavelength at the equator of zonal wavenumber k in km, 2 pi R / k; infinite for wavenumber 0.

    At other latitudes it is shorter by the factor cos(latitude).
    """
    return _wavelength(np.asarray(wavenumber, dtype=np.float64))


def _wavelength(waves: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return 2 * np.pi * EARTH_RADIUS / 1000 / waves
