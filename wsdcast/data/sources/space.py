"""Latitudes and longitudes of a source: which coordinates they are, and their order."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import ROUNDING, Grid
from wsdcast.runs.errors import UserError

SPACE_NAMES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon")}
COMPASS = {
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}
"""Units that mark a latitude or a longitude of any name (CF conventions, sections 4.1 and 4.2)."""
BACKWARD = {
    "latitude": {"degrees_south", "degree_south", "degrees_s", "degree_s", "degreess"},
    "longitude": {"degrees_west", "degree_west", "degrees_w", "degree_w", "degreesw", "degreew"},
}
"""Units that mark one that grows the other way. CF knows none of them, and there are files in which the values grow as usual."""


def space_of(array: xr.DataArray) -> dict[Hashable, str]:
    """Return the array's own names of latitude and longitude, in this order, each with the standard name as its value.

    Raises:
        UserError: if one of them is missing, is not a dimension, or is in degrees west or south.
    """
    names: dict[Hashable, str] = {}
    for standard, known in SPACE_NAMES.items():
        candidates = [name for name in array.coords if str(name).lower() in known or _is_compass(array[name], standard)]
        if not candidates:
            raise UserError(f"{array.name} has no coordinate '{standard}'")
        if array[candidates[0]].dims != (candidates[0],):
            advice = "bring it to a global grid of latitudes and longitudes first"
            raise UserError(f"{array.name} is on no regular grid: '{candidates[0]}' is not one of its dimensions; {advice}")
        if _units(array[candidates[0]]) in BACKWARD[standard]:
            expected = {"latitude": "degrees_north", "longitude": "degrees_east"}[standard]
            raise UserError(f"{candidates[0]} has units '{array[candidates[0]].attrs['units']}'; expected {expected}")
        names[candidates[0]] = standard
    return names


def _is_compass(coordinate: xr.DataArray, standard: str) -> bool:
    return coordinate.attrs.get("standard_name") == standard or _units(coordinate) in COMPASS[standard] | BACKWARD[standard]


def _units(coordinate: xr.DataArray) -> str:
    return str(coordinate.attrs.get("units", "")).strip().lower()


def order_of(array: xr.Dataset | xr.DataArray) -> tuple[NDArray[np.intp], NDArray[np.intp], Grid]:
    """Return indices that order latitudes from north to south and longitudes from 0 eastward, and the grid in that order.

    Raises:
        UserError: if the coordinates are not a regular grid of the whole globe.
    """
    rows, columns, latitude, longitude = axes_of(array)
    return rows, columns, Grid(latitude, longitude)


def axes_of(array: xr.Dataset | xr.DataArray) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return what :func:`order_of` returns, but for any part of the globe: indices, then latitudes and longitudes in that order."""
    latitude, longitude = (array[name].values.astype(np.float64) for name in ("latitude", "longitude"))
    latitude = np.where(np.abs(latitude) <= 90 + ROUNDING, np.clip(latitude, -90, 90), latitude)
    rows, longitude = np.argsort(-latitude), longitude % 360
    longitude[360 - longitude < 1e-6] = 0.0  # -1e-11 % 360 is almost 360
    # Many files repeat the first column as the last one. It is taken once.
    _, columns = np.unique(longitude.round(6), return_index=True)
    return rows, columns, latitude[rows], _equal_steps(longitude[columns])


def _equal_steps(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return longitudes in exact equal steps round the circle if they only differ from these by rounding; else return them unchanged."""
    exact = longitude[0] + 360 / longitude.size * np.arange(longitude.size)
    return exact if 1e-6 < np.abs(longitude - exact).max() <= min(ROUNDING, 18 / longitude.size) else longitude
