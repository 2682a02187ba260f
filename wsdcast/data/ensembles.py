"""Ensemble forecasts of any origin, found by the names of their dimensions and read in the package's one order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.conventions import to_conventions
from wsdcast.data.grid import Grid
from wsdcast.data.layout import dates_of
from wsdcast.data.opening import Address, addresses, first_line, open_dataset
from wsdcast.data.store import read_wind
from wsdcast.errors import UserError


@dataclass(frozen=True)
class StoredForecast:
    """Forecasts as they lie in a store, opened lazily.

    Attributes:
        name: of the store, for messages.
        times: of the starts, (time,).
        leads: lead times, (lead,), increasing.
        members: of each ensemble; 1 for a forecast without members.
        grid: of the fields, in the one order.
        wind: in the package's conventions, lazily.
    """

    name: str
    times: NDArray[np.datetime64]
    leads: NDArray[np.timedelta64]
    members: int
    grid: Grid
    wind: xr.Dataset

    def read(self, start: int, leads: slice = slice(None)) -> NDArray[np.float32]:
        """The members of one start, (member, lead, channel, latitude, longitude), m s-1.

        Raises:
            UserError: if the store cannot be read there.
        """
        try:
            return read_wind(self.wind.isel(time=start, prediction_timedelta=leads)).astype(np.float32, copy=False)
        except MemoryError:
            raise
        except Exception as error:  # of as many kinds as there are formats and servers
            when = self.times[start].astype("datetime64[h]")
            raise UserError(f"{self.name}: the forecast from {when} cannot be read ({first_line(error)})") from None


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
    try:
        wind = to_conventions(open_dataset(found[0]))
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(address)) else f"{address}: {error}") from None
    for name in ("time", "prediction_timedelta"):
        if name not in wind.coords:
            known = ", ".join(map(str, wind.coords))
            raise UserError(f"{address}: has no coordinate '{name}', but {known}; forecasts are stored by initial and lead time")
    missing = [name for name in ("time", "number", "prediction_timedelta") if name not in wind.dims]
    wind = wind.expand_dims(missing).transpose("time", "number", "prediction_timedelta", "latitude", "longitude")
    times, leads = wind["time"].values, wind["prediction_timedelta"].values
    if not np.issubdtype(leads.dtype, np.timedelta64):
        raise UserError(f"{address}: its lead times are no differences of time, but {leads.dtype}; they need units such as hours")
    times = dates_of(wind["time"], address)
    for name, what in (("time", "initial time"), ("number", "member"), ("prediction_timedelta", "lead time")):
        values = wind[name].values if name in wind.coords else np.empty(0)
        doubled = [value for value, count in zip(*np.unique(values, return_counts=True), strict=True) if count > 1]
        if doubled:
            more = f" and {len(doubled) - 1} more" if doubled[1:] else ""
            raise UserError(f"{address}: its {what} {_in_words(doubled[0])}{more} occurs twice")
    if (np.diff(leads) < np.timedelta64(0)).any():
        wind = wind.isel(prediction_timedelta=np.argsort(leads))
    leads = wind["prediction_timedelta"].values
    # A lead time of 0 is the analysis that a forecast started from: no forecast yet.
    later = slice(int((leads <= np.timedelta64(0)).sum()), None)
    if not leads[later].size:
        raise UserError(f"{address}: has no lead time after 0 h")
    grid = Grid(wind["latitude"].values, wind["longitude"].values)
    wind = wind.isel(prediction_timedelta=later)
    return StoredForecast(
        str(address), times.astype("datetime64[ns]"), leads[later].astype("timedelta64[ns]"), wind.sizes["number"], grid, wind
    )


def _in_words(value: object) -> str:
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[h]"))
    return f"{value / np.timedelta64(1, 'h'):g} h" if isinstance(value, np.timedelta64) else str(value)
