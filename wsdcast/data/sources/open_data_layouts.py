"""Addresses and index formats of the analyses in NOAA's and ECMWF's open data, which appear every six hours.

Sources: https://registry.opendata.aws/noaa-gfs-bdp-pds and https://confluence.ecmwf.int/display/DAC/ECMWF+open+data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wsdcast.data.variables import name_and_level
from wsdcast.runs.errors import UserError

SYSTEMS = ("gfs", "ifs")
"""NOAA's Global Forecast System and ECMWF's Integrated Forecasting System, both at 0.25 degrees."""
ATTRIBUTION = {
    "gfs": "contains modified data of NOAA's Global Forecast System (GFS), which are in the public domain",
    "ifs": "contains modified ECMWF open data, copyright European Centre for Medium-Range Weather Forecasts, licence CC-BY-4.0",
}
"""What must be said of the source, with its licence, wherever something is published from it."""
ROOTS = {
    "gfs": ("https://noaa-gfs-bdp-pds.s3.amazonaws.com",),
    "ifs": (
        "https://storage.googleapis.com/ecmwf-open-data",
        "https://ecmwf-forecasts.s3.eu-central-1.amazonaws.com",
        "https://data.ecmwf.int/forecasts",
    ),
}
"""The public mirrors in the order in which they are asked. ECMWF's own server comes last: it keeps four days and limits connections."""
WITH_ATMOS = np.datetime64("2021-03-23")
"""First day on which GFS has the directory ``atmos``."""
WITHOUT_SCDA = np.datetime64("2026-05-12T06")
"""From this cycle on, those of 06 and 18 UTC of IFS are in the stream ``oper``; before, they were in ``scda``."""

Key = tuple[str, str]
"""Name and level of a field in an index. The level of a surface is the text of GFS, and empty for IFS."""
FIELDS: dict[str, dict[str, Key]] = {
    "gfs": {
        "10m_u_component_of_wind": ("UGRD", "10 m above ground"),
        "10m_v_component_of_wind": ("VGRD", "10 m above ground"),
        "100m_u_component_of_wind": ("UGRD", "100 m above ground"),
        "100m_v_component_of_wind": ("VGRD", "100 m above ground"),
        "2m_temperature": ("TMP", "2 m above ground"),
        "2m_dewpoint_temperature": ("DPT", "2 m above ground"),
        "mean_sea_level_pressure": ("PRMSL", "mean sea level"),
        "surface_pressure": ("PRES", "surface"),
        "total_column_water_vapour": ("PWAT", "entire atmosphere (considered as a single layer)"),
        "sea_ice_cover": ("ICEC", "surface"),
        "geopotential": ("HGT", ""),
        "temperature": ("TMP", ""),
        "u_component_of_wind": ("UGRD", ""),
        "v_component_of_wind": ("VGRD", ""),
        "vertical_velocity": ("VVEL", ""),
        "specific_humidity": ("SPFH", ""),
    },
    "ifs": {
        "10m_u_component_of_wind": ("10u", ""),
        "10m_v_component_of_wind": ("10v", ""),
        "100m_u_component_of_wind": ("100u", ""),
        "100m_v_component_of_wind": ("100v", ""),
        "2m_temperature": ("2t", ""),
        "2m_dewpoint_temperature": ("2d", ""),
        "mean_sea_level_pressure": ("msl", ""),
        "surface_pressure": ("sp", ""),
        "total_column_water_vapour": ("tcwv", ""),
        "geopotential": ("gh", ""),
        "temperature": ("t", ""),
        "u_component_of_wind": ("u", ""),
        "v_component_of_wind": ("v", ""),
        "vertical_velocity": ("w", ""),
        "specific_humidity": ("q", ""),
    },
}
"""The variables of each system, and how its index names them. A variable on pressure levels gets its level from the channel."""

Range = tuple[int, int | None]
"""First byte and last byte (exclusive) of a message; None: the end of the file."""


def roots_of(system: str) -> tuple[str, ...]:
    """Return the mirrors of a system: those of ``WSDCAST_GFS_ROOTS`` or ``WSDCAST_IFS_ROOTS``, separated by commas, or the public ones.

    Raises:
        UserError: if a mirror is neither ``http://…`` nor ``https://…`` nor ``file://…``.
    """
    variable = f"WSDCAST_{system.upper()}_ROOTS"
    replaced = tuple(root.strip().rstrip("/") for root in os.environ.get(variable, "").split(",") if root.strip())
    for root in replaced:
        if not root.startswith(("http://", "https://", "file://")):
            raise UserError(f"{variable}: '{root}' does not begin with http://, https:// or file://")
    return replaced or ROOTS[system]


def paths_of(system: str, time: np.datetime64) -> tuple[str, str]:
    """Return the paths of the GRIB file and of its index below a mirror's root, for one analysis time."""
    day, hour = str(time.astype("datetime64[D]")).replace("-", ""), str(time.astype("datetime64[h]"))[-2:]
    if system == "gfs":
        atmos = "atmos/" if time >= WITH_ATMOS else ""
        path = f"gfs.{day}/{hour}/{atmos}gfs.t{hour}z.pgrb2.0p25.f000"
        return path, f"{path}.idx"
    stream = "scda" if hour in ("06", "18") and time < WITHOUT_SCDA else "oper"
    path = f"{day}/{hour}z/ifs/0p25/{stream}/{day}{hour}0000-0h-{stream}-fc"
    return f"{path}.grib2", f"{path}.index"


def is_offered(system: str, name: str) -> bool:
    """Return whether a system's open data have a channel."""
    return name_and_level(name)[0] in FIELDS[system]


def require_offered(system: str, names: Sequence[str]) -> None:
    """Check that a system's open data have some channels.

    Raises:
        UserError: if they lack one; the message names the variables that they have.
    """
    if lacking := [name for name in names if not is_offered(system, name)]:
        raise UserError(f"{system}: its open data have no {', '.join(lacking)}; they have {', '.join(FIELDS[system])}")


def ranges_of(system: str, index: bytes, names: Sequence[str]) -> list[Range]:
    """Return where the messages of some channels are in a GRIB file, by its index, in rising order. Two fields can share a message.

    Raises:
        ValueError: if the index cannot be read, or lacks a channel.
    """
    wanted = {_key(system, name): name for name in names}
    try:
        fields = {
            wanted[key]: place for key, place in (_gfs_fields if system == "gfs" else _ifs_fields)(index.decode("ascii")) if key in wanted
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ValueError("its index cannot be read") from None
    if lacking := [name for name in names if name not in fields]:
        raise ValueError(f"its index has no {', '.join(lacking)}")
    return sorted(set(fields.values()))


def _key(system: str, name: str) -> Key:
    """Return how the index of a system names a channel."""
    (base, level), fields = name_and_level(name), FIELDS[system]
    if level is None:
        return fields[base]
    return (fields[base][0], f"{level} mb" if system == "gfs" else str(level))


def _gfs_fields(index: str) -> Iterator[tuple[Key, Range]]:
    """Yield key and range of lines such as ``588:436500000:d=2026112806:UGRD:10 m above ground:anl:``.

    A message ends where the next one begins. Fields that share a message have one offset.
    """
    lines = [line.split(":") for line in index.splitlines()]
    offsets = sorted({int(line[1]) for line in lines})
    ends = dict(zip(offsets, [*offsets[1:], None], strict=True))
    for line in lines:
        if line[5] == "anl":
            yield (line[3], line[4]), (int(line[1]), ends[int(line[1])])


def _ifs_fields(index: str) -> Iterator[tuple[Key, Range]]:
    """Yield key and range of lines that are JSON objects, with ``_offset`` and ``_length`` of one field each."""
    for line in index.splitlines():
        field: dict[str, Any] = json.loads(line)
        if str(field["step"]) == "0" and field["type"] == "fc" and field["levtype"] in ("sfc", "pl"):
            begin = int(field["_offset"])
            yield (field["param"], str(field["levelist"]) if field["levtype"] == "pl" else ""), (begin, begin + int(field["_length"]))
