"""Recognises the initial time, lead time, valid time and member among the coordinates of a forecast, whatever their names are."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.sources.space import space_of
from wsdcast.runs.errors import UserError

NAMES = {
    "time": (
        "init_time",
        "initial_time",
        "initialization_time",
        "forecast_reference_time",
        "reference_time",
        "reftime",
        "analysis_time",
        "start_time",
        "base_time",
        "init",
        "initialization",
    ),
    "number": ("number", "realization", "realisation", "sample", "member", "ensemble", "ensemble_member", "ens"),
    "prediction_timedelta": ("prediction_timedelta", "lead_time", "forecast_period", "forecast_lead_time", "leadtime", "step", "lead"),
    "valid_time": ("valid_time", "validtime", "verification_time", "datetime"),
}
"""Known names of each axis, in lower case. ``time`` is not among them because it has several meanings (:func:`_times_of`)."""
STANDARD_NAMES = {
    "time": "forecast_reference_time",
    "number": "realization",
    "prediction_timedelta": "forecast_period",
    "valid_time": "time",
}
"""CF standard name of each axis."""

SECONDS = {
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
}
"""Seconds of each unit that a lead time stored as a number can have."""


def with_forecast_axes(array: xr.DataArray) -> xr.DataArray:
    """Return the array with its axes named ``time`` (initial time), ``number`` and ``prediction_timedelta``, as far as it has them.

    Two of initial, lead and valid time are enough, because the third follows. An initial or lead time without a dimension becomes a scalar
    coordinate. All other coordinates except latitude and longitude are dropped.

    Raises:
        UserError: if two dimensions can be the same axis, or if initial and lead time do not vary along one dimension each, as in fields
            that are stored by valid time.
    """
    start, lead = _times_of(array)
    if start is not None and lead is not None:
        lead = _reduced(lead)
        start = _reduced(start, lead.dims)
        lead = _reduced(lead, start.dims)
        if {*start.dims} & {*lead.dims} or max(start.ndim, lead.ndim) > 1:
            raise UserError(
                f"{array.name} is stored by valid time: initial and lead time do not vary along one dimension each; "
                "store it by initial time (valid time less lead time) and lead time"
            )
    members = [name for name in array.dims if _is_called(array, name, "number")]
    _require_one(array, members, "number")
    kept = array.drop_vars([name for name in array.coords if name not in space_of(array)])
    names, values = dict.fromkeys(members, "number"), dict[str, Any]()
    if members and members[0] in array.coords:
        values["number"] = ("number", array[members[0]].values)
    for standard, coordinate in (("time", start), ("prediction_timedelta", lead)):
        if coordinate is not None:
            names |= dict.fromkeys(coordinate.dims, standard)
            values[standard] = (standard if coordinate.dims else (), coordinate.values)
    return kept.rename(names).assign_coords(values)


def _times_of(array: xr.DataArray) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """Return initial and lead time. Each is None if the array neither has it nor implies it.

    What a coordinate ``time`` is follows from the others, unless its standard name says that it is the initial time:

    =====================  ============  ==========  =========  ==================================================================
    ``time`` holds         initial time  valid time  lead time  ``time`` is
    =====================  ============  ==========  =========  ==================================================================
    differences of time    any           any         none       the lead time
    differences of time    any           any         one        not used
    times                  none          none        none       the initial time
    times                  none          none        one        the initial time, or the valid time if both vary together
    times                  none          one         none       the initial time
    times                  none          one         one        not used: the initial time is the valid time less the lead time
    times                  one           none        any        the valid time
    times                  one           one         any        not used
    =====================  ============  ==========  =========  ==================================================================

    Raises:
        UserError: if the array has only a valid time, or if two dimensions can be the same axis.
    """
    start, lead, valid = (_coordinate(array, role) for role in ("time", "prediction_timedelta", "valid_time"))
    time = next((array.coords[name] for name in array.coords if str(name).lower() == "time"), None)
    if valid is not None and time is not None and valid.name == time.name:
        valid = None  # its standard name is ``time``, which says no more than its name
    if time is not None and _has(time, np.timedelta64):
        lead = time if lead is None else lead
    elif time is not None and start is None and (valid is None or lead is None):
        start = time
    elif time is not None and start is not None and start.name != time.name and valid is None:
        valid = time
    lead = None if lead is None else _as_differences(lead)
    valid = valid if valid is not None and _has(valid, np.datetime64) else None
    if start is None and lead is None and valid is not None:
        raise UserError(f"{array.name} is stored by valid time alone ('{valid.name}'); store it by initial time and lead time")
    if start is None and lead is not None and valid is not None:
        return _less(valid, lead), lead
    if lead is None and start is not None and valid is not None and _has(start, np.datetime64):
        return start, _less(valid, start)
    if start is not None and lead is not None and start.name == "time" and _has(start, np.datetime64) and _has(lead, np.timedelta64):
        shared = {*start.dims} & {*lead.dims}
        if shared and not any(_constant(one, name) for one in (start, lead) for name in shared):
            return _less(start, lead), lead  # `time` and the lead time vary together: it is the valid time of one forecast
    return start, lead


def _coordinate(array: xr.DataArray, role: str) -> xr.DataArray | None:
    """Return the coordinate of one axis (a key of :data:`NAMES`), or None if there is none. A dimension is preferred to others.

    Raises:
        UserError: if two dimensions can be this axis.
    """
    names = [name for name in array.coords if _is_called(array, name, role)]
    dimensions = [name for name in names if name in array.dims]
    _require_one(array, dimensions, role)
    return array.coords[[*dimensions, *names][0]] if names else None


def _is_called(array: xr.DataArray, name: Hashable, role: str) -> bool:
    standard = array[name].attrs.get("standard_name") if name in array.coords else None
    return standard == STANDARD_NAMES[role] or (str(name).lower() in NAMES[role] and standard not in STANDARD_NAMES.values())


def _require_one(array: xr.DataArray, names: Sequence[Hashable], role: str) -> None:
    if len(names) > 1:
        raise UserError(f"{array.name}: both '{names[0]}' and '{names[1]}' may be its '{role}'")


def _has(coordinate: xr.DataArray, kind: Any) -> bool:
    return np.issubdtype(coordinate.dtype, kind)


def _as_differences(lead: xr.DataArray) -> xr.DataArray:
    """Convert numbers with a unit of time to differences of time, to the second; return other coordinates unchanged."""
    size = SECONDS.get(str(lead.attrs.get("units", "")).strip().lower())
    if size is None or not _has(lead, np.number) or _has(lead, np.timedelta64):
        return lead
    seconds = np.rint(lead.values.astype(np.float64) * size).astype("timedelta64[s]").astype("timedelta64[ns]")
    return lead.copy(data=seconds) if lead.name not in lead.dims else lead.assign_coords({lead.name: (lead.dims, seconds)})[lead.name]


def _less(one: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """Return ``one`` less ``other`` by position. Their labels may differ: one may still have lead times as numbers."""
    return xr.DataArray(one.variable - other.variable)


def _constant(coordinate: xr.DataArray, dimension: Hashable) -> bool:
    return bool((coordinate == coordinate.isel({dimension: 0})).all())


def _reduced(coordinate: xr.DataArray, shared: Sequence[Hashable] = ()) -> xr.DataArray:
    """Remove dimensions along which a coordinate is constant: all that are in ``shared``, then others while more than one is left."""
    for dimension in sorted(coordinate.dims, key=lambda name: name not in shared):
        if (dimension in shared or coordinate.ndim > 1) and _constant(coordinate, dimension):
            coordinate = coordinate.isel({dimension: 0})
    return coordinate
