"""Coastlines of the Earth, for maps.

``coastlines.npz`` beside this file holds land at 1:110 million of Natural Earth 4.1 (naturalearthdata.com), which is in the public domain,
as redistributed by the npm package world-atlas 2.0.2 (ISC licence): the rings of its polygons without the edges of its map, as ``points``
(point, longitude and latitude) in hundredths of a degree, one line after the other, of ``lengths`` points each.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

HUNDREDTH = 0.01


def coastlines() -> list[NDArray[np.float64]]:
    """Lines (point, longitude and latitude) in degrees, longitude from 0 to 360, cut where they cross that edge."""
    with as_file(files("wsdcast.report") / "coastlines.npz") as path, np.load(path) as stored:
        points, lengths = stored["points"] * HUNDREDTH, stored["lengths"]
    points[:, 0] %= 360
    return [piece for line in np.split(points, np.cumsum(lengths)[:-1]) for piece in _cut(line) if len(piece) > 1]


def coastlines_of(source: str) -> list[NDArray[np.float64]]:
    """Those that maps of a data source have: the simulated planet has no coasts of ours."""
    return [] if source == "planet" else coastlines()


def _cut(line: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Pieces of a line that lie on one side of the edge each, with the points where they meet it."""
    pieces, begin = [], line[:0]
    first = 0
    for last in np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180).tolist():
        (here, south), (there, north) = line[last], line[last + 1]
        edge = 360.0 if here > there else 0.0
        way = (edge - here) / (there + (360 if edge else -360) - here)
        at = south + way * (north - south)
        pieces.append(np.concatenate([begin, line[first : last + 1], [[edge, at]]]))
        begin, first = np.array([[360 - edge, at]]), last + 1
    return [*pieces, np.concatenate([begin, line[first:]])]
