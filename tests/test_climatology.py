"""Tests of the streamed statistics of the training split against statistics computed at once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset

import wsdcast
from wsdcast.data import climatology
from wsdcast.data.store import shards
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT


@pytest.fixture(scope="module", params=[512, 16])
def store(tmp_path_factory, request):
    """Return a store of seventeen months with gaps, in a few large shards or in many small ones."""
    directory = tmp_path_factory.mktemp("climatology")
    times = np.delete(six_hourly("2019-11-01", 2000), [8, 20, 500])
    wind_dataset(times, np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)).to_netcdf(directory / "wind.nc")
    (directory / "r.yaml").write_text(
        f"name: r\ndata: {{source: {directory}/wind.nc, grid: 8x4, validation_from: 2020-12-01, test_from: 2021-01-01}}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", request.param)
        patch.setattr(climatology, "STEPS", request.param)
        patch.setattr("wsdcast.data.store.building.SHARD", request.param)
        wsdcast.prepare(directory / "r.yaml", directory / "run")
    return directory / "run/analysis.zarr"


@pytest.fixture(scope="module")
def training(store) -> xr.Dataset:
    with xr.open_zarr(store) as dataset:
        return dataset.sel(time=slice(None, "2020-11-30")).load()


def test_mean_std_and_std_of_the_change_in_six_hours(store, training):
    weights = xr.DataArray(open_analysis(store).grid.area_weights, dims="latitude")
    for name in DEFAULT:
        wind = training[name]
        with xr.open_zarr(store) as dataset:
            stored = dataset.attrs["normalisation"][name]
        mean = float(wind.weighted(weights).mean())
        assert stored["mean"] == pytest.approx(mean, abs=1e-6)
        assert stored["std"] == pytest.approx(float((((wind - mean) ** 2).weighted(weights).mean()) ** 0.5), rel=1e-6)
        change = wind.diff("time")[(np.diff(wind.time) == np.timedelta64(6, "h"))]
        assert change.sizes["time"] == training.sizes["time"] - 1 - 3
        assert stored["difference_std"] == pytest.approx(float(((change**2).weighted(weights).mean()) ** 0.5), rel=1e-6)


def test_climatology_is_the_mean_by_month_and_hour(store, training):
    with xr.open_zarr(store) as dataset:
        for name in DEFAULT:
            stored = dataset[f"{name}_climatology"].load()
            assert stored.dims == ("month", "hour", "latitude", "longitude")
            for month in range(1, 13):
                for hour in (0, 6, 12, 18):
                    chosen = training[name][(training.time.dt.month == month) & (training.time.dt.hour == hour)]
                    np.testing.assert_allclose(stored.sel(month=month, hour=hour), chosen.mean("time"), atol=1e-5)


def test_months_that_training_lacks_are_missing(tmp_path):
    wind_dataset(six_hourly("2020-01-01", 100), np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)).to_netcdf(tmp_path / "wind.nc")
    wsdcast.prepare(source=str(tmp_path / "wind.nc"), grid="8x4", run=tmp_path / "run")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as dataset:
        present = np.isfinite(dataset[f"{DEFAULT[0]}_climatology"]).all(dim=("latitude", "longitude")).values
    assert present[0].all()
    assert not present[1:].any()
