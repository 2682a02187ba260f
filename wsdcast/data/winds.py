"""The winds among the channels of a store: pairs of components at one height or level, and the names of what is computed from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from wsdcast.data.variables import DEFAULT, attributes, wind_pairs


class Wind(NamedTuple):
    """Names of the components of a wind, of its speed, and of what scores compute from both components.

    Attributes:
        u, v: the eastward and the northward component.
        speed: the wind speed; ``10m_wind_speed``, ``wind_speed@250``.
        both: the mean over u and v; ``both`` of the 10 m wind, ``both@250``.
        vector: the wind vector, whose squares are sums over u and v; ``vector`` of the 10 m wind, ``vector@250``.
    """

    u: str
    v: str
    speed: str
    both: str
    vector: str


def winds_of(names: Sequence[str]) -> list[Wind]:
    """Return the winds whose components are both among the channels: that at 10 m first, then the others in the order of the channels."""
    pairs = sorted(wind_pairs(names), key=lambda pair: pair != DEFAULT)
    return [_wind(*pair) for pair in pairs]


def _wind(u: str, v: str) -> Wind:
    def named(word: str) -> str:
        return u.replace("u_component_of_wind", word)

    if (u, v) == DEFAULT:
        return Wind(u, v, named("wind_speed"), "both", "vector")
    return Wind(u, v, named("wind_speed"), named("both"), named("vector"))


def array_attributes(name: str) -> dict[str, Any]:
    """Return the CF attributes of the array of a channel or of a wind speed."""
    if "wind_speed" not in name:
        return attributes(name)
    of_component = attributes(name.replace("wind_speed", "u_component_of_wind"))
    words = str(of_component["long_name"]).replace("eastward wind", "wind speed").replace("u component of wind", "wind speed")
    return of_component | {"standard_name": "wind_speed", "long_name": words}
