"""The recipe of 24 channels through all four stages, from a store on disk and from one behind a URL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from rollouts import forecast_of
from servers import serve
from upper_air import channel, weatherbench

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.sources.opening import BUILT_IN
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import STOPPED
from wsdcast.data.store.zarr_store import SCALE
from wsdcast.data.variables import DEFAULT, physical_range, variable

GRID = Grid.regular("12x7")
STAGES = ["prepare", "train", "rollout", "score"]


@pytest.mark.slow
def test_24_channels_from_their_store_to_scores(tmp_path, monkeypatch):
    """The recipe is the shipped one, with a smaller grid, smaller networks that are not compiled, and the dates of forty steps."""
    content = yaml.safe_load((Path(__file__).parents[1] / "pipelines/era5-upper.yaml").read_text())
    names = content["data"]["variables"]
    assert len(names) == 24
    content["data"] |= {"grid": "12x7", "start": "2020-01-01", "validation_from": "2020-01-06", "test_from": "2020-01-07"}
    content["moments"] |= {"widths": [8, 8], "steps": 2, "batch": 2, "compile": False}
    content["generator"] |= {"widths": [8, 8], "steps": 2, "compile": False}
    content["few_steps"] |= {"steps": 2, "compile": False}
    content["rollout"] = {"members": 3, "nfe": 2, "starts": 2, "days": 0.5}
    (tmp_path / "remote.yaml").write_text(yaml.safe_dump(content))
    source = weatherbench(names, GRID, [250, 500, 600, 700, 850], content["forcings"]["static"])
    store = tmp_path / "bucket" / BUILT_IN["wb2"].removeprefix("gs://")
    chunks = {name: {"chunks": (8, *field.shape[1:])} for name, field in source.data_vars.items() if "time" in field.dims}
    source.to_zarr(store, zarr_format=2, consolidated=True, encoding=chunks)
    with serve(tmp_path / "bucket") as (url, _):
        monkeypatch.setenv("GOOGLE_BASE_URL", url)
        assert [summary.stage for summary in wsdcast.run(tmp_path / "remote.yaml", tmp_path / "remote")] == STAGES
    content["data"]["source"] = str(store)
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(content))
    assert [summary.stage for summary in wsdcast.run(tmp_path / "local.yaml", tmp_path / "local")] == STAGES

    record = open_analysis(tmp_path / "remote/analysis.zarr")
    assert list(record.variables) == names
    for number, name in enumerate(names):
        expected = channel(source, name)
        error = record.states[:][:, number].astype(np.float64) - expected
        if name in DEFAULT:  # which keep their unit, that of a record of wind alone
            assert np.abs(error).max() < SCALE / 2 + 1e-5
        else:
            assert np.sqrt((error**2).mean()) < 1e-4 * expected.std(dtype=np.float64), name
    forecast, other = forecast_of(tmp_path / "remote"), forecast_of(tmp_path / "local")
    assert set(forecast.data_vars) == {*names, STOPPED}
    for name in names:
        low, high = physical_range(name)
        assert forecast[name].attrs["units"] == variable(name).units
        assert bool(np.isfinite(forecast[name]).all())
        assert low <= float(forecast[name].min()) <= float(forecast[name].max()) <= high
        np.testing.assert_array_equal(forecast[name], other[name])
        # The members are in physical units: within some standard deviations of the record's mean.
        expected = channel(source, name)
        assert abs(float(forecast[name].mean()) - expected.mean()) < 3 * expected.std()
    scores = xr.load_dataset(tmp_path / "remote/scores.nc", decode_timedelta=True)
    assert set(names) < set(scores["variable"].values)
    units = dict(zip(scores["variable"].values, scores["units"].values, strict=True))
    for name in names:
        assert units[name] == variable(name).units
        for metric in ("crps_fair", "rmse", "spread"):
            assert bool(np.isfinite(scores[metric].sel(variable=name, region="globe", forecast="wsdcast")).all()), (name, metric)
    table = pd.read_csv(tmp_path / "remote/scores.csv")
    rmse = table[(table["metric"] == "rmse") & (table["region"] == "globe") & (table["forecast"] == "wsdcast")]
    assert set(names) < set(rmse["variable"])
    assert np.isfinite(rmse["value"]).all()
