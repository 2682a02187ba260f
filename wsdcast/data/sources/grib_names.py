"""The names of channels in GRIB files, which are ecCodes' short names."""

from __future__ import annotations

from collections.abc import Sequence

from wsdcast.data.variables import VARIABLES, split

WIND = {"10u": "u10", "10v": "v10"}
"""Short names of the 10 m wind in ecCodes, and the names of the variables here. Other variables keep their short names."""


def names_of(names: Sequence[str]) -> set[str]:
    """Return the names that the variables of channels have here, as in :class:`wsdcast.data.sources.grib.Message`."""
    wanted = set()
    for name in names:
        level = split(name)[1]
        for short in VARIABLES[split(name)[0]].grib:
            wanted.add(WIND.get(short, short) if level is None else f"{short}_{level}hpa")
    return wanted


def channels_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the channels whose variables have one of these names, which are as in the attribute ``other_variables`` of a GRIB file."""
    levels = sorted({name.rpartition("_")[2].removesuffix("hpa") for name in names if name.endswith("hpa")})
    channels = [name for name, entry in VARIABLES.items() if entry.kind == "surface"]
    pressure_levels = [level for level in levels if level.isdecimal()]
    channels += [f"{name}@{level}" for name, entry in VARIABLES.items() if entry.kind == "pressure" for level in pressure_levels]
    return tuple(name for name in channels if not names_of([name]).isdisjoint(names))
