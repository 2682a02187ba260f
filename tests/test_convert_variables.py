"""Every variable of the table, written in every format and read back: by us, by ecCodes, with the parameter numbers of WMO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import open_channels, readable_channels
from wsdcast.data.variables import SPEED, VARIABLES, physical_range, short_name
from wsdcast.data.winds import array_attributes
from wsdcast.runs.errors import UserError

GRID = Grid.regular("8x5")
AXES = ("time", "number", "prediction_timedelta", "latitude", "longitude")
NAMES = [name if entry.kind == "surface" else f"{name}@500" for name, entry in VARIABLES.items() if name != SPEED]

WMO = {
    "10m_u_component_of_wind": (0, 2, 2, "heightAboveGround", 10, "m s**-1"),
    "10m_v_component_of_wind": (0, 2, 3, "heightAboveGround", 10, "m s**-1"),
    "100m_u_component_of_wind": (0, 2, 2, "heightAboveGround", 100, "m s**-1"),
    "100m_v_component_of_wind": (0, 2, 3, "heightAboveGround", 100, "m s**-1"),
    "2m_temperature": (0, 0, 0, "heightAboveGround", 2, "K"),
    "2m_dewpoint_temperature": (0, 0, 6, "heightAboveGround", 2, "K"),
    "mean_sea_level_pressure": (0, 3, 0, "meanSea", 0, "Pa"),
    "surface_pressure": (0, 3, 0, "surface", 0, "Pa"),
    "total_column_water_vapour": (0, 1, 64, "entireAtmosphere", 0, "kg m**-2"),
    "total_cloud_cover": (0, 6, 1, "entireAtmosphere", 0, "%"),
    "total_precipitation_6hr": (0, 1, 52, "surface", 0, "kg m**-2"),
    "sea_surface_temperature": (10, 3, 0, "surface", 0, "K"),
    "sea_ice_cover": (10, 2, 0, "surface", 0, "(0 - 1)"),
    "toa_incident_solar_radiation": (0, 4, 7, "nominalTop", 0, "J m**-2"),
    "geopotential@500": (0, 3, 4, "isobaricInhPa", 500, "m**2 s**-2"),
    "temperature@500": (0, 0, 0, "isobaricInhPa", 500, "K"),
    "u_component_of_wind@500": (0, 2, 2, "isobaricInhPa", 500, "m s**-1"),
    "v_component_of_wind@500": (0, 2, 3, "isobaricInhPa", 500, "m s**-1"),
    "vertical_velocity@500": (0, 2, 8, "isobaricInhPa", 500, "Pa s**-1"),
    "specific_humidity@500": (0, 1, 0, "isobaricInhPa", 500, "kg kg**-1"),
}
"""Discipline, category and number of code table 4.2 (WMO-No. 306, volume I.2), type and value of the level, and units in ecCodes."""
FACTORS = {"total_cloud_cover": 100, "total_precipitation_6hr": 1000}
STEPS = {"total_precipitation_6hr": "6-12", "toa_incident_solar_radiation": "11-12"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """One member of every variable at 12 h, evenly spread over its physical range."""
    leads = np.array([12], "timedelta64[h]").astype("timedelta64[ns]")
    axes = (np.array(["2020-02-01T06"], "datetime64[ns]"), np.array([0]), leads, GRID.latitude, GRID.longitude)
    forecast = xr.Dataset(coords=dict(zip(AXES, axes, strict=True)))
    for name in NAMES:
        low, high = physical_range(name)
        values = np.linspace(max(low, 0) if VARIABLES[name.partition("@")[0]].non_negative else low, high, 40, dtype=np.float32)
        forecast[name] = AXES, values.reshape(1, 1, 1, *GRID.shape), array_attributes(name)
    path = tmp_path_factory.mktemp("all") / "f.zarr"
    forecast.to_zarr(path, zarr_format=2, consolidated=True)
    return forecast.assign_attrs(path=str(path))


@pytest.mark.parametrize("name", ["o.nc", "o.zarr"])
def test_every_variable_is_the_same_when_it_is_read_back(store, tmp_path, name):
    wsdcast.convert(store.attrs["path"], {"o.nc": "netcdf", "o.zarr": "zarr"}[name], tmp_path / name)
    assert set(readable_channels(str(tmp_path / name))[0]) == set(NAMES)
    back = open_channels(str(tmp_path / name), part=False, variables=NAMES)
    for channel in NAMES:
        np.testing.assert_array_equal(back[channel].values.reshape(store[channel].shape), store[channel], err_msg=channel)
    if name == "o.nc":
        with xr.open_dataset(tmp_path / name, decode_timedelta=True) as dataset:
            assert set(dataset.data_vars) == {short_name(channel) for channel in NAMES}


def fields_of(path: Path) -> list[tuple[dict[str, object], np.ndarray]]:
    eccodes = pytest.importorskip("eccodes")
    keys = ["discipline", "parameterCategory", "parameterNumber", "typeOfLevel", "level", "units"]
    found = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            about = {"wmo": tuple(eccodes.codes_get(handle, key) for key in keys), "step": eccodes.codes_get(handle, "stepRange", str)}
            about["valid"] = eccodes.codes_get(handle, "validityDate"), eccodes.codes_get(handle, "validityTime")
            found.append((about, eccodes.codes_get_values(handle).reshape(GRID.shape)))
            eccodes.codes_release(handle)
    return found


def test_grib_has_the_parameters_and_units_of_wmo(store, tmp_path):
    wsdcast.convert(store.attrs["path"], "grib2", tmp_path / "o.grib2")
    fields = fields_of(tmp_path / "o.grib2")
    names = [next(name for name, about in WMO.items() if about == field["wmo"]) for field, _ in fields]
    assert sorted(names) == sorted(NAMES)
    for name, (about, values) in zip(names, fields, strict=True):
        expected = store[name].values[0, 0, 0] * FACTORS.get(name, 1)
        np.testing.assert_allclose(values, expected, atol=(expected.max() - expected.min()) / 2**15, rtol=1e-6, err_msg=name)
        assert about["step"] == STEPS.get(name, "12")
        assert about["valid"] == (20200201, 1800)


def test_we_read_what_we_write_in_grib(store, tmp_path):
    """But for cloud cover, which is in percent, and precipitation, which says nowhere that it is that of six hours."""
    pytest.importorskip("eccodes")
    wsdcast.convert(store.attrs["path"], "grib2", tmp_path / "o.grib2")
    names, refused = readable_channels(str(tmp_path / "o.grib2"))
    assert set(names) == set(NAMES) - set(FACTORS)
    assert refused == {"total_cloud_cover": "tcc has units '%'; expected 1"}
    back = open_channels(str(tmp_path / "o.grib2"), part=False, variables=names)
    for channel in names:
        span = float(store[channel].max() - store[channel].min())
        values = back[channel].values.reshape(store[channel].shape)
        np.testing.assert_allclose(values, store[channel], atol=span / 2**15, rtol=1e-6, err_msg=channel)


def test_sums_over_more_than_the_lead_time_are_refused_for_grib(store, tmp_path):
    pytest.importorskip("eccodes")
    early = store[["2m_temperature", "total_precipitation_6hr"]].assign_coords(
        prediction_timedelta=np.array([3], "timedelta64[h]").astype("timedelta64[ns]")
    )
    early.drop_attrs(deep=False).to_zarr(tmp_path / "f.zarr", zarr_format=2, consolidated=True)
    with pytest.raises(UserError, match="total_precipitation_6hr goes over 6 h, more than its first lead time"):
        wsdcast.convert(str(tmp_path / "f.zarr"), "grib2", tmp_path / "o.grib2")
