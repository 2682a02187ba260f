"""Initial times and lead times of a rollout: how they are given, and which are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import TINY, six_hourly, wind_dataset
from rollouts import forecast_of, loaded
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.store.forecasts import Forecasts
from wsdcast.report.animation import _end_of_gif
from wsdcast.report.coastlines import coastlines_of
from wsdcast.runs.artefact import read_stamp
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FORECAST, PAST_ERRORS_FORECAST
from wsdcast.verification.streamed import ScoredForecasts
from wsdcast.weather.forecast.initial_times import starts_of, without_latest
from wsdcast.weather.stages import rollout as stage

pytestmark = pytest.mark.usefixtures("without_animation", "without_report")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("latest", ["2000-01-30T18"]),
        ("2000-01-29", ["2000-01-29T00"]),
        ("2000-01-29T06:00:00Z", ["2000-01-29T06"]),
        ("2000-01-28/2000-01-29/12h", ["2000-01-28T00", "2000-01-28T12", "2000-01-29T00", "2000-01-29T12"]),
        ("2000-01-28/2000-01-29T00/1d", ["2000-01-28T00", "2000-01-29T00"]),
        (None, ["2000-01-28T06", "2000-01-28T18", "2000-01-29T06", "2000-01-29T18"]),  # all with truth for the whole day
    ],
)
def test_initial_times_are_those_asked_for(rolled_out, start, expected):
    recipe, record, _ = loaded(rolled_out / "run")
    resolved = without_latest(recipe.changed(rollout__start=start), record)
    np.testing.assert_array_equal(record.times[starts_of(resolved, record)], np.array(expected, "datetime64[ns]"))


def test_forecast_from_the_latest_state_has_no_truth(trained_run, monkeypatch):
    drawn, gif = [], _end_of_gif("10 m wind speed")
    monkeypatch.setattr(stage, "animate", lambda forecast, _, path, *more: drawn.append((forecast, *more)) or path.write_bytes(gif))
    summary = wsdcast.rollout(run=trained_run, start="latest")
    forecast = forecast_of(trained_run)
    assert forecast.sizes["time"] == 1
    assert forecast.attrs["title"] == "10 m wind ensemble forecast"
    assert summary.facts["initial times"] == "2000-01-30T18"
    assert read_stamp(trained_run / FORECAST)["recipe"]["rollout"]["start"] == "2000-01-30T18"  # a longer record has another latest state
    assert summary.facts["evaluations"] == "2 of the generator, 1 of the moments model per sample"
    about = {"forecast.zarr": "1 initial time x 5 members x 4 leads, 0 MB", "forecast.gif": "members from the first initial time"}
    assert summary.written == {str(trained_run / name): text for name, text in about.items()}
    assert drawn == [(trained_run / FORECAST, 0, coastlines_of("planet"), None)]
    again = wsdcast.rollout(run=trained_run, start="latest")
    assert "current: forecast.zarr" in again.facts
    assert not again.written
    with pytest.raises(UserError, match="no truth for any initial time and lead time of the forecast"):
        wsdcast.score(run=trained_run)


def test_fewer_initial_times_than_asked_for_are_named(trained_run):
    summary = wsdcast.rollout(run=trained_run, starts=500, days=0.25)
    count = forecast_of(trained_run).sizes["time"]
    assert summary.facts["initial times"].startswith(f"{count} of the 500 asked for (the test split has no more), 2000-01-")
    assert f"{count} initial times x " in next(iter(summary.written.values()))


def test_initial_times_seen_in_training_are_named(trained_run):
    assert "1 of the initial times" in wsdcast.rollout(run=trained_run, start="2000-01-05").facts["seen in training"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--start 1999-01-01",
            "the record has no state at 1999-01-01T00; the nearest possible start is 2000-01-01T06; the record is from 2000-01-01T00 to",
        ),
        ("--start 2000-01-01/2000-01-02/1d", "the record lacks 1 of 2 initial times or the states up to 6 h before them"),
        ("--start 2000-01-02/2000-01-01/1d", "--start '2000-01-02/2000-01-01/1d': the last time is before the first"),
        ("--start tomorrow", "--start 'tomorrow': expected latest, a time such as 2020-01-31T06, or FIRST/LAST/INTERVAL"),
        ("--start 2000-01-02/2000-01-03/5h", "--start '5h': expected a positive multiple of 6 h"),
        ("--start latest --starts 3", "--starts 3: the initial times are already given"),
        ("--lead 5h", "--lead '5h': expected a positive multiple of 6 h, such as 12h or 10d"),
        ("--keep 24,30", "--keep: lead times are multiples of 6 h up to 24 h, not 24, 30"),
        ("--keep some", "--keep: expected all, statistics, or lead times in hours such as 24,72, not 'some'"),
        ("--keep 24,more", "lead times in hours such as 24,72, not '24,more'"),
    ],
)
def test_impossible_times_are_refused_in_one_line(trained_run, options, message):
    done = CliRunner().invoke(app, ["rollout", "--run", str(trained_run), *options.split()])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (trained_run / FORECAST).exists()


def test_lead_is_the_length_of_the_forecast(trained_run):
    done = CliRunner().invoke(app, ["rollout", "--run", str(trained_run), "--lead", "1.5d", "--starts", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "6 of 6 h, to 36 h" in " ".join(done.stdout.split())
    assert forecast_of(trained_run).sizes["prediction_timedelta"] == 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a directory with a run directory whose networks are trained, and the wind of the ten days that follow its record."""
    directory = tmp_path_factory.mktemp("trained")
    wind = wind_dataset(six_hourly("2020-01-01", 160), np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0))
    for name, part in {"first": slice(0, 120), "second": slice(120, 160)}.items():
        wind.isel(time=part).to_netcdf(directory / f"{name}.nc")
    recipe = TINY.replace("grid: 16x8, days: 30", f"grid: 16x8, source: {directory}/first.nc").replace("starts: 2", "starts: 4")
    (directory / "tiny.yaml").write_text(recipe)
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    wsdcast.train(run=directory / "run")
    return directory


@pytest.fixture
def growing(trained, tmp_path, monkeypatch) -> Path:
    """Return a copy of the run directory. With ``--append`` of ``second.nc`` its record grows, and its test split does, too."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("run")


@pytest.mark.parametrize("unfinished", [None, ScoredForecasts, Forecasts])
def test_a_record_that_grows_does_not_mix_initial_times(growing, unfinished, monkeypatch):
    """Rows of an unfinished forecast were kept and named after other initial times, and the moments' scores were of other ones, too."""
    monkeypatch.setattr("wsdcast.weather.forecast.artefacts.groups", lambda starts, *_, **__: np.split(starts, starts.size))
    if unfinished:
        write = unfinished.write
        with monkeypatch.context() as patch:
            patch.setattr(unfinished, "write", lambda self, row, *fields: write(self, row, *fields) or 1 / (2 - row))  # stops in row 2
            with pytest.raises(ZeroDivisionError):
                wsdcast.rollout(run=growing)
    else:
        wsdcast.rollout(run=growing)
        shutil.rmtree(growing / PAST_ERRORS_FORECAST)
    wsdcast.prepare(run=growing, source="second.nc", append=True)
    with pytest.raises(UserError, match=r"(initial times: the record is longer now|its own initial times: 2020-.*\)); .* with --overwrite"):
        wsdcast.rollout(run=growing)
    wsdcast.rollout(run=growing, overwrite=True)
    anew = shutil.copytree(growing, Path("anew"))
    for artefact in (FORECAST, PAST_ERRORS_FORECAST):
        shutil.rmtree(anew / artefact)
    wsdcast.rollout(run=anew)
    for artefact in (FORECAST, PAST_ERRORS_FORECAST):
        xr.testing.assert_identical(forecast_of(growing, artefact), forecast_of(anew, artefact))
    assert len(wsdcast.score(run=growing).scores)
    assert "current: forecast.zarr" in wsdcast.rollout(run=growing).facts
