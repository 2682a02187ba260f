"""Which coordinates of a forecast are its initial time, lead time, valid time and member, whatever wrote it and whatever it calls them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wsdcast.data.sources.layout import space_of
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
"""In lower case. ``time`` is none of them: it is the initial time, the valid time where there is an initial time of another name, and the
lead time where its values are differences of time (GraphCast)."""
STANDARD_NAMES = {
    "time": "forecast_reference_time",
    "number": "realization",
    "prediction_timedelta": "forecast_period",
    "valid_time": "time",
}
"""Of CF, for the same."""

SECONDS = {
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
}
"""Units of lead times that are numbers."""


def with_forecast_axes(array: xr.DataArray) -> xr.DataArray:
    """The same values with the dimensions ``time`` (initial time), ``number`` and ``prediction_timedelta``, those that there are.

    Of initial, lead and valid time two are enough: the third follows. An initial or lead time without a dimension becomes a scalar
    coordinate. Coordinates other than these and latitude and longitude are dropped.

    Raises:
        UserError: if two dimensions may be the same of these, or initial and lead time do not vary along one dimension each, as where
            fields are stored by valid time.
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
    return kept.rename({name: standard for name, standard in names.items() if name != standard}).assign_coords(values)


def _times_of(array: xr.DataArray) -> tuple[xr.DataArray | None, xr.DataArray | None]:
    """Initial and lead time, each None where it neither is there nor follows."""
    start, lead, valid = (_coordinate(array, role) for role in ("time", "prediction_timedelta", "valid_time"))
    plain = next((array.coords[name] for name in array.coords if str(name).lower() == "time"), None)
    if plain is not None and _has(plain, np.timedelta64):
        lead = plain if lead is None else lead
    elif plain is not None and start is None and (valid is None or valid.name == plain.name or lead is None):
        start, valid = plain, None if valid is None or valid.name == plain.name else valid
    elif plain is not None and start is not None and plain.name != start.name and valid is None:
        valid = plain
    lead = None if lead is None else _as_differences(lead)
    valid = valid if valid is not None and _has(valid, np.datetime64) else None
    if start is None and lead is not None and valid is not None:
        return valid - lead, lead
    if lead is None and start is not None and valid is not None and _has(start, np.datetime64):
        return start, valid - start
    if start is None and lead is None and valid is not None:
        raise UserError(f"{array.name} is stored by valid time alone ('{valid.name}'); store it by initial time and lead time")
    if start is not None and lead is not None and start.name == "time" and _has(start, np.datetime64) and _has(lead, np.timedelta64):
        # Where `time` and the lead time vary together, it is the valid time of one forecast.
        shared = {*start.dims} & {*lead.dims}
        if shared and not any(_constant(one, name) for one in (start, lead) for name in shared):
            start = start - lead
    return start, lead


def _coordinate(array: xr.DataArray, role: str) -> xr.DataArray | None:
    """The coordinate of one role, one that is a dimension first; None where there is none.

    Raises:
        UserError: if two dimensions have this role.
    """
    found = [name for name in array.coords if _is_called(array, name, role)]
    dimensions = [name for name in found if name in array.dims]
    _require_one(array, dimensions, role)
    return array.coords[[*dimensions, *found][0]] if found else None


def _is_called(array: xr.DataArray, name: Hashable, role: str) -> bool:
    standard = array[name].attrs.get("standard_name") if name in array.coords else None
    return standard == STANDARD_NAMES[role] or (str(name).lower() in NAMES[role] and standard not in STANDARD_NAMES.values())


def _require_one(array: xr.DataArray, names: Sequence[Hashable], role: str) -> None:
    if len(names) > 1:
        raise UserError(f"{array.name}: both '{names[0]}' and '{names[1]}' may be its '{role}'")


def _has(coordinate: xr.DataArray, kind: Any) -> bool:
    return np.issubdtype(coordinate.dtype, kind)


def _as_differences(lead: xr.DataArray) -> xr.DataArray:
    """Numbers with a unit of time as differences of time, to the second; all else as it is."""
    size = SECONDS.get(str(lead.attrs.get("units", "")).strip().lower())
    if size is None or not _has(lead, np.number) or _has(lead, np.timedelta64):
        return lead
    seconds = np.rint(lead.values.astype(np.float64) * size).astype("timedelta64[s]").astype("timedelta64[ns]")
    return lead.copy(data=seconds) if lead.name not in lead.dims else lead.assign_coords({lead.name: (lead.dims, seconds)})[lead.name]


def _constant(coordinate: xr.DataArray, dimension: Hashable) -> bool:
    return bool((coordinate == coordinate.isel({dimension: 0})).all())


def _reduced(coordinate: xr.DataArray, shared: Sequence[Hashable] = ()) -> xr.DataArray:
    """The coordinate without dimensions along which it is constant: those in ``shared`` first, others only while it has several."""
    for dimension in sorted(coordinate.dims, key=lambda name: name not in shared):
        if (dimension in shared or coordinate.ndim > 1) and _constant(coordinate, dimension):
            coordinate = coordinate.isel({dimension: 0})
    return coordinate
