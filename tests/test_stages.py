"""Tests of the four commands, run with the installed entry point on a tiny recipe, and of the files they write."""

from __future__ import annotations

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
import scoringrules
import xarray as xr
from conftest import TINY

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.runs.errors import UserError
from wsdcast.verification.kernels import fair_crps, ranked
from wsdcast.weather.recipe import load_recipe

ENTRY_POINT = Path(sys.executable).with_name("wsdcast")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ENTRY_POINT), *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a directory in which the four commands ran in order. After the first, the run directory is the only option."""
    place = tmp_path_factory.mktemp("place")
    (place / "tiny.yaml").write_text(TINY)
    for line in ("prepare --recipe tiny.yaml", "train --run runs/tiny", "rollout --run runs/tiny", "score --run runs/tiny --json"):
        done = command(*line.split(), cwd=place)
        assert done.returncode == 0, done.stderr
        # Without a terminal there are no progress bars, only the results of validation.
        assert all(", validation: " in printed for printed in done.stderr.splitlines())
    (place / "score.json").write_text(done.stdout)
    return place


@pytest.fixture(scope="module")
def record(place):
    return open_analysis(place / "runs/tiny/analysis.zarr")


def test_every_artefact_is_there_and_nothing_else(place):
    names = {path.name for path in (place / "runs/tiny").iterdir()}
    stores = {"analysis.zarr", "moments", "predictions", "generator", "forecast.zarr", "moments_forecast.zarr"}
    assert names == stores | {"forecast.gif", "scores.nc", "scores.csv", "report.html"}
    files = {str(path.relative_to(place / "runs/tiny/moments")) for path in (place / "runs/tiny/moments").rglob("*") if path.is_file()}
    kept = {f"checkpoints/moments/{name}.safetensors" for name in ("step-000000004", "best")}
    assert files == {"weights.safetensors", "stamp.json", "moments-losses.csv", "moments-validations.csv", *kept}


def test_prepared_store_is_plain_xarray(place, record):
    with xr.open_zarr(place / "runs/tiny/analysis.zarr") as dataset:
        climatology = {f"{name}_climatology" for name in VARIABLES}
        assert set(dataset.data_vars) == {*VARIABLES, *climatology, "land_sea_mask", "geopotential_at_surface"}
        wind = dataset["10m_u_component_of_wind"]
        assert wind.dims == ("time", "latitude", "longitude")
        assert wind.attrs["standard_name"] == "eastward_wind"
        assert wind.attrs["units"] == "m s-1"
        assert wind.shape == (120, 8, 16)
        assert dataset.latitude.values[0] > dataset.latitude.values[-1]
        assert wind.encoding["chunks"] == (8, 8, 16)
        assert wind.encoding["shards"] == (512, 8, 16)
        np.testing.assert_allclose(wind.values, record.wind[:, 0], rtol=1e-7)


def test_normalisation_is_of_the_training_part_alone(record):
    training = record.wind[record.part("train")].astype(np.float64)
    weights = record.grid.area_weights[:, None]
    mean = (training * weights).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(record.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(record.std, np.sqrt((training**2 * weights).mean(axis=(0, 2, 3)) - mean**2), rtol=1e-5)
    assert (record.part("train").sum(), record.part("validation").sum(), record.part("test").sum()) == (96, 12, 12)


def test_forecast_has_the_layout_of_weatherbench(place, record):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast = xr.open_zarr(place / "runs/tiny/forecast.zarr", decode_timedelta=True)
    assert forecast["10m_v_component_of_wind"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    assert dict(forecast.sizes) == {"time": 2, "number": 3, "prediction_timedelta": 2, "latitude": 8, "longitude": 16}
    np.testing.assert_array_equal(forecast.prediction_timedelta.values, np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"))
    assert set(forecast.time.values) <= set(record.times[record.part("test")])
    assert np.isfinite(forecast["10m_v_component_of_wind"].values).all()
    np.testing.assert_allclose(forecast.latitude.values, record.grid.latitude)


def test_scores_are_those_of_the_files(place, record):
    """The fair CRPS of the table equals that computed from forecast and record, over all initial times."""
    rows = json.loads((place / "score.json").read_text())["scores"]
    forecast = xr.open_zarr(place / "runs/tiny/forecast.zarr", decode_timedelta=True)
    for lead, row in enumerate(rows):
        scores = []
        for start in range(2):
            now = int(np.flatnonzero(record.times == forecast.time.values[start])[0])
            for channel, name in enumerate(VARIABLES):
                crps = fair_crps(ranked(forecast[name].values[start, :, lead], record.wind[now + 1 + lead, channel]))
                scores.append((crps * record.grid.area_weights[:, None]).mean())
        assert row["lead_hours"] == 6 * (lead + 1)
        assert row["crps_fair: wsdcast"] == pytest.approx(np.mean(scores), rel=1e-5)
    with xr.open_dataset(place / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        assert set(scores.forecast.values) == {"wsdcast", "moments alone", "persistence", "climatology", "climatological mean"}
        assert scores.sizes["time"] == 2
        both = scores.crps_fair.sel(variable="both", forecast="wsdcast", region="globe").values
        np.testing.assert_allclose(both, [row["crps_fair: wsdcast"] for row in rows])


def test_the_moments_network_is_scored_in_closed_form_too(place, record):
    """The CRPS of the Gaussian is the limit for very many members, and three members give it to within some per cent."""
    with xr.open_dataset(place / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        gaussian = scores["crps_gaussian"].sel(region="globe", variable=VARIABLES[0], forecast="moments alone").values
        assert np.isnan(scores["crps_gaussian"].sel(forecast="wsdcast")).all()
        members = scores["crps_fair"].sel(region="globe", variable=VARIABLES[0], forecast="moments alone").values
    assert np.isnan(gaussian[1])
    assert gaussian[0] == pytest.approx(members[0], rel=0.1)
    with xr.open_zarr(place / "runs/tiny/moments_forecast.zarr", decode_timedelta=True) as forecast:
        expected = []
        for row, time in enumerate(forecast.time.values):
            mean, std = (forecast[f"{VARIABLES[0]}_{what}"].values[row] for what in ("mean", "std"))
            true = record.wind[np.flatnonzero(record.times == time)[0] + 1, 0]
            expected.append((scoringrules.crps_normal(true, mean, std) * record.grid.area_weights[:, None]).mean())
    assert gaussian[0] == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_table_of_scores_has_the_values_of_the_data_set(place):
    table = pd.read_csv(place / "runs/tiny/scores.csv")
    with xr.open_dataset(place / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
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


def test_persistence_is_the_state_now(place, record):
    with xr.open_dataset(place / "runs/tiny/scores.nc", decode_timedelta=True) as scores:
        now = [int(np.flatnonzero(record.times == time)[0]) for time in scores.time.values]
        error = np.mean([np.abs(record.wind[i] - record.wind[i + 2]) * record.grid.area_weights[:, None] for i in now])
        ours = scores.crps_fair.sel(forecast="persistence", variable="both", region="globe").values[1]
    assert ours == pytest.approx(error, rel=1e-5)


def test_report_is_one_file_that_asks_for_nothing_else(place):
    page = (place / "runs/tiny/report.html").read_text()  # test_report.py looks closer
    assert not re.search(r'<[^>]* (src|href)="?(?!data:)|@import', page.split("<script")[0])
    for words in (
        "tropics",
        "Europe",
        "climatology",
        "persistence",
        "moments alone",
        "spread / skill",
        "generator:",
        "16x8",
        "first member",
    ):
        assert words in page


def test_animation_has_a_frame_for_each_lead(place):
    from PIL import Image

    with Image.open(place / "runs/tiny/forecast.gif") as picture:
        assert picture.n_frames == 3


def test_what_is_current_is_skipped(place):
    written = ("report.html", "scores.csv")  # these are written each time, from scores.nc
    before = {path: path.stat().st_mtime_ns for path in (place / "runs/tiny").iterdir() if path.name not in written}
    done = command("run", "tiny.yaml", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("current") >= 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_python_functions_do_the_same_as_the_commands(place, tmp_path, monkeypatch):
    """The same recipe from Python gives the same bits, forecast included."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    summaries = list(wsdcast.run("tiny.yaml"))
    assert [summary.stage for summary in summaries] == ["prepare", "train", "rollout", "score"]
    ours, theirs = (xr.open_zarr(where / "runs/tiny/forecast.zarr", decode_timedelta=True) for where in (tmp_path, place))
    xr.testing.assert_identical(ours.load(), theirs.load())


def test_standard_flow_matching_needs_no_moments(place, tmp_path):
    standard = TINY.replace("generator: {", "generator: {prior: standard, ")
    (tmp_path / "standard.yaml").write_text(standard)
    done = command("run", "standard.yaml", "--run", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out/moments").exists()
    assert "moments alone" not in done.stdout


def test_changed_options_need_permission_to_replace(place, tmp_path):
    import shutil

    shutil.copytree(place / "runs", tmp_path / "runs")
    refused = command("rollout", "--run", "runs/tiny", "--members", "4", cwd=tmp_path)
    assert refused.returncode == 2
    assert "rollout.members: 3 there, 4 here" in refused.stderr
    assert "--overwrite" in refused.stderr
    allowed = command("rollout", "--run", "runs/tiny", "--members", "4", "--overwrite", cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    few, many = (xr.open_zarr(where / "runs/tiny/forecast.zarr", decode_timedelta=True).load() for where in (place, tmp_path))
    xr.testing.assert_equal(many.isel(number=slice(0, 3)), few)


def test_what_an_older_version_made_is_current_where_new_keys_are_at_their_defaults(place, tmp_path):
    """An artefact of an older version is current if the recipe has new keys only at their defaults."""
    shutil.copytree(place / "runs/tiny", tmp_path / "run")
    path = tmp_path / "run/generator/stamp.json"
    stamp = json.loads(path.read_text())
    del stamp["recipe"]["generator"]["warmup_steps"], stamp["recipe"]["training"]
    path.write_text(json.dumps(stamp | {"hash": "of another version"}))
    assert "current" in wsdcast.train(place / "tiny.yaml", tmp_path / "run").facts
    stamp["recipe"]["generator"]["rate"] = stamp["recipe"]["generator"].pop("learning_rate")
    stamp["recipe"]["context"] = stamp["recipe"].pop("forcings")
    stamp["recipe"]["rollout"]["solver"], stamp["recipe"]["study"]["solvers"] = "fixed_adams", ["euler", "dpm1"]
    path.write_text(json.dumps(stamp | {"hash": "of version 0.1.0, which had other names"}))
    assert "current" in wsdcast.train(place / "tiny.yaml", tmp_path / "run").facts
    stamp["recipe"]["moments"]["rank"] = 0  # a key that is gone, at the value that changed nothing
    path.write_text(json.dumps(stamp | {"hash": "of a version with correlations"}))
    assert "current" in wsdcast.train(place / "tiny.yaml", tmp_path / "run").facts
    other = load_recipe(place / "tiny.yaml").changed(generator__warmup_steps=1)
    with pytest.raises(UserError, match=r"generator.warmup_steps: 0 there, 1 here"):
        wsdcast.train(other, tmp_path / "run")
