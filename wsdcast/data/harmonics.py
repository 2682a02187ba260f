"""Spherical harmonics on any latitudes, for the simulated planet, kinetic energy, blurred paths and random fields.

A real field is ``f(longitude, latitude) = sum over |m| <= l <= T of c[m, l] P[m, l](latitude) exp(i m longitude)``; only m >= 0 is
stored. The associated Legendre functions P have no Condon-Shortley sign and are scaled so that each has mean square 1 over the sphere.
Then Parseval's identity is ``mean(f**2) == sum(c[0]**2) + 2 sum(|c[1:]|**2)``.

The order of axes is chosen for speed: coefficients are (m, l, ...), fields are (longitude, latitude, ...). The trailing axes are
transformed together. The recurrences follow Holmes and Featherstone (2002). They are also run on P / cos(latitude), which stays finite at
the poles, so that winds can be computed there.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Real = NDArray[np.floating]
Complex = NDArray[np.complexfloating]


def gaussian_latitudes(count: int) -> tuple[Real, Real]:
    """Return Gaussian latitudes in degrees from north to south, and weights that sum to 1 and integrate degree 2 count - 1 exactly."""
    sines, weights = np.polynomial.legendre.leggauss(count)
    return np.rad2deg(np.arcsin(sines[::-1])), weights[::-1] / 2


class SphericalHarmonics:
    """Transforms of triangular truncation ``truncation`` on given latitudes and on ``longitudes`` equally spaced points from 0 east.

    Args:
        truncation: highest degree and order T.
        latitudes: degrees, shape (latitude,), in any order. Poles are allowed.
        longitudes: number of points round a circle. Orders above half of this number alias.
        weights: quadrature weights, shape (latitude,), summing to 1. Without them only the inverse transforms are available.
        dtype: float64 or float32. Fields and coefficients should have the same precision. Tables are always computed in float64.
    """

    def __init__(
        self, truncation: int, latitudes: Real, longitudes: int, weights: Real | None = None, dtype: type[np.floating] = np.float64
    ) -> None:
        self.truncation = truncation
        self.longitudes = longitudes
        self.latitudes = np.asarray(latitudes, dtype=np.float64)
        self.weights = weights
        self.degree = np.arange(truncation + 1)
        self.order = np.arange(truncation + 1)
        # 1 where m <= l, 0 elsewhere: the coefficients that exist.
        self.triangle = (self.order[:, None] <= self.degree[None, :]).astype(np.float64)
        tables = legendre_tables(truncation, self.latitudes)
        self.values, self.values_over_cosine, self.derivatives = (table.astype(dtype) for table in tables)
        self._im = 1j * self.order.astype(dtype)
        self.dtype = self._im.dtype  # of the coefficients

    def synthesis(self, coefficients: Complex) -> Real:
        """Return the field (longitude, latitude, ...) of coefficients (m, l, ...)."""
        return self._to_field(self.values, coefficients)

    def analysis(self, field: Real) -> Complex:
        """Return the coefficients (m, l, ...) of a field (longitude, latitude, ...)."""
        return _apply(self._weighted_values, self._to_orders(field))

    def gradient(self, coefficients: Complex) -> tuple[Real, Real]:
        """Return the eastward and the northward derivative on the unit sphere, each (longitude, latitude, ...)."""
        eastward = self._to_field(self.values_over_cosine, self._times_im(coefficients))
        return eastward, self._to_field(self.derivatives, coefficients)

    def divergence(self, eastward: Real, northward: Real) -> Complex:
        """Return the coefficients of the divergence of a vector field on the unit sphere.

        Integration by parts avoids derivatives of the field: the integral of div F times conj(Y) equals that of -F . grad conj(Y). The
        result is minus the exact adjoint of :meth:`gradient`.
        """
        along_circles = self._times_im(_apply(self._weighted_values_over_cosine, self._to_orders(eastward)))
        return along_circles - _apply(self._weighted_derivatives, self._to_orders(northward))

    def _times_im(self, coefficients: Complex) -> Complex:
        return coefficients * self._im.reshape((-1,) + (1,) * (coefficients.ndim - 1))

    def _to_field(self, table: Real, coefficients: Complex) -> Real:
        orders = _apply(table, coefficients)
        # High orders alias when a wave is sampled at so few longitudes. irfft would drop them, so the waves are summed directly.
        if self.truncation * 2 >= self.longitudes:
            return self._sum_of_waves(orders)
        return scipy.fft.irfft(orders, n=self.longitudes, axis=0, norm="forward")

    def _sum_of_waves(self, orders: Complex) -> Real:
        angles = 2 * np.pi * np.outer(np.arange(self.longitudes), self.order) / self.longitudes
        waves = np.exp(1j * angles) * np.where(self.order == 0, 1.0, 2.0)
        return np.tensordot(waves, orders, axes=(1, 0)).real

    def _to_orders(self, field: Real) -> Complex:
        return scipy.fft.rfft(field, axis=0, norm="forward")[: self.truncation + 1]

    @cached_property
    def _weighted_values(self) -> Real:
        return self._adjoint(self.values)

    @cached_property
    def _weighted_values_over_cosine(self) -> Real:
        return self._adjoint(self.values_over_cosine)

    @cached_property
    def _weighted_derivatives(self) -> Real:
        return self._adjoint(self.derivatives)

    def _adjoint(self, table: Real) -> Real:
        if self.weights is None:
            raise ValueError("these latitudes have no quadrature weights, so there is no forward transform")
        return np.ascontiguousarray((table * self.weights[:, None]).transpose(0, 2, 1)).astype(table.dtype)


def _apply(table: Real, orders: Complex) -> Complex:
    """Return the matrix product for each order, (m, i, j) with complex (m, j, ...)."""
    product = product_with_complex(table, np.ascontiguousarray(orders).reshape(*orders.shape[:2], -1))
    return product.reshape(product.shape[:2] + orders.shape[2:])


def product_with_complex(table: Real, columns: Complex) -> Complex:
    """Return the product of real and complex matrices, (..., i, j) with (..., j, k), as one real product with twice the columns."""
    return (table @ columns.view(table.dtype)).view(columns.dtype)


def legendre_tables(truncation: int, latitudes: Real) -> tuple[Real, Real, Real]:
    """Return P, P / cos(latitude) and dP / d(latitude), each (m, latitude, l). The second is 0 for m = 0, where it is never needed."""
    sine, cosine = np.sin(np.deg2rad(latitudes)), np.cos(np.deg2rad(latitudes))
    # cos(90 degrees) is 6e-17 in floating point. With an exact 0 only wavenumber 1 of the wind is left at the poles.
    cosine = np.where(np.abs(latitudes) == 90, 0.0, cosine)
    top = truncation + 1  # the derivative needs one more degree
    order, degree = np.arange(top + 1)[:, None], np.arange(top + 1)[None, :]
    with np.errstate(invalid="ignore"):
        epsilon = np.nan_to_num(np.sqrt((degree**2 - order**2) / (4.0 * degree**2 - 1.0)))

    def columns(start: Real, m: int) -> Real:
        """Return all degrees of one order, (latitude, l), by the three-term recurrence from ``start``, the values of degree m."""
        table = np.zeros((latitudes.size, top + 1))
        table[:, m] = start
        if m < top:
            table[:, m + 1] = sine * start / epsilon[m, m + 1]
        for l in range(m + 2, top + 1):  # noqa: E741 - every text calls the degree l
            table[:, l] = (sine * table[:, l - 1] - epsilon[m, l - 1] * table[:, l - 2]) / epsilon[m, l]
        return table

    values = np.zeros((top + 1, latitudes.size, top + 1))
    over_cosine = np.zeros_like(values)
    sectoral_over_cosine = np.ones_like(sine)  # P[m, m] / cos(latitude) for the current m; P itself for m = 0
    for m in range(top + 1):
        if m == 0:
            values[0] = columns(np.ones_like(sine), 0)
            continue
        growth = np.sqrt((2.0 * m + 1.0) / (2.0 * m))
        sectoral_over_cosine = growth * sectoral_over_cosine * (cosine if m > 1 else 1.0)
        over_cosine[m] = columns(sectoral_over_cosine, m)
        values[m] = over_cosine[m] * cosine[:, None]

    derivatives = np.zeros_like(values)
    derivatives[0] = np.sqrt(np.arange(top + 1) * np.arange(1, top + 2)) * values[1]
    l = np.arange(1, top)  # noqa: E741
    rising, falling = epsilon[1:, None, 1:top] * (l + 1), epsilon[1:, None, 2:] * l
    derivatives[1:, :, 1:top] = rising * over_cosine[1:, :, : top - 1] - falling * over_cosine[1:, :, 2:]
    keep = slice(0, truncation + 1)
    cut = (keep, slice(None), keep)
    return tuple(np.ascontiguousarray(table[cut]) for table in (values, over_cosine, derivatives))  # type: ignore[return-value]
