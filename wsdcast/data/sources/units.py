"""Units of sources: which spellings are the same unit, and which other units can be converted without doubt."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from wsdcast.data.variables import GRAVITY
from wsdcast.runs.errors import UserError


class Conversion(NamedTuple):
    """``value = factor * stored + shift``."""

    factor: float = 1.0
    shift: float = 0.0


SAME = Conversion()
CELSIUS = Conversion(1, 273.15)

SPEEDS = {
    **dict.fromkeys(("ms-1", "m/s", "mpers", "mps"), 1.0),
    **dict.fromkeys(("kt", "kts", "kn", "knot", "knots"), 1852 / 3600),
    **dict.fromkeys(("km/h", "kmh", "kmh-1", "kph"), 1 / 3.6),
    **dict.fromkeys(("mph", "mi/h"), 0.44704),
    **dict.fromkeys(("cm/s", "cms-1"), 0.01),
}
"""Size of each unit of speed in m s-1, by its spelling as in :data:`CONVERSIONS`. A nautical mile is 1852 m, a statute mile 1609.344 m."""

CONVERSIONS: dict[str, dict[str, Conversion]] = {
    "m s-1": {units: Conversion(size) for units, size in SPEEDS.items()},
    "K": {
        **dict.fromkeys(("k", "kelvin", "kelvins", "degk", "degreek"), SAME),
        **dict.fromkeys(("degc", "c", "celsius", "degreec", "degreesc", "degreecelsius", "degreescelsius", "\u00b0c"), CELSIUS),
    },
    "Pa": {
        **dict.fromkeys(("pa", "pascal", "pascals"), SAME),
        **dict.fromkeys(("hpa", "mb", "mbar", "millibar", "millibars", "hectopascal", "hectopascals"), Conversion(100)),
        "kpa": Conversion(1000),
    },
    "Pa s-1": {**dict.fromkeys(("pas-1", "pa/s"), SAME), **dict.fromkeys(("hpas-1", "hpa/s"), Conversion(100))},
    "m2 s-2": {
        **dict.fromkeys(("m2s-2", "m2/s2", "jkg-1", "j/kg"), SAME),
        # A geopotential in metres is a geopotential height.
        **dict.fromkeys(("m", "gpm", "geopotentialm"), Conversion(GRAVITY)),
        **dict.fromkeys(("dam", "gpdam", "gpdm"), Conversion(10 * GRAVITY)),
    },
    "kg kg-1": {**dict.fromkeys(("kgkg-1", "kg/kg", "1"), SAME), **dict.fromkeys(("gkg-1", "g/kg"), Conversion(1e-3))},
    "kg m-2": dict.fromkeys(("kgm-2", "kg/m2", "mm"), SAME),  # 1 kg of water on 1 m2 is 1 mm deep
    "m": {"m": SAME, **dict.fromkeys(("mm", "kgm-2", "kg/m2"), Conversion(1e-3))},
    "J m-2": dict.fromkeys(("jm-2", "j/m2"), SAME),
    "1": {
        **dict.fromkeys(("1", "0-1", "fraction", "proportion", "~", "numeric", "dimensionless"), SAME),
        **dict.fromkeys(("%", "percent"), Conversion(0.01)),
    },
    "radians": {
        **dict.fromkeys(("radians", "radian", "rad", "1"), SAME),
        **dict.fromkeys(("degrees", "degree", "deg"), Conversion(math.pi / 180)),
    },
}
"""For each unit that we have, the units that are read, without spaces and in lower case."""


def conversion(units: str, expected: str, what: object) -> Conversion:
    """Return how values of a source are brought to the units expected here.

    Args:
        units: the units that the source states.
        expected: units here, a key of :data:`CONVERSIONS`.
        what: the variable, which begins the error message.

    Raises:
        UserError: if the units are missing or cannot be converted without doubt.
    """
    if (known := CONVERSIONS[expected].get(_plain(units))) is None:
        raise UserError(f"{what} has units '{units.strip()}'; expected {expected}")
    return known


def size_of_speed(units: str) -> float | None:
    """Return the size of a unit of speed in m s-1; None if the unit is not known."""
    return SPEEDS.get(_plain(units))


def _plain(units: str) -> str:
    """Return units in lower case, without spaces and signs of powers, with the symbols of metre and second."""
    text = re.sub(r"[{}()^]|\*\*", "", units.lower().replace("\u2212", "-").replace("\u207b\u00b9", "-1"))
    text = re.sub(r"met(er|re)s?", "m", re.sub(r"sec(ond)?s?", "s", text))
    return re.sub(r"[\s.*\u00b7_]", "", text)
