"""All variables that a forecast and its truth both have are scored, whatever the format; the others are named."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest
import xarray as xr
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, opened_scores, refuses, truth_dataset, write

import wsdcast
from wsdcast.data.variables import attributes
from wsdcast.weather.stages import score_output

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
    return with_temperature(forecast_dataset())


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
    valid = xr.DataArray(STARTS[:, None] + LEADS, dims=("time", "prediction_timedelta"))
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


@pytest.mark.parametrize("masked", [[SST], [*NAMES]])
def test_variables_of_another_part_of_the_globe_do_not_change_the_scores_of_others(masked, tmp_path):
    """The variables with the largest part are scored, as they are scored alone; the others are named."""
    forecast, truth = (with_temperature(dataset, SST) for dataset in (forecast_dataset(), truth_dataset()))
    forecast = forecast.assign({name: forecast[name].where(~LAND) for name in masked})
    source = write(truth, tmp_path / "truth.zarr")
    whole = [name for name in (*NAMES, SST) if name not in masked]
    summary = wsdcast.score_forecast(write(forecast, tmp_path / "model.zarr"), source, tmp_path / "run")
    wsdcast.score_forecast(write(forecast[whole], tmp_path / "part/model.zarr"), source, tmp_path / "alone")
    xr.testing.assert_identical(*(opened_scores(tmp_path / name).drop_attrs() for name in ("run", "alone")))
    for name in masked:
        assert f"{name} has values on {100 * (1 - LAND.mean()):.3g} % of the globe, others on 100 %" in summary.facts["not scored"]
    assert "scored on" not in summary.facts


def test_a_variable_without_units_must_fit_its_truth(sources, forecast, tmp_path):
    """Many stores have no units. A temperature in kelvins is scored, one in degrees Celsius is not."""
    for number, offset in enumerate((0, 273.15)):
        store = forecast.assign({T2M: forecast[T2M] - offset})
        for name in store.data_vars:
            store[name].attrs = {}
        write(store, tmp_path / f"{number}.zarr")
    wsdcast.score_forecast(str(tmp_path / "0.zarr"), sources["truth.nc"], tmp_path / "run")
    assert T2M in opened_scores(tmp_path / "run")["variable"].values
    line = refuses(tmp_path / "1.zarr", "--truth", sources["truth.nc"], "--run", tmp_path / "other")
    assert re.search(r"2m_temperature has no units, and its mean of 1\d\.\d does not fit the truth's 28\d K; bring it to K", line), line
    assert not (tmp_path / "other").exists()
