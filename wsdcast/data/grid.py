"""Regular global grids. In memory the package always orders them from north to south and from 0 eastward."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsdcast.runs.errors import UserError

EARTH_RADIUS = 6367.5e3
"""In m. WeatherBench 2 uses this value for its spectra."""

ROUNDING = 0.01
"""Degrees by which coordinates may be off, because a file may keep two decimals of them. A twentieth of a step is a further limit."""

Degrees = NDArray[np.float64]
Region = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Rows and columns."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular global grid: latitudes from north to south and longitudes from 0 eastward. The constructor checks them.

    Args:
        latitude: degrees north, shape (latitude,), strictly decreasing. Any spacing and rows at the poles are allowed.
        longitude: degrees east in [0, 360), shape (longitude,), strictly increasing, equally spaced round the whole circle.

    Raises:
        UserError: if the coordinates are not in this order or do not cover the globe.
    """

    latitude: Degrees
    longitude: Degrees

    def __post_init__(self) -> None:
        latitude, longitude = self.latitude, self.longitude
        if latitude.ndim != 1 or longitude.ndim != 1 or latitude.size < 2 or longitude.size < 2:
            raise UserError("a grid needs at least two latitudes and two longitudes, each a list of numbers")
        if not np.all(np.diff(latitude) < 0) or np.abs(latitude).max() > 90:
            raise UserError("latitudes must fall strictly from north to south within 90 and -90")
        if not np.all(np.diff(longitude) > 0) or longitude[0] < 0 or longitude[-1] >= 360:
            raise UserError("longitudes must rise strictly within 0 and 360")
        spacing = 360 / longitude.size
        if not np.allclose(np.diff(longitude), spacing, atol=1e-3 * spacing):
            end = int(np.argmax(np.diff(longitude, append=longitude[0] + 360)))  # a region ends before the widest gap
            west, east = longitude[(end + 1) % longitude.size], longitude[end]
            west -= 360 * (west > east)  # as of a region across Greenwich
            raise UserError(f"not a global grid: longitudes {west:g} to {east:g} are not equal steps round the whole circle")
        row_spacing = np.abs(np.diff(latitude)).max()
        if 90 - latitude[0] > 1.01 * row_spacing or 90 + latitude[-1] > 1.01 * row_spacing:
            raise UserError(f"not a global grid: latitudes {latitude[0]:g} to {latitude[-1]:g} leave out a pole")

    def __eq__(self, other: object) -> bool:
        """Return whether all coordinates are equal, without any tolerance."""
        return isinstance(other, Grid) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def is_close(self, other: Grid) -> bool:
        """Return whether the coordinates agree within the rounding of a file: 0.001 degrees."""
        near = self.shape == other.shape and np.allclose(self.latitude, other.latitude, atol=1e-3)
        return bool(near and np.allclose(self.longitude, other.longitude, atol=1e-3))

    def is_finer_than(self, other: Grid) -> bool:
        """Return whether this grid has more latitudes than the other one, and more longitudes too."""
        return self.latitude.size > other.latitude.size and self.longitude.size > other.longitude.size

    @cached_property
    def _bytes(self) -> tuple[bytes, bytes]:
        return (self.latitude + 0.0).tobytes(), self.longitude.tobytes()  # a file may have the equator at -0.0

    @classmethod
    def regular(cls, name: str) -> Grid:
        """Return WeatherBench 2's equiangular grid ``LONGITUDESxLATITUDES``. It has rows at the poles if the number of latitudes is odd.

        ``240x121`` has rows at 90, 88.5, ..., -90; ``64x32`` has rows at 87.1875, ..., -87.1875.

        Raises:
            UserError: if the name does not have this form, or if the number of longitudes is odd. An even number is needed because the
                networks' padding across a pole turns by half a circle.
        """
        match = re.fullmatch(r"(\d+)x(\d+)", name)
        if match is None or int(match[1]) < 4 or int(match[2]) < 2 or int(match[1]) % 2:
            raise UserError(f"grid '{name}': expected LONGITUDESxLATITUDES such as 64x32 or 240x121, an even number of longitudes")
        columns, rows = int(match[1]), int(match[2])
        latitude = np.linspace(90.0, -90.0, rows, dtype=np.float64)
        if rows % 2 == 0:
            latitude = 90 - 180 / rows * (np.arange(rows, dtype=np.float64) + 0.5)
        return cls(latitude, 360 / columns * np.arange(columns, dtype=np.float64))

    @classmethod
    def around(cls, latitude: Degrees, longitude: Degrees) -> Grid:
        """Return the global grid of which the points of a region are a part; if they cover the globe, their own.

        A region has equal steps, and its latitudes fall. Whether its points really are on the grid, :meth:`region_of` says.

        Raises:
            UserError: if there is no such grid.
        """
        longitude = np.sort(longitude % 360)
        try:
            return cls(latitude, longitude)
        except UserError:
            if min(latitude.size, longitude.size) < 2 or (np.diff(latitude) >= 0).any():
                raise
        step = (latitude[0] - latitude[-1]) / (latitude.size - 1)
        north, south = (int(distance / step + 0.01) for distance in (90 - latitude[0], 90 + latitude[-1]))
        widest = np.diff(longitude, append=longitude[0] + 360).max()  # the gap outside of the region
        columns = round(360 * (longitude.size - 1) / (360 - widest))
        width = 360 / columns
        first = max(0.0, (longitude[0] + 1e-3) % width - 1e-3)  # not at the end of the circle because of rounding
        return cls((latitude[0] - step * np.arange(-north, latitude.size + south)).clip(-90, 90), first + width * np.arange(columns))

    @property
    def name(self) -> str:
        """The name ``LONGITUDESxLATITUDES``."""
        return f"{self.longitude.size}x{self.latitude.size}"

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return self.latitude.size, self.longitude.size

    @property
    def size(self) -> int:
        """The number of points."""
        return self.latitude.size * self.longitude.size

    @property
    def includes_poles(self) -> bool:
        """Whether the first and the last row lie on the poles."""
        return bool(self.latitude[0] == 90 and self.latitude[-1] == -90)

    def nearest(self, latitude: Degrees, longitude: Degrees) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the row nearest to each latitude, and the column nearest to each longitude round the circle."""
        turned = np.abs((self.longitude - longitude[:, None] + 180) % 360 - 180)
        return np.abs(self.latitude - latitude[:, None]).argmin(axis=1), turned.argmin(axis=1)

    def region_of(self, latitude: Degrees, longitude: Degrees) -> Region | None:
        """Return the rows and columns of a region's points; None if one is not on the grid, or they are not neighbours on it."""
        rows, columns = self.nearest(latitude, longitude)
        off = np.abs(self.latitude[rows] - latitude).max(), np.abs((self.longitude[columns] - longitude + 180) % 360 - 180).max()
        ends = (~np.isin((columns + 1) % self.longitude.size, columns)).sum()
        return (rows, columns) if max(off) <= ROUNDING and (np.diff(rows) == 1).all() and ends <= 1 else None

    @cached_property
    def latitude_bounds(self) -> Degrees:
        """Cell bounds from 90 to -90, shape (latitude + 1,). They lie midway between rows, so a pole row has cells of half height."""
        return np.concatenate([[90.0], (self.latitude[:-1] + self.latitude[1:]) / 2, [-90.0]])

    @cached_property
    def longitude_bounds(self) -> Degrees:
        """Cell bounds midway between columns, shape (longitude + 1,). The first one may be below 0."""
        half = 180 / self.longitude.size
        return np.append(self.longitude - half, self.longitude[-1] + half)

    @cached_property
    def area_weights(self) -> Degrees:
        """Exact area of one cell of each row, scaled to mean 1, shape (latitude,), as in WeatherBench 2."""
        area = -np.diff(np.sin(np.deg2rad(self.latitude_bounds)))
        return area / area.mean()


def bounds_in_words(latitude: Degrees, longitude: Degrees) -> str:
    """Return the bounds of points in words. Latitudes fall and longitudes rise."""
    return f"latitudes {latitude[-1]:g} to {latitude[0]:g} and longitudes {longitude[0]:g} to {longitude[-1]:g}"


def circles_the_globe(longitude: Degrees) -> bool:
    """Return whether rising longitudes (longitude,) go round the whole circle in equal steps."""
    if longitude.size < 2:
        return False
    step = (longitude[-1] - longitude[0]) / (longitude.size - 1)
    return bool(abs(longitude[0] + 360 - longitude[-1] - step) < 0.01 * step)
