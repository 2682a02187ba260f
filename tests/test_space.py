"""Latitudes and longitudes of sources: how they are recognised, their units and their rounding."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly
from small_sources import looked_at, wind

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
