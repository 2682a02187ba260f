"""Tests of the four commands on a tiny recipe, the last of them run with the installed entry point, and of the files they write."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import TINY
from typer.testing import CliRunner, Result
from without_numba import scoringrules

import wsdcast
from wsdcast.cli import app
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.runs.positions import evenly_spread
from wsdcast.verification.kernels import fair_crps, ranked
from wsdcast.weather.recipe import load_recipe

ENTRY_POINT = Path(sys.executable).with_name("wsdcast")


def command(*arguments: str, cwd: Path) -> Result:
    """Run a command in this process, in a directory."""
    with contextlib.chdir(cwd):
        return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a directory in which the four commands ran in order. After the first, the run directory is the only option."""
    directory = tmp_path_factory.mktemp("finished")
    (directory / "tiny.yaml").write_text(TINY)
    for line in ("prepare --recipe tiny.yaml", "train --run runs/tiny", "rollout --run runs/tiny"):
        done = command(*line.split(), cwd=directory)
        assert done.exit_code == 0, done.stderr
        # Without a terminal there are no progress bars, only the results of validation.
        assert all(", validation: " in printed for printed in done.stderr.splitlines())
    arguments = [str(ENTRY_POINT), "score", "--run", "runs/tiny", "--json"]
    scored = subprocess.run(arguments, cwd=directory, capture_output=True, text=True, timeout=300, check=True)
    assert not scored.stderr
    (directory / "score.json").write_text(scored.stdout)
    return directory


@pytest.fixture(scope="module")
def record(finished):
    return open_analysis(finished / "runs/tiny/analysis.zarr")


def test_the_commands_write_their_artefacts_and_nothing_else(finished):
    names = {path.name for path in (finished / "runs/tiny").iterdir()}
    stores = {"analysis.zarr", "moments", "predictions", "generator", "forecast.zarr", "past_errors_forecast.zarr"}
    assert names == stores | {"forecast.gif", "scores.nc", "scores.csv", "report.html"}
    moments = finished / "runs/tiny/moments"
    files = {str(path.relative_to(moments)) for path in moments.rglob("*") if path.is_file()}
    checkpoint = "checkpoints/moments/step-000000004.safetensors"
    assert files == {"weights.safetensors", "stamp.json", "moments-losses.csv", "moments-validations.csv", checkpoint}


def test_prepared_store_is_plain_xarray(finished, record):
    with xr.open_zarr(finished / "runs/tiny/analysis.zarr") as dataset:
        climatology = {f"{name}_climatology" for name in DEFAULT}
        assert set(dataset.data_vars) == {*DEFAULT, *climatology, "land_sea_mask", "geopotential_at_surface"}
        wind = dataset["10m_u_component_of_wind"]
        assert wind.dims == ("time", "latitude", "longitude")
        assert wind.attrs["standard_name"] == "eastward_wind"
        assert wind.attrs["units"] == "m s-1"
        assert wind.shape == (120, 8, 16)
        assert dataset.latitude.values[0] > dataset.latitude.values[-1]
        assert wind.encoding["chunks"] == (8, 8, 16)
        assert wind.encoding["shards"] == (512, 8, 16)
        np.testing.assert_allclose(wind.values, record.states[:][:, 0], rtol=1e-7)


def test_normalisation_uses_only_the_training_split(record):
    training = record.states[record.part("train")].astype(np.float64)
    weights = record.grid.area_weights[:, None]
    mean = (training * weights).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(record.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(record.std, np.sqrt((training**2 * weights).mean(axis=(0, 2, 3)) - mean**2), rtol=1e-5)
    assert (record.part("train").sum(), record.part("validation").sum(), record.part("test").sum()) == (96, 12, 12)


def test_forecast_has_the_layout_of_weatherbench(finished, record):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast = xr.open_zarr(finished / "runs/tiny/forecast.zarr", decode_timedelta=True)
    assert forecast["10m_v_component_of_wind"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert dict(forecast.sizes) == {"time": 2, "number": 3, "prediction_timedelta": 2, "latitude": 8, "longitude": 16}
    np.testing.assert_array_equal(forecast.prediction_timedelta.values, np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"))
    assert set(forecast.time.values) <= set(record.times[record.part("test")])
    assert np.isfinite(forecast["10m_v_component_of_wind"].values).all()
    np.testing.assert_allclose(forecast.latitude.values, record.grid.latitude)


def test_scores_are_those_of_the_files(finished, record):
    """The fair CRPS of the table equals that computed from forecast and record, over all initial times."""
    rows = json.loads((finished / "score.json").read_text())["scores"]
    forecast = xr.open_zarr(finished / "runs/tiny/forecast.zarr", decode_timedelta=True)
    for lead, row in enumerate(rows):
        scores = []
        for start in range(2):
            now = int(np.flatnonzero(record.times == forecast.time.values[start])[0])
            for channel, name in enumerate(DEFAULT):
                crps = fair_crps(ranked(forecast[name].values[start, :, lead], record.states[now + 1 + lead][channel]))
                scores.append((crps * record.grid.area_weights[:, None]).mean())
        assert row["lead_hours"] == 6 * (lead + 1)
        assert row["crps_fair: wsdcast"] == pytest.approx(np.mean(scores), rel=1e-5)
    with xr.open_dataset(finished / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        assert set(scores.forecast.values) == {"wsdcast", "moments, past errors", "persistence", "climatology", "climatological mean"}
        assert scores.sizes["time"] == 2
        both = scores.crps_fair.sel(variable="both", forecast="wsdcast", region="globe").values
        np.testing.assert_allclose(both, [row["crps_fair: wsdcast"] for row in rows])


def test_the_moments_network_is_scored_in_closed_form_too(finished, record):
    """The CRPS of the Gaussian is the limit for very many members, and three members give it to within some per cent."""
    with xr.open_dataset(finished / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        gaussian = scores["crps_gaussian"].sel(region="globe", variable=DEFAULT[0], forecast="moments, past errors").values
        assert np.isnan(scores["crps_gaussian"].sel(forecast="wsdcast")).all()
        members = scores["crps_fair"].sel(region="globe", variable=DEFAULT[0], forecast="moments, past errors").values
    assert np.isnan(gaussian[1])
    assert gaussian[0] == pytest.approx(members[0], rel=0.1)
    with xr.open_zarr(finished / "runs/tiny/past_errors_forecast.zarr", decode_timedelta=True) as forecast:
        expected = []
        for row, time in enumerate(forecast.time.values):
            mean, std = (forecast[f"{DEFAULT[0]}_{moment}"].values[row] for moment in ("mean", "std"))
            true = record.states[np.flatnonzero(record.times == time)[0] + 1][0]
            expected.append((scoringrules.crps_normal(true, mean, std) * record.grid.area_weights[:, None]).mean())
    assert gaussian[0] == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_table_of_scores_has_the_values_of_the_data_set(finished):
    table = pd.read_csv(finished / "runs/tiny/scores.csv")
    with xr.open_dataset(finished / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        for name, variable, kept in (
            ("crps_fair", "10m_wind_speed", {}),
            ("rmse", "vector", {}),
            ("energy_score", "vector", {}),
            ("variogram_score", "both", {"lag": 4}),
            ("brier_score", "10m_wind_speed", {"threshold": 10.8}),
            ("crps_fair_skill", "both", {"reference": "persistence"}),
        ):
            metric = " ".join([name, *map(str, kept.values())])
            rows = table[(table.metric == metric) & (table.variable == variable) & (table.lead_hours == 12)]
            row = rows[(rows.forecast == "wsdcast") & (rows.region == "tropics")]
            field = scores.sel(forecast="wsdcast", region="tropics", prediction_timedelta=np.timedelta64(12, "h"), **kept)
            field = field.sel(variable=variable) if "variable" in field[name].dims else field
            assert row["value"].item() == pytest.approx(field[name].item(), rel=1e-5), name
            np.testing.assert_allclose(row[["low", "high"]].values[0], field[f"{name}_interval"].values, rtol=1e-5)
        assert set(scores["region"].values) >= {"globe", "tropics", "Europe"}
        assert scores["rmse"].attrs["units"] == "m s-1"


def test_persistence_is_the_state_now(finished, record):
    with xr.open_dataset(finished / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        now = [int(np.flatnonzero(record.times == time)[0]) for time in scores.time.values]
        error = np.mean([np.abs(record.states[i] - record.states[i + 2]) * record.grid.area_weights[:, None] for i in now])
        ours = scores.crps_fair.sel(forecast="persistence", variable="both", region="globe").values[1]
    assert ours == pytest.approx(error, rel=1e-5)


def test_climatology_is_of_the_training_split(finished, record):
    """A later state would tell the climatology of the weather that is forecast."""
    past = np.flatnonzero(record.times < record.validation_from)
    usual = record.states[past[evenly_spread(past.size, 50)]].mean(axis=0)
    with xr.open_dataset(finished / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        now = [int(np.flatnonzero(record.times == time)[0]) for time in scores.time.values]
        squares = [((usual - record.states[start + 1])[1] ** 2 * record.grid.area_weights[:, None]).mean() for start in now]
        ours = scores.rmse.sel(forecast="climatological mean", variable=DEFAULT[1], region="globe").values[0]
    assert ours == pytest.approx(np.mean(squares) ** 0.5, rel=1e-5)


def test_the_report_loads_no_other_file(finished):
    page = (finished / "runs/tiny/report.html").read_text()  # test_report.py tests the page in detail
    assert not re.search(r'<[^>]* (src|href)="?(?!data:)|@import', page.split("<script")[0])
    for words in (
        "tropics",
        "Europe",
        "climatology",
        "persistence",
        "moments, past errors",
        "spread / skill",
        "generator:",
        "16x8",
        "first member",
    ):
        assert words in page


def test_animation_has_a_frame_for_each_lead(finished):
    from PIL import Image

    with Image.open(finished / "runs/tiny/forecast.gif") as picture:
        assert picture.n_frames == 3


def test_current_artefacts_are_skipped(finished):
    written = ("report.html", "scores.csv")  # these are written each time, from scores.nc
    before = {path: path.stat().st_mtime_ns for path in (finished / "runs/tiny").iterdir() if path.name not in written}
    done = command("run", "tiny.yaml", cwd=finished)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("current") >= 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_python_functions_do_the_same_as_the_commands(finished, tmp_path, monkeypatch):
    """The same recipe from Python gives the same bits, forecast included."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    summaries = wsdcast.run("tiny.yaml")
    assert [summary.stage for summary in summaries] == ["prepare", "train", "rollout", "score"]
    ours, theirs = (xr.open_zarr(run / "runs/tiny/forecast.zarr", decode_timedelta=True) for run in (tmp_path, finished))
    xr.testing.assert_identical(ours.load(), theirs.load())


def test_standard_flow_matching_needs_no_moments(finished, tmp_path):
    standard = TINY.replace("generator: {", "generator: {prior: standard, ")
    (tmp_path / "standard.yaml").write_text(standard)
    done = command("run", "standard.yaml", "--run", "out", "--json", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "out/moments").exists()
    assert "moments, past errors" not in done.stdout
    assert "of the generator, 0 of the moments model per sample" in done.stdout


def test_changed_options_need_permission_to_replace(finished, tmp_path):
    import shutil

    shutil.copytree(finished / "runs", tmp_path / "runs")
    refused = command("rollout", "--run", "runs/tiny", "--members", "4", cwd=tmp_path)
    assert refused.exit_code == 2
    assert "rollout.members: 3 there, 4 here" in refused.stderr
    assert "--overwrite" in refused.stderr
    allowed = command("rollout", "--run", "runs/tiny", "--members", "4", "--overwrite", cwd=tmp_path)
    assert allowed.exit_code == 0, allowed.stderr
    three, four = (xr.open_zarr(directory / "runs/tiny/forecast.zarr", decode_timedelta=True).load() for directory in (finished, tmp_path))
    xr.testing.assert_equal(four.isel(number=slice(0, 3)), three)


def test_artefacts_of_older_versions_are_current_if_new_keys_have_their_defaults(finished, tmp_path):
    """Older versions lacked keys, or had other names for them."""
    shutil.copytree(finished / "runs/tiny", tmp_path / "run")
    path = tmp_path / "run/generator/stamp.json"
    stamp = json.loads(path.read_text())
    del stamp["recipe"]["generator"]["warmup_steps"], stamp["recipe"]["training"]
    path.write_text(json.dumps(stamp | {"hash": "of another version"}))
    assert "current: generator" in wsdcast.train(finished / "tiny.yaml", tmp_path / "run").facts
    stamp["recipe"]["generator"]["rate"] = stamp["recipe"]["generator"].pop("learning_rate")
    stamp["recipe"]["context"] = stamp["recipe"].pop("forcings")
    stamp["recipe"]["rollout"]["solver"], stamp["recipe"]["study"]["solvers"] = "fixed_adams", ["euler", "dpm1"]
    path.write_text(json.dumps(stamp | {"hash": "of version 0.1.0, which had other names"}))
    assert "current: generator" in wsdcast.train(finished / "tiny.yaml", tmp_path / "run").facts
    stamp["recipe"]["moments"]["rank"] = 0  # a key that is gone, at the value that changed nothing
    path.write_text(json.dumps(stamp | {"hash": "of a version with correlations"}))
    assert "current: generator" in wsdcast.train(finished / "tiny.yaml", tmp_path / "run").facts
    other = load_recipe(finished / "tiny.yaml").changed(generator__warmup_steps=1)
    with pytest.raises(UserError, match=r"generator.warmup_steps: 0 there, 1 here"):
        wsdcast.train(other, tmp_path / "run")
