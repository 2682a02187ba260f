"""Kinetic energy of wind by spherical-harmonic degree, of its rotational and its divergent part.

On the unit sphere wind is (d chi / d east - d psi / d north, d chi / d north + d psi / d east): the divergent part has a potential chi,
the rotational one a stream function psi. Both are sums of spherical harmonics, and each harmonic's gradient, scaled by
1 / sqrt(l (l + 1)), has mean square 1 over the sphere; so the energy of degree l is half the sum of the squares of its coefficients.

Coefficients are found zonal wavenumber by zonal wavenumber, as those whose wind is closest to the given one in the mean square over area.
For wind of degrees up to :func:`truncation` that is exact to rounding, on the equiangular grids too, where a sum with the best possible
weights would be exact to half of that degree alone. The problem is a tame one: the condition number is below 2, so noise is not amplified.
What the grid cannot resolve folds into the highest degrees, as in any spectrum of samples: wind of energy like l^-3 that is sampled without
being averaged over cells has 15 % too much at five sixths of the truncation.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import legendre_tables
from wsdcast.verification.spectra import ENERGETIC, compared

Field = NDArray[np.floating]

PARTS = ("rotational", "divergent", "total")

AT_ONCE = 64
"""Fields that are transformed together: as many as stay in the processor's cache."""


def truncation(grid: Grid) -> int:
    """The highest degree that the grid tells from all lower ones: 119 on 240x121, 31 on 64x32.

    On a circle through the poles wind is a sum of sines and cosines of the angle from the pole, and rows tell as many of these apart as
    there are of them; pole rows lie where the sines are zero, so two rows count for nothing. Round a circle of latitude two points
    are needed to a wave.
    """
    rows, columns = grid.shape
    return min(rows - 2 if grid.includes_poles else rows - 1, (columns - 1) // 2)


def kinetic_energy(wind: Field, grid: Grid) -> tuple[Field, Field]:
    """Energy of the rotational and of the divergent part by degree, m2 s-2.

    Their sum over degrees is the area mean of (u^2 + v^2) / 2, up to what is of a degree above :func:`truncation`. At a pole u and v
    depend on the longitude that one comes from; only the wave of wavenumber 1 there is a vector, and the rest of these rows is ignored.

    Args:
        wind: (..., channel, latitude, longitude), u and v, m s-1.
        grid: of the fields.

    Returns:
        Two arrays (..., degree) in float64, from degree 0, which has none.
    """
    fields = wind.reshape(-1, *wind.shape[-3:])
    energy = np.zeros((2, fields.shape[0], truncation(grid) + 1))
    inverses = _inverses(grid, wind.dtype)
    for first in range(0, fields.shape[0], AT_ONCE):
        block = slice(first, first + AT_ONCE)
        circles = np.ascontiguousarray((fields[block, 0] + 1j * fields[block, 1]).transpose(2, 1, 0))
        waves = scipy.fft.fft(circles, axis=0, norm="forward", overwrite_x=True)  # (wavenumber, latitude, field)
        for order, (minus, plus) in enumerate(inverses):
            # Of the coefficients of u - i v and u + i v, half the sum is i chi and half the difference is psi.
            one, other = _apply(minus, waves[-order].conj()), _apply(plus, waves[order])
            share = (1 if order == 0 else 2) / 8  # waves stand for those of negative wavenumber too
            for part, coefficients in zip(energy, (one - other, one + other), strict=True):
                part[block, -minus.shape[0] :] += share * (coefficients.real**2 + coefficients.imag**2).T
    rotational, divergent = energy.reshape(2, *wind.shape[:-3], -1)
    return rotational, divergent


def _apply(table: Field, columns: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
    """A real matrix times a complex one, as one real product of twice the columns."""
    return (table @ columns.view(table.dtype)).view(columns.dtype)


@lru_cache(maxsize=4)
def _inverses(grid: Grid, dtype: np.dtype[np.floating]) -> list[tuple[Field, Field]]:
    """For each wavenumber m, what takes u - i v and u + i v on a meridian to their coefficients, each (degree from m or 1, latitude)."""
    highest = truncation(grid)
    _, over_cosine, derivatives = legendre_tables(highest, grid.latitude)
    degree = np.arange(highest + 1)
    scale = 1 / np.sqrt(np.maximum(1, degree * (degree + 1)))
    root = np.sqrt(grid.area_weights)[:, None]
    found = []
    for order in degree:
        east = order * over_cosine[order] * scale
        north = derivatives[order] * scale
        there = slice(max(1, order), None)
        minus, plus = (np.linalg.pinv(root * table[:, there]) * root.T for table in (east - north, east + north))
        found.append((minus.astype(dtype), plus.astype(dtype)))
    return found


def kinetic_energy_statistics(ensemble: Field, truth: Field, grid: Grid, inside: NDArray[np.bool_] | None = None) -> xr.Dataset:
    """``kinetic_energy``, the mean over members, and ``kinetic_energy_truth``, both (prediction_timedelta, part, degree), m2 s-2.

    Args:
        ensemble: (member, lead, channel, latitude, longitude), m s-1.
        truth: (lead, channel, latitude, longitude).
        grid: of the fields.
        inside: points with values; where these are a part of the globe (not None), all is NaN.
    """
    degrees = np.arange(truncation(grid) + 1)

    def by_part(wind: Field) -> Field:
        if inside is not None:
            return np.full((*wind.shape[:-3], len(PARTS), degrees.size), np.nan)
        rotational, divergent = kinetic_energy(wind, grid)
        return np.stack([rotational, divergent, rotational + divergent], axis=-2)

    wavy = ("prediction_timedelta", "part", "degree")
    return xr.Dataset(
        {
            # Of members, never of their mean.
            "kinetic_energy": (wavy, by_part(ensemble).mean(axis=0)),
            "kinetic_energy_truth": (wavy, by_part(truth)),
        },
        coords={"part": list(PARTS), "degree": degrees},
    )


def kinetic_energy_metrics(mean: xr.Dataset) -> xr.Dataset:
    """``kinetic_energy_ratio`` by degree from 1, and its deviations as in :func:`compared`, of statistics that were averaged over starts.

    A part that is all but missing has none: no ratio where it has less than a thousandth of its degree's energy, and no deviation where no
    degree of it has a thousandth of all energy. The wind of the simulated planet has no divergence but from rounding.
    """
    power, truth = (mean[name].isel(degree=slice(1, None)) for name in ("kinetic_energy", "kinetic_energy_truth"))
    total = truth.sel(part="total", drop=True)
    found = compared(power, truth, "degree", "kinetic_energy", whole=total)
    found["kinetic_energy_ratio"] = found["kinetic_energy_ratio"].where(truth > ENERGETIC * total)
    return found
