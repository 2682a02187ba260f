"""The winds among the channels of a store: pairs of components at one height or level, and the names of what is computed from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import xarray as xr

from wsdcast.data.variables import DEFAULT, attributes, long_name, variable, wind_pairs


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


def wind_of(name: str, names: Sequence[str]) -> Wind | None:
    """Return the wind of the channels ``names`` that has ``name`` as a component or further name; None if there is none."""
    return next((wind for wind in winds_of(names) if name in wind), None)


def by_wind(winds: Sequence[Wind], of_each: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return what belongs to each wind, along a dimension ``wind`` with the names of the wind vectors.

    What belongs to a single wind is returned as it is, without that dimension.
    """
    if len(winds) == 1:
        return of_each[0]
    return xr.concat(of_each, dim=xr.IndexVariable("wind", [wind.vector for wind in winds]))


def _wind(u: str, v: str) -> Wind:
    def named(word: str) -> str:
        return u.replace("u_component_of_wind", word)

    if (u, v) == DEFAULT:
        return Wind(u, v, named("wind_speed"), "both", "vector")
    return Wind(u, v, named("wind_speed"), named("both"), named("vector"))


NAMES = {"wind_speed": "wind speed", "both": "wind", "vector": "wind vector"}
"""What the names of a :class:`Wind` have in the place of ``u_component_of_wind``, and the same in words."""


def name_in_words(name: str) -> str:
    """Return a channel, or a name of a :class:`Wind`, in words, such as ``10 m wind`` for ``both``."""
    for word, text in NAMES.items():
        if word in name:
            u = DEFAULT[0] if name == word else name.replace(word, "u_component_of_wind")
            return long_name(u).replace("eastward wind", text).replace("u component of wind", text)
    return long_name(name)


def units_of(name: str) -> str:
    """Return the units of a channel or of a name of a :class:`Wind`."""
    return "m s-1" if any(word in name for word in NAMES) else variable(name).units


def array_attributes(name: str) -> dict[str, Any]:
    """Return the CF attributes of the array of a channel or of a wind speed."""
    if "wind_speed" not in name:
        return attributes(name)
    of_component = attributes(name.replace("wind_speed", "u_component_of_wind"))
    return of_component | {"standard_name": "wind_speed", "long_name": name_in_words(name)}
