"""Ensemble forecasts of any origin, found by the names of their dimensions and read in the package's one order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.layout import SPACE_NAMES, component_of, order_of
from wsdcast.data.opening import Address, addresses, first_line, open_dataset
from wsdcast.errors import UserError

NAMES = {
    "time": ("time", "init_time", "initial_time", "forecast_reference_time"),
    "prediction_timedelta": ("prediction_timedelta", "lead_time", "step", "forecast_period"),
    "number": ("number", "sample", "realization", "member", "ensemble", "ensemble_member"),
    **SPACE_NAMES,
}
"""Of dimensions, by what they are called here; in lower case."""


@dataclass(frozen=True)
class StoredForecast:
    """Forecasts as they lie in a store, opened lazily.

    Attributes:
        name: of the store, for messages.
        times: of the starts, (time,).
        leads: lead times, (lead,), increasing.
        members: of each ensemble; 1 for a forecast without members.
        grid: of the fields, in the one order.
        components: u and v, (time, lead, member, latitude, longitude), in the order of the store along each.
    """

    name: str
    times: NDArray[np.datetime64]
    leads: NDArray[np.timedelta64]
    members: int
    grid: Grid
    components: tuple[xr.DataArray, xr.DataArray]

    def read(self, start: int, leads: slice = slice(None)) -> NDArray[np.float32]:
        """The members of one start, (member, lead, channel, latitude, longitude), m s-1.

        Raises:
            UserError: if the store cannot be read there.
        """
        fields = []
        for array in self.components:
            rows, columns, _ = order_of(array)
            try:
                values = array.isel(time=start, prediction_timedelta=leads).values
            except MemoryError:
                raise
            except Exception as error:  # of as many kinds as there are formats and servers
                when = self.times[start].astype("datetime64[h]")
                raise UserError(f"{self.name}: the forecast from {when} cannot be read ({first_line(error)})") from None
            values = values[..., rows, :] if (np.diff(rows) != 1).any() else values
            fields.append(values[..., columns] if columns.size != values.shape[-1] or (np.diff(columns) != 1).any() else values)
        return np.stack(fields, axis=2).swapaxes(0, 1).astype(np.float32, copy=False)


def open_forecast(address: Address) -> StoredForecast:
    """Open a store of forecasts in the layout of WeatherBench 2, or one that differs from it in names and order.

    Args:
        address: path or URL of a Zarr store, or of a NetCDF file.

    Raises:
        UserError: if it is no such store.
    """
    found = addresses(address)
    if len(found) > 1:
        raise UserError(f"{address}: {len(found)} files; expected one store of forecasts")
    # Published forecasts often have no units; whether they are these, the comparison with the truth tells.
    dataset = open_dataset(found[0])
    dataset = dataset.assign({name: array.assign_attrs({"units": "m s-1"} | array.attrs) for name, array in dataset.data_vars.items()})
    u, v = (_arranged(dataset, component, str(address)) for component in ("u", "v"))
    _, _, grid = order_of(u)
    for name in ("time", "prediction_timedelta", "latitude", "longitude"):
        if not np.array_equal(u[name].values, v[name].values):
            raise UserError(f"{address}: u and v have different coordinates '{name}'")
    leads = u["prediction_timedelta"].values
    if not np.issubdtype(leads.dtype, np.timedelta64):
        raise UserError(f"{address}: its lead times are no differences of time, but {leads.dtype}; they need units such as hours")
    if not np.issubdtype(u["time"].dtype, np.datetime64):
        raise UserError(f"{address}: its times are no dates of the standard calendar")
    if not leads.size or (np.diff(leads) <= np.timedelta64(0)).any():
        raise UserError(f"{address}: its lead times do not increase")
    # A lead time of 0 is the analysis that a forecast started from: no forecast yet.
    later = slice(int(leads[0] == np.timedelta64(0)), None)
    if leads[later].size == 0:
        raise UserError(f"{address}: has no lead time after 0 h")
    components = (u.isel(prediction_timedelta=later), v.isel(prediction_timedelta=later))
    times = u["time"].values.astype("datetime64[ns]")
    return StoredForecast(str(address), times, leads[later].astype("timedelta64[ns]"), u.sizes["number"], grid, components)


def _arranged(dataset: xr.Dataset, component: str, name: str) -> xr.DataArray:
    """A component with dimensions (time, prediction_timedelta, number, latitude, longitude), lazily."""
    try:
        array = component_of(dataset, component)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    if array is None:
        raise UserError(f"{name}: has no 10 m wind {component} among {', '.join(map(str, dataset.data_vars)) or 'no variables'}")
    for here, known in NAMES.items():
        theirs = [dimension for dimension in (*array.dims, *array.coords) if str(dimension).lower() in known]
        if here in array.dims:
            continue
        if theirs:
            array = array.rename({theirs[0]: here}) if theirs[0] != here else array
            array = array if here in array.dims else array.expand_dims(here)  # one start or one lead time alone
        elif here == "number":
            array = array.expand_dims(number=[0])
        else:
            raise UserError(f"{name}: {array.name} has no dimension '{here}', but {', '.join(map(str, array.dims))}")
    extra = [str(dimension) for dimension in array.dims if dimension not in NAMES and array.sizes[dimension] > 1]
    if extra:
        raise UserError(f"{name}: {array.name} has a dimension '{extra[0]}' of length {array.sizes[extra[0]]} beyond those of a forecast")
    array = array.squeeze([dimension for dimension in array.dims if dimension not in NAMES])
    return array.transpose(*NAMES)
