"""What the page of a forecast shows: probabilities, quantiles and spread of wind speed, in bytes that compress well."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, QUANTILES
from wsdcast.report.maps import wind_speed
from wsdcast.report.shown_fields import Field, as_bytes, every, unit_of, without_gaps
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.runs.resources import require_memory

LIBRARY_BYTES = 2_330_000
"""Largest size of all fields, compressed. Written as text they take a third more. The plotting library takes 1.65 MB."""
LARGEST_RATIO = 8
"""Fields that are larger than this multiple of :data:`LIBRARY_BYTES` are not tried, because wind does not compress so well."""
SMALLEST_UNIT = {"quantiles": 0.1, "spread": 0.05}
"""Smallest unit of the bytes in m/s. Smaller units would make the page larger, and nobody needs them."""
BYTES_PER_VALUE = 20
"""Memory per value of wind that is read at once, in bytes: the wind itself, its speed, and copies while quantiles are computed."""


@dataclass(frozen=True)
class Products:
    """Products of one initial time. All images have the same points, every n-th of the grid.

    Attributes:
        probabilities: probability in per cent that speed exceeds each threshold, (threshold, lead, row, column).
        quantiles: of speed, (quantile, lead, row, column), m s-1, with the shares :data:`QUANTILES`.
        spread: standard deviation of speed, (lead, row, column), m s-1.
        members: number of members that remain at each lead time, (lead,). With fewer than two, the fields are NaN.
        rows, columns: positions of the points on the grid.
    """

    probabilities: Field
    quantiles: Field
    spread: Field
    members: NDArray[np.intp]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    @property
    def units(self) -> dict[str, float]:
        """Values of one step of a byte: 1 % of probabilities, and m/s of quantiles and spread."""
        speeds = {"quantiles": self.quantiles, "spread": self.spread}
        return {"probabilities": 1.0} | {name: max(SMALLEST_UNIT[name], unit_of(values)) for name, values in speeds.items()}

    @property
    def images(self) -> NDArray[np.uint8]:
        """All fields as bytes, (field, lead, row, column), from south to north: probabilities, spread, quantiles."""
        fields = {"probabilities": self.probabilities, "spread": self.spread[None], "quantiles": self.quantiles}
        return np.concatenate([as_bytes(values[..., ::-1, :], self.units[name]) for name, values in fields.items()])

    def every(self, stride: int) -> Products:
        """Return the products at every ``stride``-th row and column."""
        rows, columns = every(stride, (self.rows.size, self.columns.size))
        points = np.ix_(rows, columns)
        return Products(
            self.probabilities[..., points[0], points[1]],
            self.quantiles[..., points[0], points[1]],
            self.spread[..., points[0], points[1]],
            self.members,
            self.rows[rows],
            self.columns[columns],
        )


def packed(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images as a row of bytes that compresses well: differences between neighbours, and between successive quantiles, modulo 256.

    Wind is smooth and quantiles lie close together, so that most differences are small. :data:`UNPACK` is the inverse.

    Args:
        images: (field, lead, row, column); the last fields are the quantiles.
    """
    differences = images.copy()
    differences[1 - len(QUANTILES) :] -= images[-len(QUANTILES) : -1]
    return np.diff(differences.ravel(), prepend=np.uint8(0))


UNPACK = """
const stored = library.data.bytes, bytes = new Uint8Array(stored.buffer, stored.byteOffset, stored.length)
if (!library.unpacked) {
  for (let i = 1; i < bytes.length; i++) bytes[i] += bytes[i - 1]
  for (let i = (fields - quantiles + 1) * days.length * size; i < bytes.length; i++) bytes[i] += bytes[i - days.length * size]
  library.unpacked = true
}
"""
"""Code that undoes :func:`packed` at its first use. ``fields`` and ``quantiles`` are their numbers, ``size`` that of the points."""


def read_products(forecast: StoredForecast, row: int, thresholds: Sequence[float]) -> Products:
    """Return the products of one initial time, at as many points as fit in the page.

    A member counts at the lead times at which it has values at all points at which any member has some.

    Args:
        forecast: the members.
        row: index of the initial time.
        thresholds: wind speeds in m s-1.

    Raises:
        UserError: if the forecast has a single member or two of them remain at no lead time, it cannot be read, or memory cannot hold what
            is read at once.
    """
    if forecast.members < 2:
        raise UserError(f"{forecast.name}: has one member; probabilities and quantiles need two or more")
    leads = forecast.leads.size
    fields = len(thresholds) + len(QUANTILES) + 1
    at_once = min(leads, LEADS_PER_CHUNK)
    values = forecast.members * at_once * 2 * forecast.grid.latitude.size * forecast.grid.longitude.size
    require_memory(BYTES_PER_VALUE * values, f"the page of {forecast.name}")
    stride = 1
    while fields * leads * np.prod([axis.size for axis in every(stride, forecast.grid.shape)]) > LARGEST_RATIO * LIBRARY_BYTES:
        stride += 1
    rows, columns = every(stride, forecast.grid.shape)
    products = np.full((fields, leads, rows.size, columns.size), np.nan, dtype=np.float32)
    members = np.zeros(leads, dtype=np.intp)
    for begin in track(range(0, leads, at_once), "reading the forecast", -(-leads // at_once)):
        wind = forecast.read(row, slice(begin, begin + at_once))
        for lead in range(wind.shape[1]):
            kept = without_gaps(wind[:, lead : lead + 1])
            members[begin + lead] = kept.sum()
            if kept.sum() > 1:
                speed = wind_speed(wind[kept, lead][..., rows[:, None], columns])
                products[:, begin + lead] = _products(speed, thresholds)
    if not (members > 1).any():
        when = forecast.times[row].astype("datetime64[h]")
        raise UserError(f"{forecast.name}: the forecast from {when} has no lead time with two or more members that have values")
    count = len(thresholds)
    complete = Products(products[:count], products[count + 1 :], products[count], members, rows, columns)
    stride, result = 1, complete
    while len(zlib.compress(packed(result.images).tobytes(), 2)) > LIBRARY_BYTES:
        stride += 1
        result = complete.every(stride)
    return result


def _products(speed: Field, thresholds: Sequence[float]) -> Field:
    """Return probabilities in per cent, spread and quantiles, (field, row, column), of the speeds of members (member, row, column)."""
    missing = np.isnan(speed[0])
    probabilities = [np.where(missing, np.nan, 100 * (speed > threshold).mean(axis=0)) for threshold in thresholds]
    return np.array([*probabilities, speed.std(axis=0, ddof=1), *np.quantile(speed, QUANTILES, axis=0)], dtype=np.float32)
