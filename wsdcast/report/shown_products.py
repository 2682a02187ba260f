"""What the page of a forecast shows: quantiles, spread and, of the 10 m wind, probabilities, in bytes that compress well."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsdcast.data.grid import ROUNDING
from wsdcast.data.sources.foreign_forecasts import Members
from wsdcast.data.steps import time_text
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, QUANTILES
from wsdcast.report.shown_fields import MOST_SHARES, Field, as_bytes, base_of, byte_unit, every, on_map
from wsdcast.report.subjects import WIND, Subject, subjects_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.runs.resources import require_memory
from wsdcast.verification.members import remaining, share_above

LIBRARY_BYTES = 2_330_000
"""Largest size of all fields of one subject, compressed; of several together, :data:`MOST_SHARES` times as much. Written as text they take
a third more. The plotting library takes 1.65 MB."""
LARGEST_RATIO = 8
"""Fields that are larger than this multiple of :data:`LIBRARY_BYTES` are not tried, because wind does not compress so well."""
SMALLEST_UNIT = {"quantiles": 0.1, "spread": 0.05}
"""Smallest unit of the bytes of wind speeds in m/s. Smaller units would make the page larger, and nobody needs them."""
COPIES = 32
"""Bytes of memory for each point that is read at once, besides the fields: what is shown, and copies while quantiles are computed."""


@dataclass(frozen=True)
class Products:
    """Products of one subject and one initial time. All images have the same points, every n-th of the grid.

    Attributes:
        subject: what the products are of: a wind speed or a variable.
        thresholds: wind speeds in m s-1 of the probabilities.
        probabilities: probability in per cent that speed exceeds each threshold, (threshold, lead, row, column).
        quantiles: (quantile, lead, row, column), in the units of the subject, with the shares :data:`QUANTILES`.
        spread: standard deviation, (lead, row, column), in the same units.
        members: number of members that remain at each lead time, (lead,). With fewer than two, the fields are NaN.
        rows, columns: positions of the points on the grid of the forecast, from west to east as maps show them.
        base: value of the byte 0 of the quantiles; 0 for wind speeds.
    """

    subject: Subject
    thresholds: Sequence[float]
    probabilities: Field
    quantiles: Field
    spread: Field
    members: NDArray[np.intp]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    base: float

    @property
    def units(self) -> dict[str, float]:
        """Values of one step of a byte: 1 % of probabilities, and in the units of the subject those of quantiles and spread."""
        units = {"quantiles": byte_unit(self.quantiles, self.base), "spread": byte_unit(self.spread)}
        if self.subject.is_wind:
            units = {name: max(SMALLEST_UNIT[name], unit) for name, unit in units.items()}
        return {"probabilities": 1.0} | units

    @property
    def images(self) -> NDArray[np.uint8]:
        """All fields as bytes, (field, lead, row, column), from south to north: probabilities, spread, quantiles."""
        fields = {"probabilities": self.probabilities, "spread": self.spread[None], "quantiles": self.quantiles}
        base = {"quantiles": self.base}
        return np.concatenate([as_bytes(values[..., ::-1, :], self.units[name], base.get(name, 0.0)) for name, values in fields.items()])

    def every(self, stride: int) -> Products:
        """Return the products at every ``stride``-th row and column."""
        rows, columns = every(stride, (self.rows.size, self.columns.size))
        points = np.ix_(rows, columns)
        return replace(
            self,
            probabilities=self.probabilities[..., points[0], points[1]],
            quantiles=self.quantiles[..., points[0], points[1]],
            spread=self.spread[..., points[0], points[1]],
            rows=self.rows[rows],
            columns=self.columns[columns],
        )


def packed(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images as a row of bytes that compresses well: differences between neighbours, and between successive quantiles, modulo 256.

    Fields are smooth and quantiles lie close together, so that most differences are small. :data:`UNPACK` is the inverse.

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


def read_products(forecast: Members, row: int, thresholds: Sequence[float]) -> list[Products]:
    """Return the products of one initial time of each subject, wind speeds first, at as many points as fit in the page.

    A member counts at the lead times at which it has values at all points at which any member has some. The thresholds are
    speeds of the 10 m wind, m s-1. The forecast covers the globe, or a region in which longitudes rise without a jump.

    Raises:
        UserError: if the forecast has a single member or two of them remain at no lead time, its points are not equally spaced, it cannot
            be read, or memory cannot hold what is read at once.
    """
    if forecast.members < 2:
        raise UserError(f"{forecast.name}: has one member; probabilities and quantiles need two or more")
    for name, axis in (("latitudes", forecast.latitude), ("longitudes", forecast.longitude)):
        steps = np.abs(np.diff(axis))
        if steps.size and np.ptp(steps) > 0.1 * steps.mean() + 2 * ROUNDING:
            raise UserError(f"{forecast.name}: its {name} are not equally spaced, and a map needs that")
    leads, names = forecast.leads.size, forecast.variables
    limits = {subject: tuple(thresholds) if subject == WIND else () for subject in subjects_of(names)}
    largest = LIBRARY_BYTES * min(len(limits), MOST_SHARES) / len(limits)
    at_once = min(leads, LEADS_PER_CHUNK)
    grid = forecast.latitude.size, forecast.longitude.size
    points = forecast.members * at_once * grid[0] * grid[1]
    require_memory((4 * len(names) + COPIES) * points, f"the page of {forecast.name}")
    stride, most = 1, 1 + len(QUANTILES) + max(map(len, limits.values()))
    while most * leads * np.prod([axis.size for axis in every(stride, grid)]) > LARGEST_RATIO * largest:
        stride += 1
    rows, columns = on_map(stride, grid, forecast.longitude)
    shape = leads, rows.size, columns.size
    products = {of: np.full((len(above) + 1 + len(QUANTILES), *shape), np.nan, dtype=np.float32) for of, above in limits.items()}
    members = np.zeros(leads, dtype=np.intp)
    for begin in track(range(0, leads, at_once), "reading the forecast", -(-leads // at_once)):
        fields = forecast.read(row, slice(begin, begin + at_once))
        for lead in range(fields.shape[1]):
            kept = remaining(fields[:, lead])
            members[begin + lead] = kept.sum()
            if kept.sum() > 1:
                shown = fields[kept, lead][..., rows[:, None], columns]
                for of, above in limits.items():
                    products[of][:, begin + lead] = _products(of.of(shown, names), above)
    if not (members > 1).any():
        when = time_text(forecast.times[row])
        raise UserError(f"{forecast.name}: the forecast from {when} has no lead time with two or more members that have values")
    result = []
    for of, above in limits.items():
        probabilities, (spread, *quantiles) = np.split(products.pop(of), [len(above)])
        base = 0.0 if of.is_wind else base_of(np.stack(quantiles))
        complete = Products(of, above, probabilities, np.stack(quantiles), spread, members, rows, columns, base)
        result.append(_that_fits(complete, largest))
    return result


def _that_fits(complete: Products, largest: float) -> Products:
    """Return the products at as many points as have at most ``largest`` bytes, compressed."""
    stride, result = 1, complete
    while len(zlib.compress(packed(result.images).tobytes(), 2)) > largest:
        stride += 1
        result = complete.every(stride)
    return result


def _products(members: Field, thresholds: Sequence[float]) -> Field:
    """Return probabilities in per cent, spread and quantiles, (field, row, column), of values of the members (member, row, column)."""
    probabilities = [100 * share_above(members, threshold) for threshold in thresholds]
    return np.array([*probabilities, members.std(axis=0, ddof=1), *np.quantile(members, QUANTILES, axis=0)], dtype=np.float32)
