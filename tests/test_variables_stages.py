"""Records of several variables pass through all stages, and through networks of one evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import TINY, new_run
from made_records import STATE, with_five_variables
from rollouts import forecast_of
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.store.forecasts import STOPPED
from wsdcast.data.variables import DEFAULT

SST = "sea_surface_temperature"
UPPER = ("u_component_of_wind@250", "v_component_of_wind@250")

TWO_LAYERS = """
name: layers
data:
  grid: 16x8
  days: 30
  variables: [10m_u_component_of_wind, 10m_v_component_of_wind, u_component_of_wind@250, v_component_of_wind@250]
forcings: {latitude_longitude: true, solar_time: true}
moments: {widths: [8, 8], steps: 4, batch: 4}
generator: {widths: [8, 8], steps: 4, batch: 4}
training: {weights: {u_component_of_wind: 0.5, v_component_of_wind: 0.5}}
rollout: {members: 3, nfe: 2, starts: 2, days: 0.5}
"""


def test_both_layers_of_the_planet_pass_through_all_stages_and_a_model_file(tmp_path):
    """The 10 m wind is the headline, and the upper wind has scores and a part of the report of its own."""
    (tmp_path / "r.yaml").write_text(TWO_LAYERS)
    summary = wsdcast.run(tmp_path / "r.yaml", tmp_path / "run")[-1]
    scores = xr.load_dataset(tmp_path / "run/scores.nc", decode_timedelta=True)
    assert {"both", "both@250", "wind_speed@250", "vector@250"} <= set(scores["variable"].values)
    assert summary.scores[0]["rmse"] == float(scores["rmse"].sel(variable="both", region="globe")[0, 0])
    page = (tmp_path / "run/report.html").read_text()
    assert "<option value=0>10 m wind speed</option><option value=1>wind speed at 250 hPa</option>" in page
    assert page.count("<article") == 2
    wsdcast.rollout(run=tmp_path / "run", keep="statistics", overwrite=True)
    speed = forecast_of(tmp_path / "run")["wind_speed@250"]
    assert (speed.attrs["long_name"], speed.attrs["pressure_level"]) == ("wind speed at 250 hPa", 250)
    assert float(speed.sel(statistic="mean").min()) > 0
    wsdcast.export_model(tmp_path / "run", tmp_path / "model.wsd")
    source = str(tmp_path / "run/analysis.zarr")
    wsdcast.rollout(model=tmp_path / "model.wsd", initial=source, run=tmp_path / "again", members=2, days=0.25)
    again = forecast_of(tmp_path / "again")
    assert {*UPPER, *DEFAULT} <= set(again.data_vars)
    assert bool(np.isfinite(again["u_component_of_wind@250"]).all())
    (tmp_path / "places.csv").write_text("name,latitude,longitude\nFiji,-17.8,177.9\n")
    options = ["--model", str(tmp_path / "model.wsd"), "--initial", source, "--run", str(tmp_path / "today"), "--members", "2"]
    options += ["--lead", "6h", "-o", f"rollout.variables=[{', '.join(UPPER)}]", "--at", str(tmp_path / "places.csv")]
    refused = CliRunner().invoke(app, ["forecast", *options, "--thresholds", "5"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "--thresholds is about the 10 m wind, which this forecast does not have" in refused.stderr
    assert not (tmp_path / "today").exists()
    result = CliRunner().invoke(app, ["forecast", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with xr.open_dataset(tmp_path / "today/products.nc") as products:
        expected = {f"{name}_250_{product}" for name in ("u", "v", "speed") for product in ("mean", "spread", "quantile")}
        assert set(products.data_vars) == {"members", *expected}
    assert set(pd.read_csv(tmp_path / "today/places.csv")["variable"]) == {"u_250", "v_250", "speed_250"}
    assert (tmp_path / "today/places-Fiji.png").is_file()
    assert "Wind speed at 250 hPa. Choose a place" in (tmp_path / "today/forecast.html").read_text()


@pytest.mark.parametrize("objective", ["crps", "distil"])
def test_networks_of_one_evaluation_forecast_all_variables(prepared, tmp_path, objective):
    """The network is trained, fine-tuned on rollouts with the forcing variable of the record, and rolled out with one evaluation."""
    recipe = TINY.replace("generator: {", f"generator: {{objective: {objective}, ").replace("nfe: 2", "nfe: 1")
    recipe += "few_steps: {steps: 2, batch: 4}\nfine_tune: {steps: 2, batch: 2, rollout: [1, 2]}\n"
    recipe += "training: {weights: {geopotential@500: 2.0}}\n"
    run = new_run(prepared, tmp_path, recipe)
    with_five_variables(run / "analysis.zarr", forcings=(SST,))
    wsdcast.train(tmp_path / "tiny.yaml", run)
    wsdcast.rollout(run=run)
    assert {str(name) for name in forecast_of(run).data_vars} == {*STATE, STOPPED}
