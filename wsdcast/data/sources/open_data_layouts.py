"""Addresses and index formats of the analyses in NOAA's and ECMWF's open data, which appear every six hours.

Sources: https://registry.opendata.aws/noaa-gfs-bdp-pds and https://confluence.ecmwf.int/display/DAC/ECMWF+open+data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

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


def ranges_of(system: str, index: bytes) -> list[Range]:
    """Return where the messages with 10 m wind are in a GRIB file, by its index, in rising order. Two fields can share a message.

    Raises:
        ValueError: if the index cannot be read, or lacks a component of the wind.
    """
    try:
        fields = dict((_gfs_fields if system == "gfs" else _ifs_fields)(index.decode("ascii")))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ValueError("its index cannot be read") from None
    if lacking := sorted({"u", "v"} - fields.keys()):
        raise ValueError(f"its index has no 10 m wind {' and '.join(lacking)}")
    return sorted(set(fields.values()))


def _gfs_fields(index: str) -> Iterator[tuple[str, Range]]:
    """Yield component and range of lines such as ``588:436500000:d=2026112806:UGRD:10 m above ground:anl:``.

    A message ends where the next one begins. Fields that share a message have one offset.
    """
    lines = [line.split(":") for line in index.splitlines()]
    offsets = sorted({int(line[1]) for line in lines})
    ends = dict(zip(offsets, [*offsets[1:], None], strict=True))
    names = {("UGRD", "10 m above ground", "anl"): "u", ("VGRD", "10 m above ground", "anl"): "v"}
    for line in lines:
        if name := names.get((line[3], line[4], line[5])):
            yield name, (int(line[1]), ends[int(line[1])])


def _ifs_fields(index: str) -> Iterator[tuple[str, Range]]:
    """Yield component and range of lines that are JSON objects, with ``_offset`` and ``_length`` of one field each."""
    for line in index.splitlines():
        field: dict[str, Any] = json.loads(line)
        if field["param"] in ("10u", "10v") and field["levtype"] == "sfc" and str(field["step"]) == "0" and field["type"] == "fc":
            begin = int(field["_offset"])
            yield field["param"][-1], (begin, begin + int(field["_length"]))
