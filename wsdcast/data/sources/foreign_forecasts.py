"""Ensemble forecasts that others wrote. Dimensions are recognised by name, and fields are read in the package's order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid, Region, bounds_in_words
from wsdcast.data.sources.conventions import DIMENSIONS, channels_in, to_conventions
from wsdcast.data.sources.file_lock import reading_values
from wsdcast.data.sources.grib_names import channels_named
from wsdcast.data.sources.layout import dates_of
from wsdcast.data.sources.opening import Address, addresses, of_address, open_dataset
from wsdcast.data.steps import time_text, to_the_second
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError

ORIGIN = ("attribution", "source", "institution", "references", "license")
"""Attributes of a store that say where its data come from. Whatever is made from the store has them too."""


PUBLIC = {
    "wb2:ifs_ens": "gs://weatherbench2/datasets/ifs_ens/2018-2022-240x121_equiangular_with_poles_conservative.zarr",
    "wb2:gencast": "gs://weatherbench2/datasets/gencast/2020-240x121_equiangular_with_poles_conservative.zarr",
    "wb2:neuralgcm_ens": "gs://weatherbench2/datasets/neuralgcm_ens/2020-240x121_equiangular_with_poles_conservative.zarr",
}
"""URLs of WeatherBench 2's public ensemble forecasts at 1.5 degrees, by the name that a user gives."""


@dataclass(frozen=True)
class Members:
    """Members of forecasts, opened lazily.

    Attributes:
        name: name of the store in messages.
        channels: as :func:`open_channels` returns them, or a part of them.
    """

    name: str
    channels: xr.Dataset

    @property
    def times(self) -> NDArray[np.datetime64]:
        """Initial times, (time,), increasing."""
        return self.channels["time"].values

    @property
    def leads(self) -> NDArray[np.timedelta64]:
        """Lead times, (lead,), increasing."""
        return self.channels["prediction_timedelta"].values

    @property
    def latitude(self) -> NDArray[np.float64]:
        """Degrees north, (latitude,), falling."""
        return self.channels["latitude"].values

    @property
    def longitude(self) -> NDArray[np.float64]:
        """Degrees east, (longitude,), rising."""
        return self.channels["longitude"].values

    @property
    def members(self) -> int:
        """Number of members of each ensemble; 1 for a forecast without members."""
        return self.channels.sizes["number"]

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(map(str, self.channels.data_vars))

    @property
    def is_global(self) -> bool:
        """Whether the points are a grid of the whole globe."""
        try:
            Grid(self.latitude, self.longitude)
        except UserError:
            return False
        return True

    @property
    def extent(self) -> str:
        """The size and the bounds of the grid in words."""
        return f"{self.longitude.size}x{self.latitude.size}, {bounds_in_words(self.latitude, self.longitude)}"

    def read(self, start: int, leads: slice = slice(None)) -> NDArray[np.float32]:
        """Read some lead times of the initial time with the index ``start``: (member, lead, channel, latitude, longitude).

        Where there is no value it is NaN.

        Raises:
            UserError: if these values cannot be read.
        """
        with reading_values(self.name, f"{self.name}: the forecast from {time_text(self.times[start])}"):
            chosen = self.channels.isel(time=start, prediction_timedelta=leads)
            fields = np.stack([field.values for field in chosen.values()], axis=-3).astype(np.float32, copy=False)
            return fields.reshape(self.members, chosen.sizes["prediction_timedelta"], *fields.shape[-3:])


@dataclass(frozen=True)
class StoredForecast(Members):
    """Forecasts that are read on a grid of the whole globe.

    Attributes:
        grid: the grid.
        region: rows and columns of the grid that the store covers; None if it covers the whole grid. Elsewhere the fields are NaN.
    """

    grid: Grid
    region: Region | None

    def read(self, start: int, leads: slice = slice(None)) -> NDArray[np.float32]:
        """As :meth:`Members.read`, on the whole grid."""
        fields = super().read(start, leads)
        if self.region is None:
            return fields
        whole = np.full((*fields.shape[:-2], *self.grid.shape), np.nan, dtype=np.float32)
        whole[..., self.region[0][:, None], self.region[1]] = fields
        return whole


def open_forecast(address: Address, truth_grid: Grid | None = None, variables: Sequence[str] = DEFAULT) -> StoredForecast:
    """Open a store of forecasts in the layout of WeatherBench 2, or in one that differs from it in names and order.

    Initial and lead times are sorted. Lead times of 0 and below are left out.

    Args:
        address: path or URL of a Zarr store, or of a NetCDF or GRIB file.
        truth_grid: grid of the truth. With it, a forecast may cover a part of the globe. Its fields are then read on a global grid, with
            NaN elsewhere: on this one if its points are neighbours on it.
        variables: the channels that are read; default: the 10 m wind.

    Raises:
        UserError: if :func:`open_channels` raises it, or if the forecast covers a part of no regular global grid.
    """
    channels = open_channels(address, part=truth_grid is not None, variables=variables)
    try:
        grid, region = _grid_and_region(truth_grid, *(channels[name].values for name in ("latitude", "longitude")))
    except UserError as error:
        raise UserError(f"{address}: {error}") from None
    return StoredForecast(str(address), channels, grid, region)


def open_channels(address: Address, part: bool, variables: Sequence[str]) -> xr.Dataset:
    """Return channels of a store of forecasts in the layout of our own stores, lazily.

    The dimensions are (time, number, prediction_timedelta, latitude, longitude). For those that the store lacks there are coordinates of
    length one, and the channels lack them too, because ``Dataset.expand_dims`` would read all values. Initial and lead times are sorted and
    in nanoseconds. Lead times of 0 and below are left out. The attributes are those of the store that name its source and licence
    (:data:`ORIGIN`). If ``part``, the store may cover only a part of the globe.

    Raises:
        UserError: if the store is not a store of forecasts, if an initial time, a lead time or a member is missing or occurs twice, or if
            a lead time is not a whole number of hours.
    """
    stores = addresses_of(address)
    if len(stores) > 1:
        raise UserError(f"{address}: {len(stores)} files; expected one store of forecasts")
    try:
        dataset = open_dataset(stores[0], variables)
        if "crps_fair" in dataset and not channels_in(dataset):
            raise UserError("has the statistics of scores and no fields; `wsdcast score --run RUN` computes the metrics from them")
        if "statistic" in dataset.dims:
            raise UserError("has only statistics over members (rollout --keep statistics); the members are needed")
        channels = to_conventions(dataset, part=part, variables=variables)
    except UserError as error:
        raise UserError(of_address(address, error)) from None
    for name, contents in (("time", "initial times"), ("prediction_timedelta", "lead times")):
        if name not in channels.coords:
            raise UserError(f"{address}: has no coordinate '{name}' of {contents}, but {', '.join(map(str, channels.coords))}")
    lacked = {name: np.atleast_1d(channels.coords.get(name, 0)) for name in DIMENSIONS if name not in channels.dims}
    channels = channels.drop_vars(lacked, errors="ignore").assign_coords(lacked)
    times, leads = dates_of(channels["time"], address), channels["prediction_timedelta"].values
    if not np.issubdtype(leads.dtype, np.timedelta64):
        raise UserError(f"{address}: its lead times have the type {leads.dtype} and no units of time, such as hours")
    times, leads = to_the_second(times), to_the_second(leads)
    for name, values in (("initial times", times), ("lead times", leads), ("members", channels["number"].values)):
        _require_once(values, f"{address}: {name}")
    if (leads % np.timedelta64(1, "h") != np.timedelta64(0, "h")).any():
        raise UserError(f"{address}: its lead times are not all whole hours")
    channels = channels.assign_coords(time=times, prediction_timedelta=leads)
    channels = _sorted(channels, "time", times)
    channels = _sorted(channels, "prediction_timedelta", leads)
    # At a lead time of 0 the field is the analysis from which the forecast starts, not a forecast.
    later = slice(int((leads <= np.timedelta64(0, "h")).sum()), None)
    if leads[later].size == 0:
        raise UserError(f"{address}: has no lead time after 0 h")
    return channels.isel(prediction_timedelta=later).assign_attrs({name: dataset.attrs[name] for name in ORIGIN if name in dataset.attrs})


def readable_channels(address: Address) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the channels of a store of forecasts that can be read together, and by name of the others why they cannot.

    A channel cannot be read if it has other units than its variable, or lacks a dimension that others have. If there is no channel, or the
    store cannot be opened, the 10 m wind is returned, so that :func:`open_channels` says what is wrong.
    """
    channels, refused = dict[str, xr.DataArray](), dict[str, str]()
    with suppress(UserError):
        (store, *_) = addresses_of(address)
        dataset = open_with_all(store)
        for name in channels_in(dataset):
            try:
                channels[name] = to_conventions(dataset, part=True, variables=(name,))[name]
            except UserError as error:
                refused[name] = str(error)
    dimensions = {dimension for array in channels.values() for dimension in array.dims}
    for name, array in channels.items():
        if lacking := dimensions - {*array.dims}:
            refused[name] = f"{name} has no dimension {min(map(str, lacking))}"
    names = tuple(name for name in channels if name not in refused)
    return names or DEFAULT, {name: reason for name, reason in refused.items() if names or name not in DEFAULT}


def open_with_all(address: Address) -> xr.Dataset:
    """Open one file or store with all channels that it has, lazily. A GRIB file is otherwise opened with some channels alone.

    Raises:
        UserError: as :func:`wsdcast.data.sources.opening.open_dataset`.
    """
    dataset = open_dataset(address)
    in_grib = channels_named(dataset.attrs.get("other_variables", []))
    return open_dataset(address, (*DEFAULT, *in_grib)) if in_grib else dataset


def addresses_of(address: Address) -> list[Address]:
    """Return the addresses of the files or stores that the address of a forecast, or the name of a public one, stands for.

    Raises:
        UserError: if there is none.
    """
    try:
        return addresses(PUBLIC.get(address, address) if isinstance(address, str) else address)
    except UserError:  # its message is about sources of analyses
        expected = "expected a store, or a run directory with a forecast.zarr (wsdcast rollout writes it)"
        raise UserError(f"{address}: no such forecast; {expected}") from None


def _grid_and_region(truth_grid: Grid | None, latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> tuple[Grid, Region | None]:
    """Return the grid of a forecast and None; or, if it covers a part of the globe, a grid of the globe, and its rows and columns on it.

    This grid is that of the truth, if the points of the forecast are neighbours on it, or else the one that continues their steps.

    Raises:
        UserError: if there is no such grid.
    """
    if truth_grid is None or (latitude.size, longitude.size) == truth_grid.shape:
        return Grid(latitude, longitude), None
    if region := truth_grid.region_of(latitude, longitude):
        return truth_grid, region
    grid = Grid.around(latitude, longitude)
    if grid.shape == (latitude.size, longitude.size):
        return grid, None
    if region := grid.region_of(latitude, longitude):
        return grid, region
    raise UserError(f"{bounds_in_words(latitude, longitude)}: not a global grid, and not equal steps that continue to one")


def _require_once(values: NDArray[Any], what: str) -> None:
    """Check that no label is missing and none occurs twice.

    Raises:
        UserError: if one is missing or occurs twice. ``what`` begins the message.
    """
    empty = pd.isnull(values)
    if empty.any():
        raise UserError(f"{what}: {empty.sum()} of {values.size} are missing")
    labels, counts = np.unique(values, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{what}: {(counts > 1).sum()} occur more than once, the first {_label(labels[counts > 1][0])}")


def _label(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return time_text(value)
    return f"{value / np.timedelta64(1, 'h'):g} h" if isinstance(value, np.timedelta64) else str(value)


def _sorted(channels: xr.Dataset, dimension: str, values: NDArray[Any]) -> xr.Dataset:
    """Sort a dataset by a coordinate. If it is sorted it is returned unchanged, because slices are read faster than lists of indices."""
    order = np.argsort(values)
    return channels if (np.diff(order) == 1).all() else channels.isel({dimension: order})
