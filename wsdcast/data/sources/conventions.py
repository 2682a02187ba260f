"""Brings forecasts of common layouts to the layout of this package's own stores.

Dimensions are recognised by their names, never by their position.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.axes import with_forecast_axes
from wsdcast.data.sources.naming import Finder, Found, levels_of, variables_of
from wsdcast.data.sources.space import axes_of, space_of
from wsdcast.data.sources.units import SAME, conversion
from wsdcast.data.variables import DEFAULT, SPEED, VARIABLES, variable
from wsdcast.runs.errors import UserError

DIMENSIONS = ("time", "number", "prediction_timedelta")
"""Names of initial time, member and lead time in our own stores. These dimensions come in this order before latitude and longitude."""

LEVEL_IN_NAME = re.compile(r"[^@]*?_?(\d+)(?:hpa|mb)?", re.IGNORECASE)
"""Name of a variable on one pressure level that other programs write, such as ``z_500``, ``t850`` and ``HGT_500mb``."""


def to_conventions(dataset: xr.Dataset, *, part: bool = False, variables: Sequence[str] = DEFAULT) -> xr.Dataset:
    """Return channels of a dataset in the layout of our own stores, lazily.

    They have their names of :mod:`wsdcast.data.variables`. Dimensions are those of ``time``, ``number`` and ``prediction_timedelta`` that
    the dataset has, then latitude from north to south and longitude from 0 eastward. Other dimensions of length one are dropped. An initial
    time or lead time without a dimension becomes a scalar coordinate.

    Args:
        dataset: forecasts or analyses.
        part: whether the dataset may cover only a part of the globe.
        variables: the channels; default: the 10 m wind.

    Raises:
        UserError: if a channel is missing or has other units than its variable, if the grid is not regular or not global (see ``part``), if
            initial and lead time do not vary along one dimension each, or if there is another dimension.
    """
    channels, finder = {}, Finder(dataset)
    for name in variables:
        if (found := finder.find(name)) is None:
            raise UserError(f"has no {name}")
        expected = variable(name).units
        units = str(found.array.attrs.get("units", expected)).strip()  # many forecasts do not state their units
        if conversion(units, expected, found.array.name) != SAME:
            raise UserError(f"{found.array.name} has units '{units}'; expected {expected}")
        channels[name] = _in_order(_at_level(found), part)
    return xr.Dataset(channels)


def channels_in(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the names of all channels that :func:`to_conventions` finds in a dataset; a variable on levels has one for each level."""
    levels = {float(level) for array in variables_of(dataset) if (found := levels_of(array)) for level in found[1]}
    levels |= {float(named[1]) for name in dataset.data_vars if (named := LEVEL_IN_NAME.fullmatch(str(name)))}
    names = [name for name, entry in VARIABLES.items() if entry.kind == "surface" and name != SPEED]
    on_levels = [name for name, entry in VARIABLES.items() if entry.kind == "pressure"]
    names += [f"{name}@{level:g}" for name in on_levels for level in sorted(levels) if level.is_integer()]
    names += [name for name in map(str, dataset.data_vars) if name.partition("@")[0] in on_levels and "@" in name and name not in names]
    finder = Finder(dataset)
    return tuple(name for name in names if _has(finder, name))


def _has(finder: Finder, name: str) -> bool:
    with suppress(UserError):  # several variables may have its attributes
        return finder.find(name) is not None
    return False


def _at_level(found: Found) -> xr.DataArray:
    return found.array if found.dimension is None else found.array.isel({found.dimension: found.position})


def _in_order(array: xr.DataArray, part: bool) -> xr.DataArray:
    space, source, chunks = space_of(array), array.dims, array.encoding.get("preferred_chunks", {})
    array = with_forecast_axes(array)
    # The dimensions have new names, and so must their chunks: how much is unpacked together decides how much memory is needed.
    chunks = {space.get(name, name): chunks[old] for name, old in zip(array.dims, source, strict=True) if old in chunks}
    array.encoding = array.encoding | {"preferred_chunks": chunks}
    others = [dimension for dimension in array.dims if dimension not in {*DIMENSIONS, *space}]
    extra = [str(dimension) for dimension in others if array.sizes[dimension] > 1]
    if extra:
        raise UserError(f"{array.name} has a dimension '{extra[0]}' of length {array.sizes[extra[0]]}, which is none of a forecast")
    array = array.squeeze(others, drop=True).rename(space)
    rows, columns, latitude, longitude = axes_of(array)
    if not part:
        Grid(latitude, longitude)  # raises if the grid is not global
    array = array.isel(latitude=as_slice(rows), longitude=as_slice(columns))
    array = array.assign_coords(latitude=latitude, longitude=longitude)
    return array.transpose(*DIMENSIONS, "latitude", "longitude", missing_dims="ignore")


def as_slice(indices: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """Return indices as a slice if they are one, forward or backward, because files are read far faster by slices."""
    if np.all(np.diff(indices) == 1):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    if np.all(np.diff(indices) == -1) and indices[-1] == 0:
        return slice(int(indices[0]), None, -1)
    return indices
