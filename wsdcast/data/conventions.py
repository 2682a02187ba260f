"""Brings forecasts of any common layout to the one of this package's own stores, by the names of dimensions and never by their position."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.layout import WIND_NAMES, component_of, is_metres_per_second, order_of, space_of
from wsdcast.data.store import VARIABLES
from wsdcast.errors import UserError

DIMENSIONS = ("time", "number", "prediction_timedelta")
"""Initial time, member and lead time, in order of the dimensions before latitude and longitude."""

INITIAL = ("init_time", "initial_time", "initialization_time", "forecast_reference_time", "reference_time", "base_time", "init")
MEMBER = ("number", "realization", "sample", "member", "ensemble", "ensemble_member")
LEAD = ("prediction_timedelta", "lead_time", "leadtime", "forecast_period", "step", "lead")
"""What they are called by WeatherBench 2, CF, cfgrib, climpred, earth2studio and others, in lower case. ``time`` is the initial time where
nothing else is, and the lead time where its values are differences of time (GraphCast)."""

SECONDS = {"d": 86400, "day": 86400, "h": 3600, "hr": 3600, "hour": 3600, "min": 60, "minute": 60, "s": 1, "sec": 1, "second": 1}
"""Units of lead times that are kept as numbers, in the singular."""


def to_conventions(dataset: xr.Dataset) -> xr.Dataset:
    """The 10 m wind of a dataset of forecasts or analyses as our own stores have it, lazily.

    Variables have the names of WeatherBench 2; dimensions are ``time``, ``number`` and ``prediction_timedelta``, those that there are, then
    latitude from north to south and longitude from 0 eastward. Others of length one are dropped. An initial or lead time that is no
    dimension is a scalar coordinate.

    Raises:
        UserError: if a component is missing or given in other units than m s-1, if the grid is no regular one of the whole globe, or
            another dimension is left over.
    """
    found = {}
    for component, name in zip(WIND_NAMES, VARIABLES, strict=True):
        array = component_of(dataset, component)
        if array is None:
            raise UserError(f"has no {name}")
        units = str(array.attrs.get("units", "m s-1")).strip()  # many forecasts do not say
        if not is_metres_per_second(units):
            raise UserError(f"{array.name} has units '{units}'; expected m s-1")
        found[name] = _in_order(array)
    return xr.Dataset(found)


def _in_order(array: xr.DataArray) -> xr.DataArray:
    names = space_of(array)
    roles = {"time": _called(array, INITIAL), "number": _called(array, MEMBER), "prediction_timedelta": _called(array, LEAD)}
    for name in _called(array, ("time",)):
        role = "prediction_timedelta" if np.issubdtype(array[name].dtype, np.timedelta64) else "time"
        roles[role] = roles[role] or [name]
    for standard, here in roles.items():
        if len(here) > 1:
            raise UserError(f"{array.name}: both '{here[0]}' and '{here[1]}' may be its '{standard}'")
        names |= dict.fromkeys(here, standard)
    others = [dimension for dimension in array.dims if dimension not in names]
    extra = [str(dimension) for dimension in others if array.sizes[dimension] > 1]
    if extra:
        raise UserError(
            f"{array.name} has a dimension '{extra[0]}' of length {array.sizes[extra[0]]}, which is none of a forecast; "
            "its dimensions are initial time, member, lead time, latitude and longitude"
        )
    array = array.squeeze(others).drop_vars([name for name in array.coords if name not in names])
    array = array.rename({name: standard for name, standard in names.items() if name != standard})
    if "prediction_timedelta" in array.coords:
        array = array.assign_coords(prediction_timedelta=_differences(array["prediction_timedelta"]))
    rows, columns, grid = order_of(array)
    array = array.isel(latitude=_as_slice(rows), longitude=_as_slice(columns))
    array = array.assign_coords(latitude=grid.latitude, longitude=grid.longitude)
    return array.transpose(*DIMENSIONS, "latitude", "longitude", missing_dims="ignore")


def _called(array: xr.DataArray, known: tuple[str, ...]) -> list[Hashable]:
    """Dimensions and scalar coordinates with one of some names."""
    names = dict.fromkeys([*array.dims, *array.coords])
    return [name for name in names if str(name).lower() in known and (name in array.dims or array[name].ndim == 0)]


def _differences(lead: xr.DataArray) -> xr.DataArray:
    """Lead times as differences of time where they are numbers with a unit; all others as they are."""
    unit = str(lead.attrs.get("units", "")).strip().lower().removesuffix("s") or "none"
    if not np.issubdtype(lead.dtype, np.number) or unit not in SECONDS:
        return lead
    nanoseconds = (lead.values * float(SECONDS[unit]) * 1e9).round().astype(np.int64)
    return lead.copy(data=nanoseconds.astype("timedelta64[ns]"))


def _as_slice(indices: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """The same as a slice where it is one, forward or backward: files are far quicker in that."""
    if np.all(np.diff(indices) == 1):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    if np.all(np.diff(indices) == -1) and indices[-1] == 0:
        return slice(int(indices[0]), None, -1)
    return indices
