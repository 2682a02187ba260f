"""Brings forecasts of common layouts to the layout of this package's own stores.

Dimensions are recognised by their names, never by their position.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.sources.axes import with_forecast_axes
from wsdcast.data.sources.layout import axes_of, space_of
from wsdcast.data.sources.naming import find
from wsdcast.data.sources.units import is_metres_per_second
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.runs.errors import UserError

DIMENSIONS = ("time", "number", "prediction_timedelta")
"""Names of initial time, member and lead time in our own stores. These dimensions come in this order before latitude and longitude."""


def to_conventions(dataset: xr.Dataset, *, part: bool = False) -> xr.Dataset:
    """Return the 10 m wind of a dataset in the layout of our own stores, lazily.

    Variables have the names of WeatherBench 2. Dimensions are those of ``time``, ``number`` and ``prediction_timedelta`` that the dataset
    has, then latitude from north to south and longitude from 0 eastward. Other dimensions of length one are dropped. An initial time or
    lead time without a dimension becomes a scalar coordinate.

    Args:
        dataset: forecasts or analyses.
        part: whether the dataset may cover only a part of the globe.

    Raises:
        UserError: if a component is missing or has other units than m s-1, if the grid is not regular or not global (see ``part``), if
            initial and lead time do not vary along one dimension each, or if there is another dimension.
    """
    components = {}
    for name in VARIABLES:
        if (found := find(dataset, name)) is None:
            raise UserError(f"has no {name}")
        array = found.array
        units = str(array.attrs.get("units", "m s-1")).strip()  # many forecasts do not state their units
        if not is_metres_per_second(units):
            raise UserError(f"{array.name} has units '{units}'; expected m s-1")
        components[name] = _in_order(array, part)
    return xr.Dataset(components)


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
    array = array.squeeze(others, drop=True).rename({name: standard for name, standard in space.items() if name != standard})
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
