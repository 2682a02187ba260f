"""The points of the values of a GRIB message. ecCodes states the point of each value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsdcast.runs.errors import UserError

DIGITS = 6
"""Decimals of a degree that are kept. GRIB 2 states coordinates in millionths of a degree."""


@dataclass(frozen=True)
class Points:
    """The points of the values of a message.

    Attributes:
        latitude: rows from north to south, degrees.
        longitude: columns eastward from 0, degrees.
        order: index in the message of the value at each row and column, (latitude, longitude).
    """

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    order: NDArray[np.intp]

    def equal(self, other: Points) -> bool:
        """Return whether both are the same points. The order of the values may differ."""
        return np.array_equal(self.latitude, other.latitude) and np.array_equal(self.longitude, other.longitude)


def points_of(handle: int) -> Points | str:
    """Return the points of a message's values by ecCodes' coordinates, or a text that says why they form no regular grid."""
    import eccodes

    kind = eccodes.codes_get(handle, "gridType")
    try:
        latitude, longitude = (eccodes.codes_get_array(handle, name).round(DIGITS) for name in ("latitudes", "longitudes"))
    except eccodes.CodesInternalError as error:
        return f"on a grid of type {kind}, whose points ecCodes does not give ({error})"
    longitude = (longitude % 360).round(DIGITS) % 360
    rows, row = np.unique(-latitude, return_inverse=True)
    columns, column = np.unique(longitude, return_inverse=True)
    if latitude.size not in (rows.size * columns.size, rows.size * (columns.size + 1)):
        return f"on no regular grid of latitudes and longitudes (its type is {kind})"
    # ecCodes gives no reliable coordinates for columns first, nor for rows that run to and fro. No global analysis or forecast has these.
    for flag in ("jPointsAreConsecutive", "alternativeRowScanning"):
        if eccodes.codes_is_defined(handle, flag) and eccodes.codes_get(handle, flag, int):
            return f"in an order that is not read ({flag})"
    order = np.full((rows.size, columns.size), -1, dtype=np.intp)
    order[row[::-1], column[::-1]] = np.arange(latitude.size)[::-1]  # reversed, so that the first column counts if the last one repeats it
    if (order < 0).any():
        return f"on no regular grid of latitudes and longitudes (its type is {kind})"
    return Points(-rows, columns, order)


def grid_of(path: str, grids: list[Points | str]) -> Points | None:
    """Return the common grid of messages, or None if there are no messages. ``grids`` has the grid of each message.

    Raises:
        UserError: if there are several grids, or if one is not regular.
    """
    for grid in grids:
        if isinstance(grid, str):
            raise UserError(f"{path}: its fields are {grid}")
        if not grid.equal(grids[0]):  # type: ignore[arg-type]
            raise UserError(f"{path}: its fields are on several grids")
    return grids[0] if grids else None  # type: ignore[return-value]
