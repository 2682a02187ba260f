"""Brings datasets of common layouts to one layout: channels with dimensions (time, latitude, longitude), in known units.

Variables and dimensions are recognised by their names and attributes, never by their position.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.naming import Found, find, levels_of
from wsdcast.data.sources.units import SAME, conversion
from wsdcast.data.variables import variable
from wsdcast.runs.errors import UserError

STATIC_NAMES = {
    "land_sea_mask": ("land_sea_mask", "lsm"),
    "geopotential_at_surface": ("geopotential_at_surface", "z"),
    "standard_deviation_of_orography": ("standard_deviation_of_orography", "sdor"),
    "slope_of_sub_gridscale_orography": ("slope_of_sub_gridscale_orography", "slor"),
    "anisotropy_of_sub_gridscale_orography": ("anisotropy_of_sub_gridscale_orography", "isor"),
    "angle_of_sub_gridscale_orography": ("angle_of_sub_gridscale_orography", "anor"),
}
STATIC_UNITS = {
    "land_sea_mask": "1",
    "geopotential_at_surface": "m2 s-2",
    "standard_deviation_of_orography": "m",
    "slope_of_sub_gridscale_orography": "1",
    "anisotropy_of_sub_gridscale_orography": "1",
    "angle_of_sub_gridscale_orography": "radians",
}
TIME_NAMES = ("valid_time", "time", "date", "datetime")
"""``valid_time`` comes first: in a file with both, ``time`` is the initial time of a forecast."""
SPACE_NAMES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon")}
COMPASS = {
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}
"""Units that mark a latitude or a longitude of any name (CF conventions, sections 4.1 and 4.2)."""
CHANNEL = "channel"
"""Name of the dimension of channels that one variable has on its levels."""
ROUNDING = 0.01
"""Degrees by which coordinates may be off, because a file may keep two decimals of them. A twentieth of a step is a further limit."""


Fields = dict[tuple[str, ...], xr.DataArray]
"""Channels that are stored in one variable and can be read together, with that variable."""


def fields_of(dataset: xr.Dataset, names: Sequence[str]) -> Fields:
    """Return the channels of a dataset that are among ``names``, lazily.

    The dimensions are (time, latitude, longitude). If a variable has several of the channels on its levels, ``channel`` comes first, in the
    order of the key. The order along each other dimension is that of the source. Other dimensions of length one are dropped. The dimension
    ``expver``, along which a file can hold ERA5 and its preliminary version, is kept as the first one, and :func:`values_of` merges it.
    Each variable has further attributes: ``chunk`` is the number of times in one chunk of the source, ``tile`` the number of latitudes and
    longitudes in one chunk, ``lead_hours`` the largest lead time (0 for analyses), ``conversion`` how :func:`values_of` brings it to the
    units of :data:`wsdcast.data.variables.VARIABLES`, and ``can_be_constant`` whether the same value may be in a whole chunk.

    Raises:
        UserError: if the units are unknown or not those of the variable, if a coordinate is missing, or if there is another dimension.
    """
    stored: dict[Hashable, list[tuple[str, Found]]] = {}
    for name in names:
        if (found := find(dataset, name)) is not None:
            stored.setdefault(name if found.dimension is None else (found.array.name, found.dimension), []).append((name, found))
    fields: Fields = {}
    for channels in stored.values():
        (name, (array, dimension, _)), *others = channels = sorted(channels, key=lambda channel: channel[1].position)
        entry = variable(name)
        units = conversion(str(array.attrs.get("units", "")), entry.units, array.name)
        if dimension is not None:
            array = array.isel({dimension: [found.position for _, found in channels] if others else channels[0][1].position})
            array = array.drop_vars([dimension], errors="ignore").rename({dimension: CHANNEL} if others else {})
        can_be_constant = entry.non_negative or entry.absent is not None
        attributes = {"conversion": units, "can_be_constant": can_be_constant}
        fields[tuple(name for name, _ in channels)] = _three_dimensional(array).assign_attrs(attributes)
    return fields


def select(fields: Fields, names: tuple[str, ...]) -> xr.DataArray:
    """Return the variable of some channels of one key of :func:`fields_of`, without ``channel`` if it is one."""
    key = next(key for key in fields if names[0] in key)
    if len(key) == 1 or names == key:
        return fields[key]
    positions = [key.index(name) for name in names]
    return fields[key].isel({CHANNEL: positions if len(positions) > 1 else positions[0]})


def static_of(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the static fields that a dataset has, lazily, each (time, latitude, longitude): the names are in :data:`STATIC_NAMES`."""
    fields = {}
    for name, known in STATIC_NAMES.items():
        array = next((dataset[alias] for alias in known if alias in dataset.data_vars), None)
        # `z` is also the geopotential on pressure levels, which is not static.
        if array is not None and levels_of(array) is None:
            if not any(str(name).lower() in TIME_NAMES for name in array.coords):
                array = array.expand_dims(time=np.zeros(1, dtype="datetime64[ns]"))
            try:
                fields[name] = _three_dimensional(array)
            except UserError:
                continue  # a variable with other dimensions is not a static field
    return fields


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


def values_of(array: xr.DataArray, indices: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the values at chosen times of an array from :func:`fields_of` or :func:`static_of`, ([channel,] time, latitude,
    longitude).

    Latitudes go from north to south and longitudes from 0 eastward. If the array has several versions (``expver``), each value is that of
    final ERA5 (expver 1), or that of the preliminary ERA5T (expver 5) where ERA5 is missing.

    Raises:
        ValueError: if a chunk that covers only a part of the globe has the same value everywhere.
    """
    strides, chunk = np.diff(indices), array.attrs["chunk"]
    usual = int(np.median(strides)) if strides.size else 1
    runs = np.split(indices, np.flatnonzero((strides <= 0) | (strides > max(usual, chunk))) + 1)
    values = np.concatenate([_run(array, run, chunk) for run in runs], axis=-3)
    if "expver" in array.dims:
        merged = values[0]
        for version in values[1:]:
            merged = np.where(np.isnan(merged), version, merged)
        values = merged
    if not array.attrs.get("can_be_constant"):
        _refuse_lost_chunks(values.reshape(-1, *values.shape[-2:]), array.attrs["tile"])
    rows, columns, _ = order_of(array)
    if np.any(np.diff(rows) != 1):
        values = values[..., rows, :]
    if columns.size != values.shape[-1] or np.any(np.diff(columns) != 1):
        values = values[..., columns]
    factor, shift = array.attrs.get("conversion", SAME)
    return (values if (factor, shift) == SAME else values * factor + shift).astype(np.float32, copy=False)


def _refuse_lost_chunks(values: NDArray[np.floating], tile: tuple[int, int]) -> None:
    """Refuse chunks with the same value everywhere, because Zarr returns the fill value for an absent chunk.

    Chunks that hold whole fields pass: ``blocks._check`` refuses whole fields of one value.
    """
    height, width = tile
    if height >= values.shape[1] and width >= values.shape[2]:
        return
    for row in range(0, values.shape[1], height):
        for column in range(0, values.shape[2], width):
            part = values[:, row : row + height, column : column + width]
            if part[0].size > 4 and (part.min(axis=(1, 2)) == part.max(axis=(1, 2))).any():
                raise ValueError("a chunk has one value throughout, as where it is missing")


def _run(array: xr.DataArray, indices: NDArray[np.intp], chunk: int) -> NDArray[np.floating]:
    """Return the values at ``indices``, which rise without a large step, in one read."""
    first, last, strides = int(indices[0]), int(indices[-1]) + 1, np.diff(indices)
    if strides.size and (strides == strides[0]).all() and chunk < strides[0]:
        return array.isel(time=slice(first, last, int(strides[0]))).values
    # The times of one chunk are unpacked together anyway, and NetCDF is slow at reading a list of indices.
    values = array.isel(time=slice(first, last)).values
    return values if values.shape[-3] == indices.size else values[..., indices - first, :, :]


def space_of(array: xr.DataArray) -> dict[Hashable, str]:
    """Return the array's own names of latitude and longitude, in this order, each with the standard name as its value.

    Raises:
        UserError: if one of them is missing or is not a dimension.
    """
    names: dict[Hashable, str] = {}
    for standard, known in SPACE_NAMES.items():
        candidates = [name for name in array.coords if str(name).lower() in known or _is_compass(array[name], standard)]
        if not candidates:
            raise UserError(f"{array.name} has no coordinate '{standard}'")
        if array[candidates[0]].dims != (candidates[0],):
            raise UserError(f"{array.name} is on no regular grid: '{candidates[0]}' is not one of its dimensions")
        names[candidates[0]] = standard
    return names


def _is_compass(coordinate: xr.DataArray, standard: str) -> bool:
    units = str(coordinate.attrs.get("units", "")).strip().lower()
    return coordinate.attrs.get("standard_name") == standard or units in COMPASS[standard]


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


def to_the_second(times: NDArray[Any]) -> NDArray[Any]:
    """Round times or lead times to the second. Files that store fractions of days or hours are slightly off."""
    kind = times.dtype.kind  # M for times, m for lead times
    return (times.astype(f"{kind}8[ns]") + np.timedelta64(500, "ms")).astype(f"{kind}8[s]").astype(f"{kind}8[ns]")


def _three_dimensional(array: xr.DataArray) -> xr.DataArray:
    """Return the same values with only the dimensions ([expver, channel,] time, latitude, longitude)."""
    chunk_sizes, space = array.encoding.get("preferred_chunks") or {}, space_of(array)
    array = array.rename({name: standard for name, standard in space.items() if name != standard})
    array = array.squeeze([name for name in array.dims if name not in SPACE_NAMES and array.sizes[name] == 1])
    times = [name for known in TIME_NAMES for name in array.coords if str(name).lower() == known]
    if not times:
        raise UserError(f"{array.name} has no coordinate 'time'")
    time, (dimension, *further) = times[0], [*array[times[0]].dims, None]
    lead = array.coords["step"].values if "step" in array.coords else np.timedelta64(0)
    if dimension is None:
        array = array.expand_dims(time)
    elif dimension != time and not further[:-1]:
        array = array.swap_dims({dimension: time})
    extra = [str(name) for name in array.dims if name not in (time, "expver", CHANNEL, *SPACE_NAMES)]
    if extra:
        sizes = " and ".join(f"'{name}' of length {array.sizes[name]}" for name in extra)
        raise UserError(f"{array.name} has a dimension {sizes}; expected time, latitude and longitude alone")
    dates_of(array[time], array.name)
    # Version 1, 01 or 0001 is final ERA5. It is put first.
    final = [str(version).lstrip("0") == "1" for version in array["expver"].values] if "expver" in array.dims else None
    kept = array.drop_vars([name for name in array.coords if name not in (time, *SPACE_NAMES)])
    kept = kept.rename({time: "time"}) if time != "time" else kept
    # The number of times in one chunk is stored under the name that the dimension had in the source.
    chunk = next((int(chunk_sizes[name]) for name in ("time", time, dimension) if name in chunk_sizes), 1)
    hours = np.asarray(lead) / np.timedelta64(1, "h") if np.issubdtype(np.asarray(lead).dtype, np.timedelta64) else np.zeros(1)
    dimensions: tuple[str, ...] = ("time", "latitude", "longitude")
    if CHANNEL in array.dims:
        dimensions = (CHANNEL, *dimensions)
    if final is not None:
        kept, dimensions = kept.isel(expver=np.argsort(np.logical_not(final), kind="stable")), ("expver", *dimensions)
    tile = tuple(int(chunk_sizes.get(name, array.sizes[standard])) for name, standard in space.items())
    return kept.transpose(*dimensions).assign_attrs(chunk=chunk, tile=tile, lead_hours=float(np.max(hours)))
