"""All variables that a forecast and its truth both have are scored, whatever the format; the others are named."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest
import xarray as xr
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, opened_scores, refuses, truth_dataset, write

import wsdcast
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.variables import attributes
from wsdcast.weather.stages import score_forecast, score_output
from wsdcast.weather.stages.score_forecast import in_other_units

T2M, SST = "2m_temperature", "sea_surface_temperature"


@pytest.fixture(scope="module", autouse=True)
def without_the_page():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(score_output, "write_report", lambda path, *arguments, **more: path.write_text("page"))
        yield


def with_temperature(dataset: xr.Dataset, name: str = T2M) -> xr.Dataset:
    """The dataset with a temperature, which is a function of the wind u, so that a good wind is a good temperature."""
    for wind in NAMES:
        dataset[wind].attrs = attributes(wind)
    return dataset.assign({name: (285 + dataset[NAMES[0]]).assign_attrs(attributes(name))})


@pytest.fixture(scope="module")
def forecast() -> xr.Dataset:
    return with_temperature(forecast_dataset().isel(time=slice(2)))


@pytest.fixture(scope="module")
def sources(forecast, tmp_path_factory) -> dict[str, str]:
    """The forecast and the truth in several formats."""
    path = tmp_path_factory.mktemp("sources")
    with_temperature(truth_dataset()).to_netcdf(path / "truth.nc")
    with zipfile.ZipFile(path / "truth.zip", "w") as archive:
        archive.write(path / "truth.nc", "truth.nc")
    zarr = write(forecast, path / "model.zarr")
    pytest.importorskip("eccodes")
    wsdcast.convert(zarr, "grib2", path / "model.grib2")
    alone = write(forecast[[T2M]], path / "alone.zarr")
    wsdcast.convert(alone, "grib2", path / "alone.grib2")
    return {name.name: str(name) for name in path.iterdir()}


@pytest.mark.parametrize("truth", ["truth.nc", "truth.zip"])
@pytest.mark.parametrize("name", ["model.zarr", "model.grib2", "alone.zarr", "alone.grib2"])
def test_the_format_does_not_decide_what_is_scored(sources, name, truth, tmp_path, forecast):
    summary = wsdcast.score_forecast(sources[name], sources[truth], tmp_path / "run")
    scores = opened_scores(tmp_path / "run").isel(forecast=0).sel(region="globe")
    channels = [T2M] if "alone" in name else [*NAMES, T2M]
    assert [variable for variable in scores["variable"].values if variable in (*NAMES, T2M)] == channels
    assert "not scored" not in summary.facts
    error = forecast[T2M].mean("number") - (285 + forecast_truth()[NAMES[0]])
    expected = (error * GRID.area_weights[:, None]).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(scores["bias"].sel(variable=T2M), expected, atol=2e-3)  # GRIB has 24 bits, or fewer


def forecast_truth() -> xr.Dataset:
    """The truth at the valid times of the forecast, (time, prediction_timedelta, latitude, longitude)."""
    valid = xr.DataArray(STARTS[:2, None] + LEADS, dims=("time", "prediction_timedelta"))
    return truth_dataset().sel(time=valid).drop_vars("time")


def celsius(forecast: xr.Dataset) -> xr.Dataset:
    return forecast.assign({T2M: (forecast[T2M] - 273.15).assign_attrs(units="degC")})


REFUSED = {
    "has units 'degC'; expected K": celsius,
    "has no dimension number": lambda forecast: forecast.assign({T2M: forecast[T2M].isel(number=0, drop=True)}),
    "may be its 'number'": lambda forecast: forecast.assign({T2M: forecast[T2M].expand_dims(sample=2)}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_variable_that_cannot_be_read_is_named_and_the_others_are_scored(sources, forecast, reason, tmp_path):
    store = write(REFUSED[reason](forecast), tmp_path / "model.zarr")
    summary = wsdcast.score_forecast(store, sources["truth.nc"], tmp_path / "run")
    assert reason in summary.facts["not scored"]
    assert T2M not in opened_scores(tmp_path / "run")["variable"].values


LAND = GRID.longitude < 40


def scored_on(tmp_path, name: str, forecast: xr.Dataset) -> tuple[xr.Dataset, dict]:
    truth = tmp_path / "truth.zarr"
    if not truth.exists():
        write(with_temperature(truth_dataset(), SST), truth)
    summary = wsdcast.score_forecast(write(forecast, tmp_path / name / "model.zarr"), truth, tmp_path / name)
    return opened_scores(tmp_path / name).drop_attrs(), summary.facts


def test_a_variable_of_a_smaller_part_of_the_globe_does_not_change_the_scores_of_the_wind(tmp_path):
    forecast = with_temperature(forecast_dataset().isel(time=slice(2)), SST)
    sea = xr.DataArray(~LAND & (np.abs(GRID.latitude)[:, None] < 70), dims=("latitude", "longitude"))
    scores, facts = scored_on(tmp_path, "all", forecast.assign({SST: forecast[SST].where(sea)}))
    xr.testing.assert_identical(scores, scored_on(tmp_path, "wind", forecast[[*NAMES]])[0])
    share = 100 * (sea.values * GRID.area_weights[:, None]).mean()
    assert f"{SST} has values on {share:.3g} % of the globe, others on 100 %" in facts["not scored"]
    assert "scored on" not in facts


@pytest.mark.parametrize("masked", [LAND, np.abs(GRID.latitude)[:, None] > 89, (GRID.longitude == 30) & (GRID.latitude[:, None] == 15)])
def test_wind_decides_where_others_are_scored(masked, tmp_path):
    """Others that have more points, or lack a few, are scored where all have values."""
    forecast = with_temperature(forecast_dataset().isel(time=slice(2)), SST)
    outside = xr.DataArray(np.broadcast_to(masked, GRID.shape), dims=("latitude", "longitude"))
    scores, facts = scored_on(tmp_path, "wind", forecast.assign({name: forecast[name].where(~outside) for name in NAMES}))
    xr.testing.assert_identical(scores, scored_on(tmp_path, "both", forecast.where(~outside))[0])
    assert "not scored" not in facts
    assert "scored on" in facts


@pytest.mark.parametrize("poor", [0, 20])
def test_a_variable_without_units_must_be_possible_in_ours(sources, forecast, poor, tmp_path):
    """Many stores have no units. A temperature in kelvins is scored, also a poor one; one in degrees Celsius is left out and named."""
    for number, offset in enumerate((poor, 273.15)):
        store = forecast.assign({T2M: forecast[T2M] - offset})
        for name in store.data_vars:
            store[name].attrs = {}
        write(store.isel(number=0, drop=True) if poor and number else store, tmp_path / f"{number}.zarr")
    summary = wsdcast.score_forecast(tmp_path / "0.zarr", sources["truth.nc"], tmp_path / "run")
    assert "not scored" not in summary.facts
    assert T2M in opened_scores(tmp_path / "run")["variable"].values
    summary = wsdcast.score_forecast(tmp_path / "1.zarr", sources["truth.nc"], tmp_path / "other")
    assert re.search(r"2m_temperature has no units, and values from .* to .*, which are not in K", summary.facts["not scored"])
    assert T2M not in opened_scores(tmp_path / "other")["variable"].values
    write(xr.open_zarr(tmp_path / "1.zarr")[[T2M]], tmp_path / "alone.zarr")
    assert "which are not in K" in refuses(tmp_path / "alone.zarr", "--truth", sources["truth.nc"], "--run", tmp_path / "alone")


def test_the_first_field_says_whether_values_without_units_can_be_in_ours(forecast, tmp_path):
    cold, hot = forecast[T2M].copy(), forecast[T2M].copy()
    cold[0, 0, 0, 0, 0], hot[0, 0, 0, 0, 0] = 20, 1000
    missing = cold.where(cold["number"] > 0)
    for number, (field, is_odd) in enumerate(((forecast[T2M], False), (cold, True), (hot, True), (missing, False))):
        store = forecast.assign({NAMES[0]: 1000 * forecast[NAMES[0]], T2M: field})  # a wind is left to the test of alignment
        path = write(store.drop_attrs(deep=True), tmp_path / f"{number}.zarr")
        assert set(in_other_units(open_forecast(path, variables=[*NAMES, T2M]))) == ({T2M} if is_odd else set())
    path = write(store.assign({T2M: cold.assign_attrs(units="K")}), tmp_path / "K.zarr")
    assert in_other_units(open_forecast(path, variables=[T2M])) == {}


def test_analyses_are_fetched_once_for_each_initial_and_valid_time_with_what_is_offered(tmp_path, monkeypatch):
    """Valid times of several initial times coincide. Those between analyses have none."""
    asked = []
    monkeypatch.setattr(score_forecast, "fetch_existing", lambda *arguments: asked.append(arguments) or [])
    leads = np.array([6, 9, 24], "timedelta64[h]").astype("timedelta64[ns]")
    path = write(forecast_dataset().isel(time=slice(0, 2)).assign_coords(prediction_timedelta=leads), tmp_path / "f.zarr")
    score_forecast._fetched("gfs", path, NAMES, tmp_path)
    ((system, times, channels),) = asked
    assert (system, list(channels)) == ("gfs", [*NAMES])
    hours = (times - STARTS[0]) / np.timedelta64(1, "h")
    assert hours.tolist() == [0, 6, 24, 30, 48]
