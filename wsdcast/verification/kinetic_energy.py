"""Kinetic energy spectrum of wind by spherical-harmonic degree, for the rotational and the divergent part.

On the unit sphere wind is (d chi / d east - d psi / d north, d chi / d north + d psi / d east). The velocity potential chi gives the
divergent part, the stream function psi the rotational part. Both are sums of spherical harmonics. The gradient of a harmonic of degree l,
divided by sqrt(l (l + 1)), has mean square 1 over the sphere. So the energy of degree l is half the sum of the squares of its coefficients.

For each zonal wavenumber, least squares weighted by area give the coefficients whose wind is closest to the given wind. For wind of degrees
up to :func:`truncation` this is exact to rounding, on equiangular grids too. There a quadrature with the best possible weights is exact
only to half of that degree. The least-squares problem is well conditioned (condition number below 2), so noise is not amplified.

What the grid cannot resolve is aliased to the highest degrees, as in any spectrum of samples. Wind with energy proportional to l^-3 that is
sampled without being averaged over cells has 15 % too much energy at five sixths of the truncation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import legendre_tables, product_with_complex
from wsdcast.data.variables import DEFAULT
from wsdcast.data.winds import by_wind, winds_of
from wsdcast.verification.spectra import ENERGETIC, compared

Field = NDArray[np.floating]

PARTS = ("rotational", "divergent", "total")

FIELDS_PER_BLOCK = 64
"""Number of fields that are transformed together, so that they stay in the processor's cache."""


def truncation(grid: Grid) -> int:
    """Return the highest degree that the grid can tell from all lower ones: 119 on 240x121, 31 on 64x32.

    Two conditions limit it. Along a meridian, wind is a sum of sines and cosines of the colatitude, and n rows determine n of these. On the
    pole rows the sines are zero, so these two rows do not count. Along a latitude circle, a wave needs two points.
    """
    rows, columns = grid.shape
    return min(rows - 2 if grid.includes_poles else rows - 1, (columns - 1) // 2)


def kinetic_energy(wind: Field, grid: Grid) -> tuple[Field, Field]:
    """Return the kinetic energy of the rotational and of the divergent part by degree, m2 s-2.

    The sum of both over degrees is the area mean of (u^2 + v^2) / 2, except for wind of degrees above :func:`truncation`. At a pole u and v
    depend on the longitude along which one arrives. There only zonal wavenumber 1 describes a vector, and the other wavenumbers of pole
    rows are ignored.

    Args:
        wind: (..., channel, latitude, longitude), u and v, m s-1.
        grid: of the fields.

    Returns:
        Two arrays (..., degree) in float64. They begin with degree 0, whose energy is 0.
    """
    fields = wind.reshape(-1, *wind.shape[-3:])
    energy = np.zeros((2, fields.shape[0], truncation(grid) + 1))
    inverses = _inverses(grid, wind.dtype)
    for first in range(0, fields.shape[0], FIELDS_PER_BLOCK):
        block = slice(first, first + FIELDS_PER_BLOCK)
        circles = np.ascontiguousarray((fields[block, 0] + 1j * fields[block, 1]).transpose(2, 1, 0))
        waves = scipy.fft.fft(circles, axis=0, norm="forward", overwrite_x=True)  # (wavenumber, latitude, field)
        for order, (minus, plus) in enumerate(inverses):
            # Half the sum of the coefficients of u - i v and u + i v is i chi, and half their difference is psi.
            of_minus, of_plus = product_with_complex(minus, waves[-order].conj()), product_with_complex(plus, waves[order])
            factor = (1 if order == 0 else 2) / 8  # a wave also represents that of the negative wavenumber
            for part, coefficients in zip(energy, (of_minus - of_plus, of_minus + of_plus), strict=True):
                part[block, -minus.shape[0] :] += factor * (coefficients.real**2 + coefficients.imag**2).T
    rotational, divergent = energy.reshape(2, *wind.shape[:-3], -1)
    return rotational, divergent


@lru_cache(maxsize=4)
def _inverses(grid: Grid, dtype: np.dtype[np.floating]) -> list[tuple[Field, Field]]:
    """Return for each wavenumber m the matrices from u - i v and u + i v along a meridian to coefficients, each (degree, latitude).

    Degrees begin with m, or with 1 for m = 0.
    """
    highest = truncation(grid)
    _, over_cosine, derivatives = legendre_tables(highest, grid.latitude)
    degree = np.arange(highest + 1)
    scale = 1 / np.sqrt(np.maximum(1, degree * (degree + 1)))
    root = np.sqrt(grid.area_weights)[:, None]
    inverses = []
    for order in degree:
        east = order * over_cosine[order] * scale
        north = derivatives[order] * scale
        degrees = slice(max(1, order), None)
        minus, plus = (np.linalg.pinv(root * table[:, degrees]) * root.T for table in (east - north, east + north))
        inverses.append((minus.astype(dtype), plus.astype(dtype)))
    return inverses


def kinetic_energy_statistics(
    ensemble: Field, truth: Field, grid: Grid, inside: NDArray[np.bool_] | None = None, variables: Sequence[str] = DEFAULT
) -> xr.Dataset:
    """Return ``kinetic_energy`` (mean over members) and ``kinetic_energy_truth``, both (prediction_timedelta, part, degree), m2 s-2.

    With several winds they have the dimension ``wind`` too (:func:`wsdcast.data.winds.by_wind`). Without a wind the result is empty.

    Args:
        ensemble: (member, lead, channel, latitude, longitude).
        truth: (lead, channel, latitude, longitude).
        grid: of the fields.
        inside: points with values, (latitude, longitude); None for the whole globe. The energy needs the whole globe, and is NaN otherwise.
        variables: names of the channels.
    """
    winds = winds_of(variables)
    if not winds:
        return xr.Dataset()
    degrees = np.arange(truncation(grid) + 1)

    def by_part(wind: Field) -> Field:
        if inside is not None:
            return np.full((*wind.shape[:-3], len(PARTS), degrees.size), np.nan)
        rotational, divergent = kinetic_energy(wind, grid)
        return np.stack([rotational, divergent, rotational + divergent], axis=-2)

    axes, of_each = ("prediction_timedelta", "part", "degree"), []
    for wind in winds:
        pair = [variables.index(wind.u), variables.index(wind.v)]
        # The mean energy of the members, never the energy of their mean, which is smooth.
        energy, of_truth = by_part(_channels(ensemble, pair)).mean(axis=0), by_part(_channels(truth, pair))
        of_each.append(xr.Dataset({"kinetic_energy": (axes, energy), "kinetic_energy_truth": (axes, of_truth)}))
    return by_wind(winds, of_each).assign_coords(part=list(PARTS), degree=degrees)


def _channels(fields: Field, pair: list[int]) -> Field:
    """Return two channels of the fields (..., channel, latitude, longitude), without a copy if these are all."""
    return fields if pair == [0, 1] and fields.shape[-3] == 2 else fields[..., pair, :, :]


def kinetic_energy_metrics(mean: xr.Dataset) -> xr.Dataset:
    """Return ``kinetic_energy_ratio`` by degree from 1, and its deviations from 1 as in :func:`compared`.

    A part of the wind that is almost zero has no ratio: at degrees at which it has less than a thousandth of the energy of both parts the
    ratio is NaN. If no degree of it has a thousandth of the energy of all degrees, its deviations are NaN too. An example is the divergent
    part on the simulated planet, which is rounding error.

    Args:
        mean: mean over initial times of :func:`kinetic_energy_statistics`.
    """
    power, truth = (mean[name].isel(degree=slice(1, None)) for name in ("kinetic_energy", "kinetic_energy_truth"))
    total = truth.sel(part="total", drop=True)
    result = compared(power, truth, "degree", "kinetic_energy", whole=total)
    result["kinetic_energy_ratio"] = result["kinetic_energy_ratio"].where(truth > ENERGETIC * total)
    return result
