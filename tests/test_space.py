"""Latitudes and longitudes of sources: how they are recognised, their units and their rounding."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly
from small_sources import looked_at, wind

from wsdcast.data.sources.conventions import as_slice
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.sources.space import order_of
from wsdcast.runs.errors import UserError


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("columns", [7, 12, 640, 1280])
def test_rounded_longitudes_are_equal_steps(digits, columns):
    exact = 360 / columns * np.arange(columns)
    array = xr.DataArray(np.zeros((3, columns)), coords={"latitude": [90.004, 0, -90.00001], "longitude": exact.round(digits)})
    grid = order_of(array)[2]
    np.testing.assert_array_equal(grid.latitude, [90, 0, -90])
    np.testing.assert_allclose(grid.longitude, exact, atol=1e-12 if np.abs(exact - exact.round(digits)).max() > 1e-6 else 1e-6)


def test_longitudes_that_are_not_equal_steps_stay_refused():
    array = xr.DataArray(np.zeros((3, 4)), coords={"latitude": [90.0, 0, -90], "longitude": [0, 90, 180.1, 270]})
    with pytest.raises(UserError, match="not a global grid"):
        order_of(array)


@pytest.mark.parametrize("latitude", [[91.0, 0, -91], [90.0, 0, -91], [91.0, 0, -90]])
def test_latitudes_beyond_a_pole_are_refused(latitude):
    """They are no rounding of the pole."""
    array = xr.DataArray(np.zeros((3, 4)), coords={"latitude": latitude, "longitude": [0, 90, 180, 270]})
    with pytest.raises(UserError, match="from north to south within 90 and -90"):
        order_of(array)


def test_a_longitude_just_below_zero_is_the_first_and_one_that_is_repeated_is_taken_once():
    array = xr.DataArray(np.zeros((3, 5)), coords={"latitude": [-90.0, 0, 90], "longitude": [-1e-11, 90, 180, 270, 360]})
    rows, columns, grid = order_of(array)
    assert (rows.tolist(), columns.tolist()) == ([2, 1, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(grid.longitude, [0, 90, 180, 270])


AS_SLICES = ([0, 1, 2, 3, 4, 5], [2, 3, 4], [5, 4, 3, 2, 1, 0], [1, 0], [3])


@pytest.mark.parametrize("indices", [*AS_SLICES, [4, 3, 2], [0, 1, 3], [3, 2, 0], [0, 2, 4], [3, 4, 5, 0, 1, 2], [1, 2, 1, 0]], ids=str)
def test_indices_and_the_slice_of_them_choose_the_same(indices):
    chosen = as_slice(np.array(indices))
    np.testing.assert_array_equal(np.arange(6)[chosen], indices)
    assert isinstance(chosen, slice) == (indices in AS_SLICES)


def test_coordinates_are_known_by_their_units(tmp_path):
    dataset = wind().rename(latitude="g0_lat_1", longitude="x")
    dataset["g0_lat_1"].attrs["units"], dataset["x"].attrs["units"] = "degrees_north", "degreesE"
    dataset.to_netcdf(tmp_path / "a.nc")
    assert looked_at(tmp_path / "a.nc").grid.name == "12x7"  # type: ignore[union-attr]


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize(
    ("axis", "units", "expected"),
    [
        ("longitude", "degrees_west", "degrees_east"),
        ("longitude", "Degree_W", "degrees_east"),
        ("longitude", "degreesW", "degrees_east"),
        ("latitude", "degrees_south", "degrees_north"),
        ("latitude", "degree_S", "degrees_north"),
    ],
)
def test_degrees_west_and_south_are_refused(tmp_path, axis, units, expected, renamed):
    """CF knows neither, and some files have east and north under these units. The map would be a mirror image without a word."""
    name = "x" if renamed else axis
    dataset = wind().rename({axis: name} if renamed else {})
    dataset[name].attrs["units"] = units
    dataset.to_netcdf(tmp_path / "a.nc")
    assert looked_at(tmp_path / "a.nc").problems == [f"{tmp_path / 'a.nc'}: {name} has units '{units}'; expected {expected}"]
    forecast = dataset.isel(time=slice(1, 4)).rename(time="prediction_timedelta")
    forecast["prediction_timedelta"] = np.timedelta64(6, "h") * np.arange(1, 4)
    forecast.expand_dims(time=six_hourly("2020-01-01", 1)).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(UserError, match=f"{name} has units '{units}'; expected {expected}"):
        open_forecast(str(tmp_path / "f.nc"))


@pytest.mark.parametrize("units", ["degrees", "degree", "degrees_north", ""])
def test_other_units_of_latitude_are_read_as_degrees_north(tmp_path, units):
    dataset = wind()
    dataset["latitude"].attrs["units"] = units
    dataset.to_netcdf(tmp_path / "a.nc")
    assert looked_at(tmp_path / "a.nc").problems == []
