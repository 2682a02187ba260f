"""The variables that can be forecast: their names, units and physical ranges. The static fields: their names and units.

A channel is a variable, or a variable on one pressure level. Its name is WeatherBench 2's, with the level in hPa after ``@``:
``2m_temperature``, ``geopotential@500``.

The ranges are wide: a value outside of them is an error of units or packing, or a forecast that has blown up. Extremes of surface weather
are those of the World Meteorological Organization's archive (wmo.asu.edu), with a margin: a gust of 113 m s-1; -89.2 and 56.7 degC at 2 m;
870 and 1089 hPa at sea level; 1.825 m of rain in a day. Sunlight is at most 1361 W m-2 (Kopp and Lean 2011), 3.4 % more in January. The
wind on pressure levels reaches beyond 150 m s-1 in the polar night of the stratosphere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from wsdcast.runs.errors import UserError


class Variable(NamedTuple):
    """What is known of one variable of WeatherBench 2.

    Attributes:
        kind: whether it has one field a time (``surface``) or one on each pressure level (``pressure``).
        units: its units here, as CF writes them.
        standard_name: its CF standard name.
        lowest, highest: range of values that are possible, in ``units``. Use :func:`physical_range`, which knows levels.
        grib: ecCodes' short names.
        names: further names in NetCDF and Zarr, in lower case: of ECMWF, of the Climate Data Store, of wgrib2 for GFS, of CMIP.
        height: height above ground in m, if it is measured at one.
        non_negative: whether it cannot be negative.
        absent: its value where it does not exist, such as that of the sea surface on land; None if it exists everywhere.
    """

    kind: Literal["surface", "pressure"]
    units: str
    standard_name: str
    lowest: float
    highest: float
    grib: tuple[str, ...]
    names: tuple[str, ...] = ()
    height: float | None = None
    non_negative: bool = False
    absent: float | None = None


DEFAULT = ("10m_u_component_of_wind", "10m_v_component_of_wind")
"""The channels of a recipe that names none."""

SPEED = "10m_wind_speed"
"""The wind speed, which some stores have as a further variable."""

GRAVITY = 9.80665
"""In m s-2. Geopotential is gravity times geopotential height."""

_U10, _V10 = (
    ("u10", "10u", "u10m", "u_10m", "10m_u", "var_10u", "ugrd_10maboveground", "ugrd10m", "uas"),
    ("v10", "10v", "v10m", "v_10m", "10m_v", "var_10v", "vgrd_10maboveground", "vgrd10m", "vas"),
)

VARIABLES: dict[str, Variable] = {
    DEFAULT[0]: Variable("surface", "m s-1", "eastward_wind", -120, 120, ("10u",), _U10, height=10),
    DEFAULT[1]: Variable("surface", "m s-1", "northward_wind", -120, 120, ("10v",), _V10, height=10),
    SPEED: Variable("surface", "m s-1", "wind_speed", 0, 120, ("10si",), ("si10", "sfcwind"), height=10, non_negative=True),
    "100m_u_component_of_wind": Variable(
        "surface", "m s-1", "eastward_wind", -150, 150, ("100u",), ("u100", "u100m", "ugrd_100maboveground", "100u"), height=100
    ),
    "100m_v_component_of_wind": Variable(
        "surface", "m s-1", "northward_wind", -150, 150, ("100v",), ("v100", "v100m", "vgrd_100maboveground", "100v"), height=100
    ),
    "2m_temperature": Variable("surface", "K", "air_temperature", 173, 338, ("2t",), ("t2m", "2t", "tmp_2maboveground", "tas"), height=2),
    "2m_dewpoint_temperature": Variable(
        "surface", "K", "dew_point_temperature", 150, 318, ("2d",), ("d2m", "2d", "dpt_2maboveground"), height=2
    ),
    "mean_sea_level_pressure": Variable(
        "surface", "Pa", "air_pressure_at_mean_sea_level", 85000, 110000, ("msl", "prmsl"), ("msl", "prmsl", "prmsl_meansealevel", "psl")
    ),
    "surface_pressure": Variable("surface", "Pa", "surface_air_pressure", 30000, 110000, ("sp",), ("sp", "pres_surface", "ps")),
    "total_column_water_vapour": Variable(
        "surface",
        "kg m-2",
        "atmosphere_mass_content_of_water_vapor",
        -1,
        150,
        ("tcwv", "pwat"),
        ("tcwv", "pwat", "prw"),
        non_negative=True,
    ),
    "total_cloud_cover": Variable("surface", "1", "cloud_area_fraction", 0, 1.001, ("tcc",), ("tcc", "clt"), non_negative=True),
    "total_precipitation_6hr": Variable("surface", "m", "lwe_thickness_of_precipitation_amount", -1e-3, 2, (), non_negative=True),
    "sea_surface_temperature": Variable(
        "surface", "K", "sea_surface_temperature", 265, 315, ("sst",), ("sst", "sstk", "tos"), absent=271.35
    ),
    "sea_ice_cover": Variable(
        "surface", "1", "sea_ice_area_fraction", 0, 1.001, ("ci", "siconc"), ("siconc", "ci", "icec_surface"), non_negative=True, absent=0
    ),
    "toa_incident_solar_radiation": Variable(
        "surface",
        "J m-2",
        "integral_wrt_time_of_toa_incoming_shortwave_flux",
        -1,
        5.1e6,
        ("tisr",),
        ("tisr",),
        non_negative=True,
    ),
    "geopotential": Variable("pressure", "m2 s-2", "geopotential", -2e4, 6e5, ("z", "gh"), ("z", "gh", "hgt", "zg", "geopotential_height")),
    "temperature": Variable("pressure", "K", "air_temperature", 150, 350, ("t",), ("t", "tmp", "ta")),
    "u_component_of_wind": Variable("pressure", "m s-1", "eastward_wind", -250, 250, ("u",), ("u", "ugrd", "ua")),
    "v_component_of_wind": Variable("pressure", "m s-1", "northward_wind", -250, 250, ("v",), ("v", "vgrd", "va")),
    "vertical_velocity": Variable("pressure", "Pa s-1", "lagrangian_tendency_of_air_pressure", -100, 100, ("w",), ("w", "vvel", "wap")),
    "specific_humidity": Variable("pressure", "kg kg-1", "specific_humidity", -1e-3, 0.05, ("q",), ("q", "spfh", "hus"), non_negative=True),
}
"""The variables by their names in WeatherBench 2."""


class StaticField(NamedTuple):
    """What is known of a field that does not change.

    Attributes:
        short: its short name in GRIB, which NetCDF files have too.
        units: its units here.
    """

    short: str
    units: str


STATIC_FIELDS = {
    "land_sea_mask": StaticField("lsm", "1"),
    "geopotential_at_surface": StaticField("z", "m2 s-2"),
    "standard_deviation_of_orography": StaticField("sdor", "m"),
    "slope_of_sub_gridscale_orography": StaticField("slor", "1"),
    "anisotropy_of_sub_gridscale_orography": StaticField("isor", "1"),
    "angle_of_sub_gridscale_orography": StaticField("anor", "radians"),
}
"""The static fields by their names in WeatherBench 2."""

PAIRS = (DEFAULT, ("100m_u_component_of_wind", "100m_v_component_of_wind"))
"""The eastward and the northward wind at the same height."""


def name_and_level(name: str) -> tuple[str, int | None]:
    """Return the variable of a channel and its level in hPa; None for a variable that has no levels.

    Raises:
        UserError: if there is no such variable, or if it has a level where it should have none, or none where it should have one.
    """
    base, at, level = name.partition("@")
    if base not in VARIABLES:
        if known := next((known for known, entry in VARIABLES.items() if base.lower() in (*entry.grib, *entry.names)), None):
            raise UserError(f"no variable '{base}'; it is called {known} here")
        raise UserError(f"no variable '{base}'; the variables are {', '.join(VARIABLES)}")
    if VARIABLES[base].kind == "surface":
        if at:
            raise UserError(f"variable '{name}': {base} has no levels")
        return base, None
    if not level.isdecimal() or not 1 <= int(level) <= 1100 or level != str(int(level)):
        raise UserError(f"variable '{name}': {base} needs a pressure level in whole hPa, as {base}@500")
    return base, int(level)


def variable(name: str) -> Variable:
    """Return what is known of the variable of a channel.

    Raises:
        UserError: as :func:`name_and_level`.
    """
    return VARIABLES[name_and_level(name)[0]]


def physical_range(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a channel can have, in its units.

    The range of a geopotential follows from the hypsometric equation, with a mean temperature of the air between the level and the sea of
    190 to 315 K, and a pressure at sea level of 870 to 1090 hPa.
    """
    base, level = name_and_level(name)
    if base == "geopotential" and level is not None:
        bounds = [287.05 * kelvin * math.log(pressure / level) for kelvin in (190, 315) for pressure in (870, 1090)]
        return min(bounds), max(bounds)
    return VARIABLES[base].lowest, VARIABLES[base].highest


def long_name(name: str) -> str:
    """Return the name of a channel in words, such as ``10 m eastward wind`` and ``geopotential at 500 hPa``.

    Labels and CF attributes have these words.
    """
    base, level = name_and_level(name)
    entry = VARIABLES[base]
    words = f"{entry.height:g} m {entry.standard_name}" if entry.height is not None else re.sub(r"_(\d+)hr$", r" in \1 h", base)
    return words.replace("_", " ") + ("" if level is None else f" at {level} hPa")


def words(name: str) -> str:
    """Return a channel as messages name it."""
    return f"10 m wind {'uv'[DEFAULT.index(name)]}" if name in DEFAULT else name


def channel_units_in_words(name: str) -> str:
    """Return the units of a channel as messages and figures have them."""
    return units_in_words(variable(name).units)


def units_in_words(units: str) -> str:
    """Return units as messages and figures have them, such as ``m/s`` and ``°C``."""
    return re.sub(r" (\w+)-1$", r"/\1", units).replace("degC", "°C")


def decimals_of(spread: float, figures: int) -> int:
    """Return the decimals with which a spread has this many significant figures. Values that vary as much are shown with as many."""
    return max(0, figures - 1 - math.floor(math.log10(spread))) if 0 < spread < math.inf else 0


def short_name(name: str) -> str:
    """Return the name of a channel in NetCDF: its short name and its level, such as ``u10`` and ``z_500``.

    CF wants names of letters, digits and underscores that begin with a letter.
    """
    base, level = name_and_level(name)
    return next(iter(VARIABLES[base].names), base) + ("" if level is None else f"_{level}")


def attributes(name: str) -> dict[str, Any]:
    """Return the CF attributes of a channel's array; on a pressure level also ``pressure_level``, in hPa."""
    entry, (_, level) = variable(name), name_and_level(name)
    levels = {} if level is None else {"pressure_level": level}
    return {"standard_name": entry.standard_name, "long_name": long_name(name), "units": entry.units, **levels}


def wind_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the channels that are the eastward and the northward wind at one height or level, in the order of the eastward ones."""
    pairs = []
    for name in names:
        base, level = name_and_level(name)
        partner = f"v_component_of_wind@{level}" if base == "u_component_of_wind" else dict(PAIRS).get(base)
        if partner is not None and partner in names:
            pairs.append((name, partner))
    return pairs
