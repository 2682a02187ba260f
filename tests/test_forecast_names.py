"""Forecasts under the names and in the shapes that other tools write give the package's own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly

from wsdcast.data.ensembles import open_forecast
from wsdcast.errors import UserError

HOUR = np.timedelta64(1, "h")


def forecast() -> xr.Dataset:
    """Two initial times, three members, lead times of 6 and 12 h."""
    values = np.random.default_rng(0).normal(0, 5, (2, 2, 3, 2, 5, 8)).astype(np.float32)
    dims = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    names = ("10m_u_component_of_wind", "10m_v_component_of_wind")
    coords = {
        "time": six_hourly("2020-02-01", 2),
        "number": np.arange(3),
        "prediction_timedelta": (np.array([6, 12]) * HOUR).astype("m8[ns]"),
    }
    axes = {"latitude": np.linspace(90, -90, 5), "longitude": 45.0 * np.arange(8)}
    return xr.Dataset({name: (dims, field) for name, field in zip(names, values, strict=True)}, coords=coords | axes)


def saved(dataset: xr.Dataset, path: Path) -> str:
    dataset.to_netcdf(path / "a.nc")
    return str(path / "a.nc")


def assert_the_same(path: str, wanted: xr.Dataset) -> None:
    found = open_forecast(path)
    np.testing.assert_array_equal(found.times, wanted.time)
    np.testing.assert_array_equal(found.leads, wanted.prediction_timedelta)
    fields = np.stack([wanted["10m_u_component_of_wind"].values, wanted["10m_v_component_of_wind"].values], axis=3)
    for row in range(found.times.size):
        np.testing.assert_array_equal(found.read(row), fields[row])


@pytest.mark.parametrize(
    "names",
    [
        {"time": "forecast_reference_time", "number": "realization", "prediction_timedelta": "forecast_period"},
        {"time": "init", "number": "member", "prediction_timedelta": "lead"},
        {"time": "init_time", "number": "ensemble", "prediction_timedelta": "lead_time"},
        {"time": "time", "number": "sample", "prediction_timedelta": "step"},
    ],
)
def test_names_of_other_tools(tmp_path, names):
    assert_the_same(saved(forecast().rename(names), tmp_path), forecast())


def test_lead_times_called_time(tmp_path):
    """GraphCast's: ``time`` is the lead, a dimension ``batch`` of length one, the initial time a scalar."""
    one = forecast().isel(time=0).rename(time="init_time", prediction_timedelta="time").expand_dims("batch")
    assert_the_same(saved(one, tmp_path), forecast().isel(time=[0]))


def test_scalars_of_one_initial_or_lead_time(tmp_path):
    assert_the_same(saved(forecast().isel(time=1), tmp_path), forecast().isel(time=[1]))
    assert_the_same(saved(forecast().isel(prediction_timedelta=0), tmp_path), forecast().isel(prediction_timedelta=[0]))


def test_valid_times_beside_initial_and_lead_times(tmp_path):
    dataset = forecast().rename(prediction_timedelta="step")
    assert_the_same(saved(dataset.assign_coords(valid_time=dataset.time + dataset.step), tmp_path), forecast())


@pytest.mark.parametrize(("units", "values"), [("h", [6.0, 12.0]), ("hours", [6, 12]), ("days", [0.25, 0.5]), ("minutes", [360, 720])])
def test_lead_times_as_numbers_with_units(tmp_path, units, values):
    dataset = forecast().assign_coords(prediction_timedelta=("prediction_timedelta", values, {"units": units}))
    assert_the_same(saved(dataset, tmp_path), forecast())


def test_lead_times_out_of_order_are_sorted(tmp_path):
    assert_the_same(saved(forecast().isel(prediction_timedelta=[1, 0]), tmp_path), forecast())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": [0, 1, 0]}, "its initial time 2020-02-01T00 occurs twice"),
        ({"number": [0, 1, 1, 2]}, "its member 1 occurs twice"),
        ({"prediction_timedelta": [0, 1, 1]}, "its lead time 12 h occurs twice"),
    ],
)
def test_what_occurs_twice_is_refused(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        open_forecast(saved(forecast().isel(change), tmp_path))


def test_forecasts_by_valid_time_are_one_line(tmp_path):
    dataset = forecast().isel(prediction_timedelta=0, drop=True).rename(time="valid_time")
    with pytest.raises(UserError, match="'valid_time' of length 2, which is none of a forecast; its dimensions are initial time"):
        open_forecast(saved(dataset, tmp_path))
    with pytest.raises(UserError, match=r"has no coordinate 'prediction_timedelta'.*; forecasts are stored by initial and lead time"):
        open_forecast(saved(forecast().isel(prediction_timedelta=0, drop=True), tmp_path))
