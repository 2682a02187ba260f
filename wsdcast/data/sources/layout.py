"""Brings datasets of common layouts to one layout: channels with dimensions (time, latitude, longitude), in known units.

Variables and dimensions are recognised by their names and attributes, never by their position.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.sources.naming import Finder, Found, levels_of
from wsdcast.data.sources.space import SPACE_NAMES, order_of, space_of
from wsdcast.data.sources.units import SAME, Conversion, conversion
from wsdcast.data.variables import STATIC_FIELDS, variable
from wsdcast.runs.errors import UserError

TIME_NAMES = ("valid_time", "time", "date", "datetime")
"""``valid_time`` comes first: in a file with both, ``time`` is the initial time of a forecast."""
CHANNEL = "channel"
"""Name of the dimension of channels that one variable has on its levels."""


@dataclass(frozen=True)
class Stored:
    """A variable of a source, lazily, and what :func:`values_of` needs to know to read it.

    Attributes:
        array: ([expver, channel,] time, latitude, longitude). The order along each dimension is that of the source, but final ERA5 is the
            first ``expver``.
        chunk: number of times in one chunk of the source.
        tile: number of latitudes and of longitudes in one chunk of the source.
        lead_hours: its largest lead time in hours; 0 for analyses.
        conversion: brings its values to our units.
        can_be_constant: whether the same value may be in a whole chunk.
    """

    array: xr.DataArray
    chunk: int
    tile: tuple[int, int]
    lead_hours: float
    conversion: Conversion
    can_be_constant: bool


StoredByChannels = dict[tuple[str, ...], Stored]
"""Channels that are stored in one variable and can be read together, with that variable."""


def fields_of(dataset: xr.Dataset, names: Sequence[str]) -> StoredByChannels:
    """Return the channels of a dataset that are among ``names``, lazily.

    The dimensions are (time, latitude, longitude). If a variable has several of the channels on its levels, ``channel`` comes first, in the
    order of the key. Other dimensions of length one are dropped. The dimension ``expver``, along which a file can hold ERA5 and its
    preliminary version, is kept as the first one, and :func:`values_of` merges it.

    Raises:
        UserError: if the units are unknown or not those of the variable, if a coordinate is missing, or if there is another dimension.
    """
    stored: dict[Hashable, list[tuple[str, Found]]] = {}
    finder = Finder(dataset)
    for name in names:
        if (found := finder.find(name)) is not None:
            stored.setdefault(name if found.dimension is None else (found.array.name, found.dimension), []).append((name, found))
    fields: StoredByChannels = {}
    for channels in stored.values():
        keys, places = zip(*sorted(channels, key=lambda channel: channel[1].position), strict=True)
        (array, dimension, _), entry = places[0], variable(keys[0])
        units = conversion(str(array.attrs.get("units", "")), entry.units, array.name)
        if dimension is not None:
            array = array.isel({dimension: [found.position for found in places]})
            array = array.drop_vars([dimension], errors="ignore").rename({dimension: CHANNEL})
        fields[keys] = _stored(array, units, entry.non_negative or entry.absent is not None)
    return fields


def select(fields: StoredByChannels, names: tuple[str, ...]) -> Stored:
    """Return the variable of some channels of one key of :func:`fields_of`, without ``channel`` if it is one."""
    key = next(key for key in fields if names[0] in key)
    if len(key) == 1 or names == key:
        return fields[key]
    positions = [key.index(name) for name in names]
    stored = fields[key]
    return replace(stored, array=stored.array.isel({CHANNEL: positions if len(positions) > 1 else positions[0]}))


def static_of(dataset: xr.Dataset) -> tuple[dict[str, Stored], list[str]]:
    """Return the static fields that a dataset has, each (time, latitude, longitude), and notes about those whose units are unknown.

    Their names and units are those of :data:`wsdcast.data.variables.STATIC_FIELDS`.
    """
    fields, notes = dict[str, Stored](), list[str]()
    for name, (short, expected) in STATIC_FIELDS.items():
        array = next((dataset[alias] for alias in (name, short) if alias in dataset.data_vars), None)
        # `z` is also the geopotential on pressure levels, which is not static.
        if array is not None and levels_of(array) is None:
            if not any(str(name).lower() in TIME_NAMES for name in array.coords):
                array = array.expand_dims(time=np.zeros(1, dtype="datetime64[ns]"))
            try:
                stored = _stored(array, SAME, can_be_constant=True)  # a part of the globe may be sea
            except UserError:
                continue  # a variable with other dimensions is not a static field
            try:
                # A variable without units is a number (CF conventions, section 3.1).
                units = str(array.attrs.get("units", "1" if expected == "1" else ""))
                fields[name] = replace(stored, conversion=conversion(units, expected, array.name))
            except UserError as error:
                notes.append(f"static field {error}; it is left out")
    return fields, notes


def values_of(stored: Stored, indices: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the values at chosen times of a variable, ([channel,] time, latitude, longitude), in our units.

    Latitudes go from north to south and longitudes from 0 eastward. If the variable has several versions (``expver``), each value is that
    of final ERA5 (expver 1), or that of the preliminary ERA5T (expver 5) where ERA5 is missing. A chunk of a part of the globe that has one
    value throughout is missing, unless it ``can_be_constant`` or is of a row at a pole.

    Raises:
        UserError: if the coordinates are not a regular grid of the whole globe.
    """
    strides = np.diff(indices)
    usual = int(np.median(strides)) if strides.size else 1
    runs = np.split(indices, np.flatnonzero((strides <= 0) | (strides > max(usual, stored.chunk))) + 1)
    values = np.concatenate([_run(stored, run) for run in runs], axis=-3)
    if "expver" in stored.array.dims:
        merged = values[0]
        for version in values[1:]:
            merged = np.where(np.isnan(merged), version, merged)
        values = merged
    rows, columns, grid = order_of(stored.array)
    if not stored.can_be_constant:
        values = _without_lost_chunks(values, stored.tile, rows[np.abs(grid.latitude) == 90].tolist())
    if np.any(np.diff(rows) != 1):
        values = values[..., rows, :]
    if columns.size != values.shape[-1] or np.any(np.diff(columns) != 1):
        values = values[..., columns]
    factor, shift = stored.conversion
    return (values if stored.conversion == SAME else values * factor + shift).astype(np.float32, copy=False)


def _without_lost_chunks(values: NDArray[np.floating], tile: tuple[int, int], poles: list[int]) -> NDArray[np.floating]:
    """Return values with NaN in chunks with the same value everywhere, because other programs copy a lost chunk as its fill value.

    Chunks that hold whole fields are left: ``blocks._check`` refuses whole fields of one value. So are chunks of one of the rows ``poles``,
    along which temperature has one value: of 721 rows, most sizes of chunks leave one over.
    """
    (height, width), shape = tile, values.shape[-2:]
    if height >= shape[0] and width >= shape[1]:
        return values
    lost = np.zeros(values.shape, dtype=bool)
    for row in range(0, shape[0], height):
        for column in range(0, shape[1], width):
            chunk = (..., slice(row, row + height), slice(column, column + width))
            part = values[chunk]
            rows, columns = part.shape[-2:]
            if rows * columns > 4 and not (rows == 1 and row in poles):
                lost[chunk] = part.min(axis=(-2, -1), keepdims=True) == part.max(axis=(-2, -1), keepdims=True)
    return np.where(lost, np.nan, values) if lost.any() else values


def _run(stored: Stored, indices: NDArray[np.intp]) -> NDArray[np.floating]:
    """Return the values at ``indices``, which rise without a large step, in one read."""
    first, last, strides = int(indices[0]), int(indices[-1]) + 1, np.diff(indices)
    if strides.size and (strides == strides[0]).all() and stored.chunk < strides[0]:
        return stored.array.isel(time=slice(first, last, int(strides[0]))).values
    # The times of one chunk are unpacked together anyway, and NetCDF is slow at reading a list of indices.
    values = stored.array.isel(time=slice(first, last)).values
    return values if values.shape[-3] == indices.size else values[..., indices - first, :, :]


def dates_of(times: xr.DataArray, what: object) -> NDArray[np.datetime64]:
    """Return times as numpy datetimes. ``what`` begins the error message.

    Raises:
        UserError: if the times have another calendar, or if nanoseconds cannot represent them.
    """
    if np.issubdtype(times.dtype, np.datetime64):
        return times.values
    first: Any = times.values.flat[0] if times.size else None
    if getattr(first, "calendar", "") in ("standard", "gregorian", "proleptic_gregorian"):
        raise UserError(f"{what}: its times begin in the year {first.year}; only the years 1678 to 2262 can be read")
    raise UserError(f"{what}: its times are no dates of the standard calendar")


def _stored(array: xr.DataArray, units: Conversion, can_be_constant: bool) -> Stored:
    """Return a variable with only the dimensions ([expver, channel,] time, latitude, longitude).

    Raises:
        UserError: if it has no time, latitude or longitude, if its times are no dates, or if it has another dimension.
    """
    sizes, space = array.encoding.get("preferred_chunks") or {}, space_of(array)
    array = array.rename(space)
    array = array.squeeze([name for name in array.dims if name not in SPACE_NAMES and array.sizes[name] == 1])
    time = _time_of(array)
    along = next(iter(array[time].dims), time)
    array = _final_first(_along_time(array, time))
    _require_known(array, time)
    dates_of(array[time], array.name)
    kept = array.drop_vars([name for name in array.coords if name not in (time, *SPACE_NAMES)])
    kept = kept.rename({time: "time"})
    rows, columns = (int(sizes.get(name, array.sizes[standard])) for name, standard in space.items())
    return Stored(
        kept.transpose(*(name for name in ("expver", CHANNEL) if name in kept.dims), "time", *SPACE_NAMES),
        # The number of times in one chunk is stored under the name that the dimension had in the source.
        chunk=next((int(sizes[name]) for name in ("time", time, along) if name in sizes), 1),
        tile=(rows, columns),
        lead_hours=_lead_hours(array),
        conversion=units,
        can_be_constant=can_be_constant,
    )


def _time_of(array: xr.DataArray) -> Hashable:
    """Return the name of the coordinate that has the times of the values.

    Raises:
        UserError: if there is none.
    """
    for known in TIME_NAMES:
        for name in array.coords:
            if str(name).lower() == known:
                return name
    raise UserError(f"{array.name} has no coordinate 'time'")


def _along_time(array: xr.DataArray, time: Hashable) -> xr.DataArray:
    """Return the array with ``time`` as a dimension: as a new one, or in place of the one along which the times are."""
    dimensions = array[time].dims
    if not dimensions:
        return array.expand_dims(time)
    return array.swap_dims({dimensions[0]: time}) if len(dimensions) == 1 and dimensions[0] != time else array


def _final_first(array: xr.DataArray) -> xr.DataArray:
    """Return the array with final ERA5, whose version is 1, 01 or 0001, as the first ``expver``, if it has this dimension."""
    if "expver" not in array.dims:
        return array
    final = [str(version).lstrip("0") == "1" for version in array["expver"].values]
    return array.isel(expver=np.argsort(np.logical_not(final), kind="stable"))


def _require_known(array: xr.DataArray, time: Hashable) -> None:
    """Raise a UserError if an array has a dimension besides those of :class:`Stored`."""
    if extra := [str(name) for name in array.dims if name not in (time, "expver", CHANNEL, *SPACE_NAMES)]:
        sizes = " and ".join(f"'{name}' of length {array.sizes[name]}" for name in extra)
        raise UserError(f"{array.name} has a dimension {sizes}; expected time, latitude and longitude alone")


def _lead_hours(array: xr.DataArray) -> float:
    """Return the largest lead time of an array in hours; 0 if it has none."""
    lead = array.coords["step"].values if "step" in array.coords else np.timedelta64(0, "h")
    return float(np.max(lead / np.timedelta64(1, "h"))) if np.issubdtype(lead.dtype, np.timedelta64) else 0.0
