"""The path of a weather generator, and the spectral transform in which it blurs states on the sphere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from wsdcast.data.grid import Grid
from wsdcast.data.harmonics import legendre_tables
from wsdcast.runs import devices
from wsdcast.warmstart.paths import Multiply, Path, path_of
from wsdcast.weather.network_sections import Generator


def weather_path(settings: Generator, grid: Grid) -> Path:
    """The path of a generator."""
    return path_of(settings.followed_path, settings.bnr, partial(spherical_transform, grid, devices.device(), torch.float32))


def spherical_transform(grid: Grid, device: torch.device | None = None, dtype: torch.dtype = torch.float64) -> Multiply:
    """Return a function of :data:`wsdcast.warmstart.paths.Multiply` for fields (batch, channel, latitude, longitude).

    The eigenvectors are spherical harmonics, made orthonormal on the grid's own points and area weights, degree by degree from the lowest
    of each order. So V' V = 1 on any latitudes. The eigenvalue of degree l is l (l + 1) (pi / rows)^2: lengths are in rows, which makes a
    blur-to-noise ratio mean the same on grids of any size and on images. The waves of a grid that no triangular truncation reaches, near
    the poles, are treated as one more degree.

    Args:
        grid: a whole-globe grid.
        device, dtype: of the tables. Fields elsewhere or of another type are transformed too, with a copy of the tables each time.
    """
    rows, columns = grid.shape
    truncation = min(rows - 1 - 2 * grid.includes_poles, columns // 2)
    tables = legendre_tables(truncation, grid.latitude)[0]
    weights = np.sqrt(grid.area_weights)
    basis = np.zeros((columns // 2 + 1, rows, truncation + 1))
    for order in range(truncation + 1):
        columns_of_order = tables[order][:, order:] * weights[:, None]
        basis[order, :, order:] = np.linalg.qr(columns_of_order)[0]
    degree = np.arange(truncation + 2)
    tables_of = degree * (degree + 1) * (np.pi / rows) ** 2, basis.transpose(0, 2, 1) * weights, basis / weights[:, None]
    eigenvalues, to_waves, to_rows = (torch.from_numpy(table).to(device, dtype) for table in tables_of)

    def multiply(x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        forward, back, values = (matrix.to(x) for matrix in (to_waves, to_rows, eigenvalues))
        factors = factor(values)
        rest = factors[:, -1]
        with devices.without_autocast(x):
            orders = torch.view_as_real(torch.fft.rfft(x, dim=-1))
            waves = torch.einsum("mly,bcymp->bcmlp", forward, orders) * (factors[:, :-1] - rest[:, None])[:, None, None, :, None]
            smooth = torch.view_as_complex(torch.einsum("myl,bcmlp->bcymp", back, waves))
            return rest[:, None, None, None] * x + torch.fft.irfft(smooth, n=columns, dim=-1)

    return multiply
