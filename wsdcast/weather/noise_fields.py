"""Noise as fields of several length scales, which a generator of the objective ``crps`` can read instead of numbers (FourCastNet 3).

Each field is Gaussian and isotropic on the sphere, with mean 0 and variance 1 at every point. It is a sum of real spherical harmonics of
mean square 1, with independent normal coefficients. If degree l has the share v(l) of the variance, the correlation of two points at the
angle gamma is the sum over l of v(l) P_l(cos gamma), with the Legendre polynomials P_l.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import legendre_tables
from wsdcast.data.store.analysis import Analysis
from wsdcast.runs import devices
from wsdcast.weather.recipe import Recipe

FIELDS = 4
"""Number of fields. FourCastNet 3 has eight, whose lengths double; four are enough to go from a row to a quarter of the globe."""

LONGEST = 90.0
"""Length of the largest field, degrees."""

KEPT = 0.99
"""Share of the variance of a field that is kept. Leaving out the highest degrees saves random numbers and time."""

NoiseFields = Callable[[Tensor], Tensor]
"""Maps the noise of members, (batch, channel, latitude, longitude), to their fields, (batch, FIELDS, latitude, longitude)."""


def noise_fields_of(recipe: Recipe, record: Analysis) -> NoiseFields | None:
    """The noise fields that the generator of a recipe reads; None if it reads none: only that of the objective ``crps`` may."""
    if recipe.generator.objective != "crps" or recipe.crps.noise == "numbers":
        return None
    return noise_fields(record.grid, len(record.variables), devices.device())


def noise_fields(grid: Grid, channels: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> NoiseFields:
    """Return the function that makes the fields of members from their noise, with the spectra of :func:`spectra_of`.

    The numbers of the noise are the coefficients of the fields, one field after the other. Every number is used at most once, so the fields
    are independent.

    Args:
        grid: a whole-globe grid.
        channels: channels of the noise.
        device, dtype: of the tables. Noise elsewhere or of another type is accepted too, with a copy of the tables each time.
    """
    columns = grid.longitude.size
    spectra = spectra_of(grid, channels)
    legendre = legendre_tables(max(spectrum.size for spectrum in spectra) - 1, grid.latitude)[0]
    tables = []
    for spectrum in spectra:
        size = spectrum.size
        std = np.sqrt(spectrum / (2 * np.arange(size) + 1))  # of each coefficient
        table = legendre[:size, :, :size] * std
        table[1:] *= np.sqrt(0.5)  # irfft adds each order above 0 twice
        tables.append(torch.from_numpy(table).to(device, dtype))

    def fields(noise: Tensor) -> Tensor:
        first, drawn, numbers = 0, [], noise.flatten(1)
        with devices.without_autocast(noise):
            for table in tables:
                size = table.shape[-1]
                square = numbers[:, first : first + size**2].unflatten(1, (size, size))
                first += size**2
                # Order m and degree l >= m. The numbers of the sines are the other triangle of the square; order 0 has none.
                sines = square.mT.roll(1, -2)
                sines[:, 0] = 0
                # In this layout a member has the same bits at every position in a batch, as in spherical_transform.
                orders = torch.einsum("myl,bmlp->bymp", table.to(noise), torch.stack([square, sines], dim=-1))
                drawn.append(torch.fft.irfft(torch.view_as_complex(orders.contiguous()), n=columns, norm="forward"))
        return torch.stack(drawn, dim=1)

    return fields


def spectra_of(grid: Grid, channels: int) -> list[NDArray[np.float64]]:
    """The share of the variance of each field by degree, (degree,), which sums to 1.

    Degree l has the share (2 l + 1) exp(-l (l + 1) s^2), up to a factor. Two points at the distance 2 s then have a correlation of about
    0.4. This length is one row for the first field and :data:`LONGEST` for the last, with equal ratios between. The degrees end with the
    highest of the grid, or where :data:`KEPT` of the variance is reached. The noise of one channel on a very small grid has too few numbers
    for that, and then the highest degree is lower.
    """
    rows, columns = grid.shape

    def up_to(highest: int) -> list[NDArray[np.float64]]:
        degree, spectra = np.arange(highest + 1), []
        for length in np.deg2rad(np.geomspace(180 / rows, LONGEST, FIELDS)):
            power = (2 * degree + 1) * np.exp(-degree * (degree + 1) * (length / 2) ** 2)
            kept = power[: np.searchsorted(power.cumsum(), KEPT * power.sum()) + 1]
            spectra.append(kept / kept.sum())
        return spectra

    possible = map(up_to, range(min(rows - 1, (columns - 1) // 2), -1, -1))
    return next(spectra for spectra in possible if sum(spectrum.size**2 for spectrum in spectra) <= channels * rows * columns)
