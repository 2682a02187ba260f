"""All variables that a forecast and its truth both have are scored, whatever the format; the others are named."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import xarray as xr
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, opened_scores, truth_dataset, write

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
