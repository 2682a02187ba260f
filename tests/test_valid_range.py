"""CF's valid_range, valid_min and valid_max: values outside of them are missing, in packed data too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset

import wsdcast
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.sources.layout import fields_of
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.sources.valid_range import with_invalid_missing
from wsdcast.data.variables import DEFAULT
from wsdcast.runs import progress
from wsdcast.runs.errors import UserError

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0, 360, 30.0)
SHORT, LONG, FLOAT, DOUBLE = np.int16, np.int64, np.float32, np.float64
SCALE = {"scale_factor": 0.1, "add_offset": 1.0}


@pytest.fixture(autouse=True)
def _no_notes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "NOTED", set())


def written(path: Path, kind: str, stored: Any, attributes: dict[str, Any], usual: Any = 0) -> xr.DataArray:
    """A variable of these stored values along time at the first longitude, read back from a NetCDF file or a Zarr store."""
    values = np.full((len(stored), 3, 4), usual, dtype=kind)
    values[:, :, 0] = np.array(stored, dtype=kind)[:, None]
    dataset = xr.Dataset({"u10": (("time", "latitude", "longitude"), values, attributes)})
    if path.suffix == ".nc":
        dataset.to_netcdf(path)
    else:
        dataset.to_zarr(path, zarr_format=3, consolidated=False)
    return open_dataset(str(path)).u10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize(
    ("kind", "stored", "attributes", "expected"),
    [
        ("f4", [-61, -60, 0, 60, 61], {"valid_range": np.array([-60, 60], FLOAT)}, [np.nan, -60, 0, 60, np.nan]),
        ("f4", [-61, 0, 61], {"valid_min": FLOAT(-60)}, [np.nan, 0, 61]),
        ("f4", [-61, 0, 61], {"valid_max": FLOAT(60)}, [-61, 0, np.nan]),
        ("f4", [-61, 0, 61], {"valid_min": DOUBLE(-60), "valid_max": FLOAT(60)}, [np.nan, 0, np.nan]),
        ("f4", [0.05, 0.1, 0.3, 0.35], {"valid_range": np.array([0.1, 0.3], DOUBLE)}, [np.nan, 0.1, 0.3, np.nan]),
        ("f4", [-999, 0, 61], {"valid_max": FLOAT(60), "_FillValue": FLOAT(-999)}, [np.nan, 0, np.nan]),
        ("i2", [-61, 0, 61], {"valid_range": np.array([-60, 60], SHORT)}, [np.nan, 0, np.nan]),
        # Packed data, with limits in the units of the variable.
        ("i2", [-5, 0, 7, 100, 101], {**SCALE, "valid_range": np.array([1, 11], FLOAT)}, [np.nan, 1, 1.7, 11, np.nan]),
        ("i2", [-5, 0, 7, 100, 101], {**SCALE, "valid_range": np.array([1, 11], LONG)}, [np.nan, 1, 1.7, 11, np.nan]),
        ("i2", [-5, 0, 7, 100, 101], {**SCALE, "valid_min": np.int32(1), "valid_max": DOUBLE(11)}, [np.nan, 1, 1.7, 11, np.nan]),
        ("i2", [-5, 0, 7], {"scale_factor": -0.1, "valid_min": np.array(-0.5, FLOAT)}, [0.5, 0, np.nan]),
        ("i2", [-5, 0, 7], {**SCALE, "valid_min": LONG(1), "_FillValue": SHORT(7)}, [np.nan, 1, np.nan]),
        # Integer limits of floats are left over from packed data.
        ("f4", [-61, 0, 61], {"valid_range": np.array([-60, 60], SHORT)}, [-61, 0, 61]),
        ("f4", [-61, 0, 61], {"valid_min": DOUBLE(-60), "valid_max": np.int32(60)}, [np.nan, 0, 61]),
        # What is no range says nothing.
        ("f4", [-61, 0, 61], {"valid_range": "-60 to 60"}, [-61, 0, 61]),
        ("f4", [-61, 0, 61], {"valid_range": FLOAT(60)}, [-61, 0, 61]),
        ("f4", [-61, 0, 61], {"valid_range": np.array([np.nan, 60], FLOAT)}, [-61, 0, np.nan]),
        ("f4", [-61, 0, 61], {}, [-61, 0, 61]),
    ],
)
def test_values_outside_of_the_valid_range_are_missing(tmp_path, capsys, suffix, kind, stored, attributes, expected):
    array = written(tmp_path / f"a{suffix}", kind, stored, attributes, stored[2] if stored[0] == 0.05 else 0)
    assert array.shape == (len(stored), 3, 4)
    np.testing.assert_allclose(array.values[:, 2, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(array.isel(latitude=1)[[0, 2], 0].values, np.array(expected)[[0, 2]], rtol=1e-6)
    outside = np.isnan(expected).sum() > ("_FillValue" in attributes)
    assert ("values of u10 outside of its valid range" in capsys.readouterr().err) == outside


@pytest.mark.parametrize(
    ("kind", "stored", "attributes", "expected"),
    [
        ("i2", [-5, 0, 7, 100, 101], {**SCALE, "valid_range": np.array([0, 100], SHORT)}, [np.nan, 1, 1.7, 11, np.nan]),
        ("i2", [-5, 0, 7], {"scale_factor": -0.1, "valid_range": np.array([0, 100], SHORT)}, [np.nan, 0, -0.7]),
        ("f4", [-5, 0, 7], {**SCALE, "valid_min": FLOAT(0)}, [np.nan, 1, 1.7]),
        (">i2", [-5, 0, 7], {**SCALE, "valid_min": SHORT(0), "_FillValue": SHORT(7)}, [np.nan, 1, np.nan]),
    ],
)
def test_limits_of_the_type_of_packed_data_are_packed(tmp_path, kind, stored, attributes, expected):
    array = written(tmp_path / "a.nc", kind, stored, attributes)
    np.testing.assert_allclose(array.values[:, 2, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["i2", "f4"])
def test_a_range_outside_of_which_most_values_are_is_not_used(tmp_path, capsys, kind):
    """One that is left over from other packing, as xarray writes it after arithmetic."""
    limits = np.array([1, 100], kind)
    array = written(tmp_path / "a.nc", kind, [0, 1, 50, 100, 101], {"valid_range": limits})
    assert array.values[:, 1, 0].tolist() == [0, 1, 50, 100, 101]
    assert array[0, 0, 0].item() == 0
    about = "more than half of u10 is outside of its valid range (valid_range, valid_min, valid_max), which is not used"
    assert capsys.readouterr().err == f"{tmp_path / 'a.nc'}: {about}\n"


@pytest.mark.parametrize("outside", [{0}, {2}, {4}, {0, 1, 3}, {0, 2}, {0, 4}, {2, 4}, {0, 2, 4}], ids=str)
def test_the_first_the_middle_and_the_last_field_tell_whether_a_range_is_meant(tmp_path, outside):
    variable = xr.Variable(("time", "latitude", "longitude"), np.zeros((5, 3, 4), FLOAT), {"valid_max": FLOAT(60)})
    variable[sorted(outside)] = 61
    array = with_invalid_missing(xr.Dataset({"u10": variable}), "a")["u10"]
    is_meant = len(outside & {0, 2, 4}) < 2
    assert np.isnan(array.values[:, 0, 0]).tolist() == [is_meant and number in outside for number in range(5)]


def test_a_note_comes_once_for_many_files(tmp_path, capsys):
    for number in range(3):
        array = written(tmp_path / f"{number}.nc", "f4", [61, 0, 0], {"valid_max": FLOAT(60)})
        assert np.isnan(array[0, 0].values).tolist() == [True, False, False, False]
        assert np.isnan(array[0, 0, 0].item())
    assert capsys.readouterr().err.count("\n") == 1


def test_unsigned_bytes_have_unsigned_limits(tmp_path):
    """Classic NetCDF has only signed bytes, so -90 stands for 166."""
    attributes = {"_Unsigned": "true", "valid_min": np.int8(2), "valid_max": np.int8(-90), "scale_factor": 0.5}
    array = written(tmp_path / "a.nc", "i1", [1, 2, 100, -90, -89], attributes, 2)
    np.testing.assert_allclose(array.values[:, 0, 0], [np.nan, 1, 50, 83, np.nan])


def wind(**attributes: Any) -> xr.Dataset:
    dataset = wind_dataset(six_hourly("2020-01-01", 40), LATITUDES, LONGITUDES)
    dataset.u10[7, 3, 3] = 99
    dataset.u10.attrs |= attributes
    return dataset


def test_a_value_outside_of_the_valid_range_is_refused_as_missing(tmp_path, capsys):
    wind(valid_range=np.array([-60, 60], FLOAT)).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"missing or infinite values in 10 m wind u at 2020-01-02T18"):
        wsdcast.prepare(source=str(tmp_path / "a.nc"), grid="12x7", run=tmp_path / "run")
    expected = f"{tmp_path / 'a.nc'}: values of u10 outside of its valid range (valid_range, valid_min, valid_max) count as missing\n"
    assert capsys.readouterr().err.count(expected) == 1


@pytest.mark.filterwarnings("ignore")
def test_the_chunks_of_a_variable_with_a_valid_range_are_known(tmp_path):
    wind(valid_max=60.0).chunk(time=8).to_zarr(tmp_path / "a.zarr")
    fields = fields_of(open_dataset(str(tmp_path / "a.zarr")), DEFAULT)
    assert [stored.chunk for stored in fields.values()] == [8, 8]


def test_a_value_of_a_forecast_outside_of_its_valid_range_is_missing(tmp_path):
    forecast = wind(valid_range=np.array([-60, 60], FLOAT)).isel(time=slice(4, 8)).rename(time="prediction_timedelta")
    forecast["prediction_timedelta"] = np.timedelta64(6, "h") * np.arange(1, 5)
    forecast.expand_dims(time=six_hourly("2020-01-01", 1)).to_netcdf(tmp_path / "a.nc")
    read = open_forecast(str(tmp_path / "a.nc")).read(0)
    assert np.argwhere(np.isnan(read)).tolist() == [[0, 3, 0, 3, 3]]


def test_a_range_of_coordinates_is_not_used(tmp_path):
    """Nor is one of variables that are no numbers."""
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, axis in {"latitude": LATITUDES, "longitude": LONGITUDES}.items():
            file.createDimension(name, axis.size)
            file.createVariable(name, "f8", (name,))[:] = axis
        file["longitude"].valid_range = [0.0, 180.0]
        file.createVariable("name", str, ("latitude",))[:] = np.array(list("abcdefg"), dtype=object)
        file["name"].valid_min = 1.0
    opened = open_dataset(str(tmp_path / "a.nc"))
    np.testing.assert_array_equal(opened.longitude, LONGITUDES)
    assert opened.name.values.tolist() == list("abcdefg")
