"""A forecast from today's analysis: from local mirrors of GFS and IFS to the verification when the truth is there."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from time import sleep

import numpy as np
import pytest
import xarray as xr
from conftest import TINY
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.store.zarr_store import SCALE
from wsdcast.data.variables import DEFAULT, attributes
from wsdcast.runs.errors import UserError

pytest.importorskip("eccodes")

from grib_messages import COLUMNS, ROWS
from open_data_mirror import (
    OTHER,
    mirror_fixture,  # noqa: F401  (the tests take it by the name mirror)
    publish,
    wind_at,
)

STEP = np.timedelta64(6, "h")
SOURCE = Grid(np.linspace(90, -90, ROWS), np.arange(COLUMNS) * 360 / COLUMNS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    (directory / "tiny.yaml").write_text(TINY.replace("16x8", "6x4"))
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    wsdcast.train(directory / "tiny.yaml", directory / "run")
    wsdcast.export_model(directory / "run", directory / "tiny.wsd")
    return directory / "tiny.wsd"


@pytest.fixture
def published(mirror):
    """A mirror with all cycles from 2026-06-01T18 to 2026-06-02T18; the clock shows 2026-06-03T00:40."""
    for system in ("gfs", "ifs"):
        for time in np.arange("2026-06-01T18", "2026-06-03T00", STEP, dtype="datetime64[ns]"):
            publish(mirror.root, system, time)
    return mirror


@pytest.mark.parametrize(("system", "start"), [("gfs", []), ("ifs", ["--start", "latest"])])
def test_the_newest_cycle_is_the_initial_time(model, published, tmp_path, system, start):
    options = ["--model", str(model), "--initial", system, *start, "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(app, ["rollout", *options, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "2026-06-02T18, the newest; not complete yet: 2026-06-03T00" in result.stdout.replace(":00,", ",").replace(":00;", ";")
    with xr.open_dataset(tmp_path / "run/initial_states.nc") as states:
        np.testing.assert_array_equal(states["time"], np.array(["2026-06-02T12", "2026-06-02T18"], "datetime64[ns]"))
        assert states.attrs["attribution"]
        for number, time in enumerate(states["time"].values):
            target = wsdcast.weather.model_file.read_model(model).record.grid
            expected = regrid(np.asarray(wind_at(time), np.float32), SOURCE, target)
            for channel, name in enumerate(DEFAULT):
                np.testing.assert_allclose(states[name][number], expected[channel], atol=SCALE / 2 + 1e-4)


def test_a_given_time_and_one_that_no_mirror_has(model, published, tmp_path):
    wsdcast.rollout(model=model, initial="gfs", start="2026-06-02T06", run=tmp_path / "run")
    forecast = xr.open_zarr(tmp_path / "run/forecast.zarr")
    np.testing.assert_array_equal(forecast["time"], np.array(["2026-06-02T06"], "datetime64[ns]"))
    with pytest.raises(UserError, match=r"gfs: the analysis of 2026-06-01T12.* cannot be fetched"):
        wsdcast.rollout(model=model, initial="gfs", start="2026-06-01T18", run=tmp_path / "other")
    with pytest.raises(UserError, match=r"^--start 2026-06-02T03: gfs has analyses of 00, 06, 12 and 18 UTC$"):
        wsdcast.rollout(model=model, initial="gfs", start="2026-06-02T03", run=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_nothing_is_not_the_default(model, tmp_path):
    """No days and no thresholds were five days and those of Beaufort."""
    for changes, words in (({"days": 0}, "days: input should be greater than 0, not 0"), ({"thresholds": []}, "--thresholds : expected")):
        with pytest.raises(UserError, match=words):
            wsdcast.forecast(model, str(model.parent / "run/analysis.zarr"), tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_second_call_needs_no_network(model, published, tmp_path):
    settings = {"model": model, "initial": "gfs", "start": "2026-06-02T06"}
    wsdcast.rollout(**settings, run=tmp_path / "run")
    published.roots("http://127.0.0.1:9")
    published.patch.setenv("WSDCAST_GFS_ROOTS", published.url)
    published.handler.requests.clear()
    wsdcast.rollout(**settings, run=tmp_path / "again")
    assert not published.handler.requests
    one, two = (xr.open_zarr(tmp_path / name / "forecast.zarr", decode_timedelta=True).load() for name in ("run", "again"))
    xr.testing.assert_equal(one, two)


PLACES = "name,latitude,longitude\nZurich,47.4,8.5\nFiji,-17.8,177.9\n"


def contents(directory) -> dict[str, str]:
    """Return the digest of every file of a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.rglob("*") if path.is_file()
    }


def test_one_command_writes_everything(model, published, tmp_path):
    (tmp_path / "places.csv").write_text(PLACES)
    options = ["--model", str(model), "--initial", "ifs", "--lead", "1d", "--thresholds", "5,10.8", "--at", str(tmp_path / "places.csv")]
    result = CliRunner().invoke(app, ["forecast", *options, "--run", str(tmp_path / "run"), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert re.findall(r'"stage": "([\w-]+)"', result.stdout) == ["rollout", "products", "products", "forecast-page"]
    run = tmp_path / "run"
    files = {"forecast.zarr", "forecast.gif", "initial_states.nc", "model-card.md", "products.nc", "forecast.html"}
    assert {path.name for path in run.iterdir()} == files | {"places.csv", "places-Zurich.png", "places-Fiji.png"}
    assert (run / "model-card.md").read_text() == wsdcast.weather.model_file.read_model(model).card
    forecast = xr.open_zarr(run / "forecast.zarr", decode_timedelta=True).load().isel(time=0)
    speed = np.hypot(*(forecast[name] for name in DEFAULT))
    with xr.open_dataset(run / "products.nc", decode_timedelta=True) as products:
        probability = products["speed_probability"].squeeze().transpose("threshold", ...)
        for threshold, field in zip((5, 10.8), probability.values, strict=True):
            expected = (speed > threshold).mean("number").transpose("prediction_timedelta", "latitude", "longitude")
            np.testing.assert_allclose(field, expected, atol=1e-6)
        assert "CC-BY-4.0" in products.attrs["attribution"]
    page = (run / "forecast.html").read_text()
    for words in ("2026-06-02 18 UTC", "CC-BY-4.0", "tiny.wsd", "10.8 m/s"):
        assert words in page
    before = contents(run)
    again = CliRunner().invoke(app, ["forecast", *options, "--run", str(run)], catch_exceptions=False)
    assert again.exit_code == 0
    # Bokeh counts its models on within a process, so the page has other names inside. Another process gives the same bytes, below.
    assert {**contents(run), "forecast.html": ""} == {**before, "forecast.html": ""}
    default = CliRunner().invoke(app, ["products", str(run), "--out", str(tmp_path / "default.nc")], catch_exceptions=False)
    assert default.exit_code == 0


def test_a_mistake_shows_before_the_forecast_is_made(model, published, tmp_path):
    (tmp_path / "places.csv").write_text("name,latitude\nZurich,47\n")
    for options, message in (
        (["--at", str(tmp_path / "places.csv")], "has no column 'longitude'"),
        (["--thresholds", "strong"], "--thresholds"),
        (["-o", "generator.steps=3"], "fixes all of its recipe but"),
        (["-o", "rollout.keep=statistics"], "another option of this command, or the command itself, sets this key"),
        (["--start", "2026-06-01T06"], "cannot be fetched"),
    ):
        arguments = ["forecast", "--model", str(model), "--initial", "gfs", "--run", str(tmp_path / "run"), *options]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, options
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_killed_anywhere_and_started_again_the_bytes_are_the_same(model, published, tmp_path):
    (tmp_path / "places.csv").write_text(PLACES)
    command = [sys.executable, "-m", "wsdcast", "forecast", "--model", str(model), "--initial", "gfs", "--start", "2026-06-02T06"]
    command += ["--members", "20", "--at", str(tmp_path / "places.csv"), "--run"]
    subprocess.run([*command, str(tmp_path / "run")], check=True, capture_output=True)
    whole = contents(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    for seconds in (4, 6, 8, 10):
        process = subprocess.Popen([*command, str(tmp_path / "run")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sleep(seconds)
        process.kill()
        process.wait()
    subprocess.run([*command, str(tmp_path / "run")], check=True, capture_output=True)
    assert contents(tmp_path / "run") == whole


def test_verification_fetches_the_analyses_that_exist(model, published, tmp_path, without_report):
    wsdcast.rollout(model=model, initial="gfs", start="2026-06-02T06", days=1, run=tmp_path / "run")
    summary = wsdcast.score_forecast(str(tmp_path / "run"), "gfs")
    assert [row["lead_hours"] for row in summary.scores if np.isfinite(row["crps_fair: forecast"])] == [6, 12]
    with xr.open_dataset(tmp_path / "run/scores.nc", decode_timedelta=True) as scores:
        assert scores.attrs["truth"] == "gfs"
        assert "persistence" in scores["forecast"].values
    for options in ({"figure": "maps"}, {"figure": "plume", "at": (47.4, 8.5)}, {"figure": "animation"}, {"figure": "curves"}):
        assert wsdcast.plot(run=tmp_path / "run", **options).written
    wsdcast.rollout(model=model, initial="gfs", start="2026-06-02T18", run=tmp_path / "late")
    with pytest.raises(UserError, match=r"^gfs has no truth for any initial time"):
        wsdcast.score_forecast(str(tmp_path / "late"), "gfs")


def test_verification_fetches_all_variables_that_the_system_has(published, tmp_path, without_report):
    """The temperature of the system is the same at all times; the forecast is a quarter of a degree too warm, and has a cloud cover too."""
    axes = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    leads = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    coordinates = (np.array(["2026-06-02T06"], "datetime64[ns]"), np.arange(3), leads, SOURCE.latitude, SOURCE.longitude)
    wind = np.stack([wind_at(coordinates[0][0] + lead) for lead in leads])[:, :, None].repeat(3, axis=2)
    fields = {name: (axes, wind[:, channel].swapaxes(0, 1)[None], attributes(name)) for channel, name in enumerate(DEFAULT)}
    fields["2m_temperature"] = (axes, np.broadcast_to(OTHER + 0.25, (1, 3, 2, ROWS, COLUMNS)), attributes("2m_temperature"))
    fields["total_cloud_cover"] = (axes, np.full((1, 3, 2, ROWS, COLUMNS), 0.5), attributes("total_cloud_cover"))
    xr.Dataset(fields, dict(zip(axes, coordinates, strict=True))).to_zarr(tmp_path / "model.zarr", zarr_format=2)
    wsdcast.score_forecast(str(tmp_path / "model.zarr"), "ifs", tmp_path / "run")
    with xr.open_dataset(tmp_path / "run/scores.nc", decode_timedelta=True) as scores:
        bias = scores["bias"].isel(forecast=0).sel(region="globe")
        np.testing.assert_allclose(bias.sel(variable="2m_temperature"), [0.25, 0.25], atol=1e-4)
        assert "total_cloud_cover" not in scores["variable"].values
