"""The names of channels in GRIB files, which are ecCodes' short names."""

from __future__ import annotations

from collections.abc import Sequence

from wsdcast.data.variables import STATIC_FIELDS, VARIABLES, name_and_level

WIND = {"10u": "u10", "10v": "v10"}
"""Short names of the 10 m wind in ecCodes, and the names of the variables here. Other variables keep their short names."""
LEVELS = {"isobaricInhPa": 1, "isobaricInPa": 100}
"""Types of pressure levels, and their units in 1 hPa."""
SURFACES = ("surface", "heightAboveGround", "meanSea", "entireAtmosphere", "atmosphere", "atmosphereSingleLayer", "nominalTop")
"""Types of level of the variables that have no levels."""
STATIC = tuple(field.short for field in STATIC_FIELDS.values())
"""Short names of the static fields of the surface."""


def names_of(names: Sequence[str]) -> set[str]:
    """Return the names that the variables of channels have here, as in :class:`wsdcast.data.sources.grib.Message`."""
    wanted = set()
    for name in names:
        level = name_and_level(name)[1]
        for short in VARIABLES[name_and_level(name)[0]].grib:
            wanted.add(WIND.get(short, short) if level is None else f"{short}_{level}hpa")
    return wanted


def channels_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the channels whose variables have one of these names, which are as in the attribute ``other_variables`` of a GRIB file."""
    levels = sorted({name.rpartition("_")[2].removesuffix("hpa") for name in names if name.endswith("hpa")})
    channels = [name for name, entry in VARIABLES.items() if entry.kind == "surface"]
    pressure_levels = [level for level in levels if level.isdecimal()]
    channels += [f"{name}@{level}" for name, entry in VARIABLES.items() if entry.kind == "pressure" for level in pressure_levels]
    return tuple(name for name in channels if not names_of([name]).isdisjoint(names))


def name_of(handle: int) -> str:
    """Return the name of a field's variable, as in :class:`wsdcast.data.sources.grib.Message`.

    A name with the type of level, or with a statistic of members, is that of no variable.
    """
    import eccodes

    short = str(eccodes.codes_get(handle, "shortName"))
    if statistic := _statistic_of_members(handle):
        return f"{short} ({statistic})"
    if short in WIND:
        return WIND[short]
    level = str(eccodes.codes_get(handle, "typeOfLevel"))
    if short in ("u", "v") and level == "heightAboveGround" and eccodes.codes_get(handle, "level", int) == 100:
        return f"100{short}"  # the name that ecCodes gives to ECMWF's messages alone
    if level in LEVELS:
        return f"{short}_{eccodes.codes_get(handle, 'level', int) / LEVELS[level]:g}hpa"
    is_surface = level == "surface" if short in STATIC else level in SURFACES
    return short if is_surface else f"{short} ({level})"


def _statistic_of_members(handle: int) -> str:
    """Return which statistic of an ensemble other than its mean a field is (WMO, GRIB 2, code table 4.7); "" if it is none."""
    import eccodes

    derived = eccodes.codes_is_defined(handle, "derivedForecast") and eccodes.codes_get(handle, "derivedForecast", int)
    # In GRIB 1 ecCodes knows the type of data of ECMWF's messages alone.
    kind = eccodes.codes_is_defined(handle, "dataType") and eccodes.codes_get(handle, "dataType")
    if derived in (2, 3, 4, 5, 7, 10) or kind == "es":
        return "spread"
    return {8: "minimum of members", 9: "maximum of members"}.get(derived, "")
