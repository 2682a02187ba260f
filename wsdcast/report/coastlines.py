"""Coastlines of the Earth, for maps.

``coastlines.npz`` in this directory holds the land at 1:110 million of Natural Earth 4.1 (naturalearthdata.com), which is in the public
domain, as redistributed by the npm package world-atlas 2.0.2 (ISC licence). It has the rings of the land polygons, without the edges of the
map. ``points`` (point, longitude and latitude) are in hundredths of a degree, one line after the other. ``lengths`` has the number of
points of each line.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

HUNDREDTH = 0.01


def coastlines() -> list[NDArray[np.float64]]:
    """Return lines (point, longitude and latitude), degrees. Longitudes are from -180 to 180, and lines are cut where they cross 180 E."""
    with as_file(files("wsdcast.report") / "coastlines.npz") as path, np.load(path) as stored:
        points, lengths = stored["points"] * HUNDREDTH, stored["lengths"]
    return [piece for line in np.split(points, np.cumsum(lengths)[:-1]) for piece in _cut(line) if np.ptp(piece, axis=0).any()]


def coastlines_of(source: str) -> list[NDArray[np.float64]]:
    """Return the coastlines for maps of a data source: none for the simulated planet, which is not the Earth."""
    return [] if source == "planet" else coastlines()


def _cut(line: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the pieces of a line between its crossings of 180 E. Each piece ends at the crossing."""
    pieces, begin = [], line[:0]
    first = 0
    for last in np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180).tolist():
        (longitude, latitude), (next_longitude, next_latitude) = line[last], line[last + 1]
        edge = 180.0 if longitude > next_longitude else -180.0
        fraction = (edge - longitude) / (next_longitude + 2 * edge - longitude)
        crossing = latitude + fraction * (next_latitude - latitude)
        pieces.append(np.concatenate([begin, line[first : last + 1], [[edge, crossing]]]))
        begin, first = np.array([[-edge, crossing]]), last + 1
    return [*pieces, np.concatenate([begin, line[first:]])]
