from __future__ import annotations

import numpy as np
import pytest
from conftest import SHARED, needs_shared, six_hourly, wind_dataset

from wsdcast.data.wind_files import open_wind_files
from wsdcast.errors import UserError

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)


@pytest.fixture
def wind():
    return wind_dataset(six_hourly("2020-01-01", 6), LATITUDES, LONGITUDES)


def read(path) -> np.ndarray:
    return np.concatenate(list(open_wind_files(str(path)).blocks(4)))


LAYOUTS = {
    "as it is": lambda ds: ds,
    "south to north": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "180 W to 180 E": lambda ds: ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude"),
    "longitude first": lambda ds: ds.transpose("time", "longitude", "latitude"),
    "short names of coordinates": lambda ds: ds.rename(latitude="lat", longitude="lon"),
    "new CDS names": lambda ds: ds.rename(time="valid_time").assign_coords(number=0, expver=("valid_time", ["0001"] * 6)),
    "WeatherBench names": lambda ds: ds.rename(u10="10m_u_component_of_wind", v10="10m_v_component_of_wind"),
    "unsorted times": lambda ds: ds.isel(time=[3, 0, 5, 1, 2, 4]),
    "a height of length one": lambda ds: ds.expand_dims("height"),
    "other spelling of units": lambda ds: ds.assign(u10=ds.u10.assign_attrs(units="m s**-1")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_wind_in_any_layout_gives_the_same_bits(tmp_path, wind, layout):
    LAYOUTS[layout](wind).to_netcdf(tmp_path / "wind.nc")
    expected = np.stack([wind.u10.values, wind.v10.values], axis=1)
    np.testing.assert_array_equal(read(tmp_path / "wind.nc"), expected)


def test_many_files_are_sorted_and_joined_and_gaps_stay(tmp_path, wind):
    wind.isel(time=[4, 5]).to_netcdf(tmp_path / "a.nc")
    wind.isel(time=[0, 1, 2]).to_netcdf(tmp_path / "b.nc")
    for pattern in (tmp_path, tmp_path / "*.nc"):
        files = open_wind_files(str(pattern))
        np.testing.assert_array_equal(files.times, wind.time.values[[0, 1, 2, 4, 5]])
        np.testing.assert_array_equal(np.concatenate(list(files.blocks(2)))[:, 0], wind.u10.values[[0, 1, 2, 4, 5]])


def test_hours_between_the_synoptic_ones_are_left_out(tmp_path):
    hourly = np.datetime64("2020-01-01", "ns") + np.timedelta64(1, "h") * np.arange(13)
    wind_dataset(hourly, LATITUDES, LONGITUDES).to_netcdf(tmp_path / "wind.nc")
    assert [str(time)[11:13] for time in open_wind_files(str(tmp_path)).times] == ["00", "06", "12"]


def with_units(dataset, units):
    return dataset.assign(u10=dataset.u10.assign_attrs(units=units))


FAULTS = {
    "has no 10 m wind; looked for": lambda ds: ds.rename(u10="u100", v10="v100"),
    "u10 has units 'knots'; expected m s-1": lambda ds: with_units(ds, "knots"),
    "u10 has units ''; expected m s-1": lambda ds: with_units(ds, ""),
    "not a global grid": lambda ds: ds.isel(longitude=slice(0, 4)),
    "leave out a pole": lambda ds: ds.isel(latitude=slice(0, 4)),
    "has a dimension 'level' of length 2": lambda ds: ds.expand_dims(level=[1, 2]),
    "has no coordinate 'latitude'": lambda ds: ds.rename(latitude="y"),
    "occurs twice": lambda ds: ds.isel(time=[0, 1, 1, 2]),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, wind, message):
    FAULTS[message](wind).to_netcdf(tmp_path / "wind.nc")
    with pytest.raises(UserError, match=message) as error:
        open_wind_files(str(tmp_path / "wind.nc"))
    assert "wind.nc" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "missing"), (np.inf, "missing"), (-200.0, "absurd")])
def test_values_that_no_wind_has_are_refused_with_their_time(tmp_path, wind, value, word):
    wind.v10[3, 2, 1] = value
    wind.to_netcdf(tmp_path / "wind.nc")
    with pytest.raises(UserError, match=rf"wind.nc: {word} value .* of 10 m wind v at 2020-01-01T18:00"):
        read(tmp_path / "wind.nc")


def test_other_grid_in_a_later_file_is_refused(tmp_path, wind):
    wind.isel(time=[0]).to_netcdf(tmp_path / "a.nc")
    wind_dataset(six_hourly("2021-01-01", 2), LATITUDES, np.arange(0.0, 360.0, 30.0)).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(UserError, match=r"b.nc: its grid \(12x7\) differs"):
        open_wind_files(str(tmp_path))


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_wind_files(str(tmp_path / "none.nc"))
    (tmp_path / "broken.nc").write_bytes(b"CDF\x05 and then nothing that makes sense")
    with pytest.raises(UserError, match="cannot be read as NetCDF"):
        open_wind_files(str(tmp_path / "broken.nc"))


@needs_shared
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("era5_cdsnew_u10v10_bayofbengal_6h_30steps.nc", "not a global grid"),
        ("era5_cdsold_u10v10sst_mediterranean_daily_27steps.nc", "not a global grid"),
        ("era5_cdsold_u100v100_expverdim_monthly_514steps.nc", "has no 10 m wind"),
        ("era5_cdsold_u10v10_3x3_hourly_8664steps.nc", "not a global grid"),
        ("eraint_uvz_monthly.nc", "has no 10 m wind"),
    ],
)
def test_real_files_that_cannot_be_used(name, message):
    with pytest.raises(UserError, match=message):
        open_wind_files(str(SHARED / "formats" / name))


@needs_shared
def test_a_real_file_with_scalar_times_is_one_step():
    files = open_wind_files(str(SHARED / "formats" / "gfs_0p5deg_global_cfgrib_scalar_coords_1step.nc"))
    assert files.grid.name == "720x361"
    assert files.times.size == 1
    (block,) = files.blocks(8)
    assert block.shape == (1, 2, 361, 720)
    assert 2 < np.abs(block).mean() < 10
