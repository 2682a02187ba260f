"""What a rollout keeps: fields of some lead times, statistics of the members, or scores; and the scores of the moments with past errors."""

from __future__ import annotations

import dataclasses
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from rollouts import forecast_of
from test_resume import bytes_of
from typer.testing import CliRunner
from zarr.storage import LocalStore

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.store.forecasts import QUANTILES, STATISTICS, Forecasts, Written, statistics_over_members
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FORECAST, PAST_ERRORS_FORECAST
from wsdcast.runs.unfinished import marks_of
from wsdcast.verification import streamed
from wsdcast.verification.scoring import statistics_of
from wsdcast.weather.forecast import artefacts

pytestmark = pytest.mark.usefixtures("without_animation")


def test_a_rollout_can_keep_some_lead_times(trained_run, reference_forecast):
    done = CliRunner().invoke(app, ["rollout", "--run", str(trained_run), "--keep", "24,12"], catch_exceptions=False)
    assert done.exit_code == 0
    hours = np.array([12, 24]) * np.timedelta64(1, "h")
    xr.testing.assert_equal(forecast_of(trained_run)[list(DEFAULT)], reference_forecast[list(DEFAULT)].sel(prediction_timedelta=hours))
    rows = wsdcast.score(run=trained_run).scores
    assert [row["lead_hours"] for row in rows] == [12, 24]
    by_lead = (trained_run / "report.html").read_text().split("All lead times")[1].split("</table>")[0]
    assert re.findall(r"<td>(\d+) h</td>", by_lead) == ["12", "24"]


def test_a_rollout_can_keep_statistics_of_the_members(trained_run, reference_forecast):
    summary = wsdcast.rollout(run=trained_run, keep="statistics")
    forecast = forecast_of(trained_run)
    assert list(forecast["statistic"].values) == list(STATISTICS)
    members = {name: reference_forecast[name] for name in DEFAULT}
    members["10m_wind_speed"] = np.hypot(*(reference_forecast[name] for name in DEFAULT))
    for name, values in members.items():
        np.testing.assert_allclose(forecast[name].sel(statistic="mean"), values.mean("number"), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(forecast[name].sel(statistic="std"), values.std("number", ddof=1), rtol=1e-4, atol=1e-4)
        for share in QUANTILES:
            expected = values.quantile(share, "number")
            np.testing.assert_allclose(forecast[name].sel(statistic=f"quantile {share:g}"), expected, rtol=1e-4, atol=1e-4)
    assert "statistics x 4 leads" in summary.written[str(trained_run / FORECAST)]
    assert not (trained_run / "forecast.gif").exists()
    with pytest.raises(UserError, match="scores need the members"):
        wsdcast.score(run=trained_run)


def test_scores_computed_during_the_rollout_equal_those_of_its_fields(trained_run, rolled_out, monkeypatch):
    scored = wsdcast.score(run=rolled_out / "run").scores
    calls = iter(range(100))

    def failing(*arguments):
        if next(calls) == 3:
            raise OSError("the disk is full")
        return statistics_of(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(streamed, "statistics_of", failing)
        with pytest.raises(OSError, match="disk is full"):
            wsdcast.rollout(run=trained_run, keep="scores")
    done = CliRunner().invoke(app, ["rollout", "--run", str(trained_run), "--score"], catch_exceptions=False)
    assert done.exit_code == 0
    assert not set(DEFAULT) & set(forecast_of(trained_run))
    assert not (trained_run / "forecast.gif").exists()
    assert not list(trained_run.rglob("parts"))
    rows = wsdcast.score(run=trained_run).scores
    assert [row.keys() for row in rows] == [row.keys() for row in scored]
    for ours, theirs in zip(rows, scored, strict=True):
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-6)
    ours, theirs = (xr.load_dataset(run / "scores.nc", decode_timedelta=True) for run in (trained_run, rolled_out / "run"))
    for name in ("rank_histogram", "reliability", "energy_score", "power_ratio", "crps_fair_interval"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-7)
    assert ours.attrs["members"] == theirs.attrs["members"] == 5


@pytest.mark.parametrize("cut", ["time", "crps_fair", "region"])
def test_a_store_of_scores_that_was_killed_while_it_was_completed_gets_the_same_bytes(cut, tmp_path, monkeypatch):
    """The kill came between the shape of an array and its attributes: without the units of its time the store could not be read."""
    leads, random = (6, 12), np.random.default_rng(0)
    truth, fields = random.normal(size=(2, 2, 4, 8)), random.normal(size=(3, 2, 2, 4, 8)).astype(np.float32)
    layout = {"times": np.array(["2020-01-01"], "datetime64[ns]"), "leads": leads, "members": 3, "grid": Grid.regular("8x4")}

    def filled(name: str) -> streamed.ScoredForecasts:
        path = tmp_path / f"{name}.zarr"
        for directory in (path, marks_of(path)):
            directory.mkdir()
        kept = SimpleNamespace(at=lambda times: truth)
        store = streamed.ScoredForecasts(path=path, reduced=False, variables=DEFAULT, truth=kept, **layout)
        store.create()
        store.write(0, 0, fields)
        store.mark(0, Written([0, 0, 0], [""] * 3, {}))
        return store

    whole, killed = filled("whole"), filled("killed")
    whole.close({})
    set_value, calls = LocalStore.set, []

    async def failing(self, key, value, *further):
        calls.append(key)
        if calls.count(f"{cut}/zarr.json") == 2:
            raise OSError("killed")
        await set_value(self, key, value, *further)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "set", failing)
        with pytest.raises(OSError, match="killed"):
            killed.close({})
    (killed.path / "zarr.1234.partial").write_bytes(b"half of it")
    killed.create()
    killed.close({})
    assert bytes_of(killed.path) == bytes_of(whole.path)


def test_a_chunk_that_a_killed_rollout_left_half_written_is_removed(tmp_path):
    layout = {"times": np.array(["2020-01-01"], "datetime64[ns]"), "leads": (6, 12), "members": 2, "grid": Grid.regular("8x4")}
    store = Forecasts(path=tmp_path / "a.zarr", reduced=False, variables=DEFAULT, **layout)
    store.create()
    store.write(0, 0, np.ones((2, 2, 2, 4, 8), np.float32))
    written = bytes_of(store.path)
    for name in DEFAULT:
        (store.path / name / "c/0/0/0/0/0.1234.partial").write_bytes(b"half a chunk")
    store.create()
    assert bytes_of(store.path) == written


@pytest.mark.parametrize(
    ("text", "stopped"),
    [
        (b'{"stopped": [0, 6], "by": ["", "u"], "clipped": {"u": 1}, "of a newer version": 1}', [0, 6]),
        (b"[0, 6]", [0, 6]),
        *((text, None) for text in (b"", b'{"stopped": [0, 6', b"[]", b"[0]", b"null", b"NaN", b"7", b"{}", b"\xff\xfe")),
        *((b'{"stopped": %s, "by": ["", "u"], "clipped": {}}' % value, None) for value in (b"null", b"[0]", b'["u", 6]', b"[0, NaN]")),
        (b'{"stopped": [0, 6], "by": ["", "u"], "clipped": {"u": null}}', None),
    ],
)
def test_an_initial_time_whose_mark_is_damaged_is_not_written_yet(text, stopped, tmp_path):
    store = Forecasts(tmp_path / "a.zarr", np.array(["2020-01-01"], "datetime64[ns]"), 2, (6, 12), False, Grid.regular("8x4"), DEFAULT)
    assert store.written(0) is None
    marks_of(store.path).mkdir()
    (marks_of(store.path) / "0").write_bytes(text)
    written = store.written(0)
    assert (written and written.stopped) == stopped


def with_fields_of_moments(monkeypatch) -> None:
    """Let the rollout store the fields of the moments model alone, as older versions did."""
    monkeypatch.setattr(artefacts, "ScoredForecasts", lambda truth, **layout: Forecasts(**layout))


@pytest.mark.slow
def test_statistics_of_the_baseline_score_like_their_fields(trained_run, rolled_out, monkeypatch):
    """Stores of older versions, with fields, are scored too, and the report is about the generator's forecast in both cases."""
    with monkeypatch.context() as patched:
        with_fields_of_moments(patched)
        wsdcast.rollout(run=trained_run)
    assert set(DEFAULT) <= set(forecast_of(trained_run, PAST_ERRORS_FORECAST))
    assert not set(DEFAULT) & set(forecast_of(rolled_out / "run", PAST_ERRORS_FORECAST))
    rows = [wsdcast.score(run=run, overwrite=True).scores for run in (trained_run, rolled_out / "run")]
    assert "crps_fair: moments, past errors" in rows[0][0]
    for ours, theirs in zip(*rows, strict=True):
        assert list(ours) == list(theirs)
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-6)
    fields, statistics_alone = (xr.load_dataset(run / "scores.nc", decode_timedelta=True) for run in (trained_run, rolled_out / "run"))
    assert list(fields["forecast"].values[:2]) == ["wsdcast", "moments, past errors"]
    # A bias or a skill can be near zero, where the rounding of fields of 10 m/s in float32 is all that is left.
    xr.testing.assert_allclose(fields, statistics_alone, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("change", [{"start": "latest"}, {"keep": "statistics"}], ids=str)
def test_the_baseline_is_not_rolled_out_where_it_cannot_be_scored(trained_run, change):
    wsdcast.rollout(run=trained_run)
    with pytest.raises(UserError, match=r"past_errors_forecast.zarr was made from another recipe"):
        wsdcast.rollout(run=trained_run, **change)
    summary = wsdcast.rollout(run=trained_run, **change, overwrite=True)
    assert (trained_run / FORECAST).exists()
    assert not (trained_run / PAST_ERRORS_FORECAST).exists()
    assert summary.facts["not written: past_errors_forecast.zarr"].startswith("only scores need it")


@pytest.mark.slow
def test_scores_without_the_baseline_say_so_and_include_it_once_it_exists(trained_run):
    wsdcast.rollout(run=trained_run)
    shutil.rmtree(trained_run / PAST_ERRORS_FORECAST)
    summary = wsdcast.score(run=trained_run)
    assert "crps_fair: moments, past errors" not in summary.scores[0]
    assert "past_errors_forecast.zarr is not there" in summary.facts["moments, past errors"]
    wsdcast.rollout(run=trained_run)
    summary = wsdcast.score(run=trained_run)
    assert "crps_fair: moments, past errors" in summary.scores[0]
    assert "moments, past errors" not in summary.facts


@pytest.mark.parametrize("keep", ["all", "scores"])
def test_a_baseline_scored_with_less_truth_is_left_out_and_costs_no_lead_time(keep, trained_run, monkeypatch):
    """The record was made longer after the rollout. If scores alone are kept, the forecast lacks the truth too, and this is said."""
    whole_truth = artefacts.truth_of

    def shorter(record, *variables):
        truth = whole_truth(record, *variables)
        return dataclasses.replace(truth, times=truth.times[:-1])

    with monkeypatch.context() as patched:
        patched.setattr(artefacts, "truth_of", shorter)
        wsdcast.rollout(run=trained_run, keep=keep)
    summary = wsdcast.score(run=trained_run)
    assert ("truth added since the rollout" in summary.facts) == (keep == "scores")
    if keep == "scores":
        assert summary.facts["dropped"].startswith("1 of 16 initial and lead times")
        return
    assert [row["lead_hours"] for row in summary.scores] == [6, 12, 18, 24]
    assert "crps_fair: moments, past errors" not in summary.scores[0]
    assert "dropped" not in summary.facts
    assert "the record has more truth now than at the rollout" in summary.facts["moments, past errors"]
    assert "the same `wsdcast rollout` as before makes it again" in summary.facts["moments, past errors"]


def test_an_unfinished_rollout_of_an_older_version_is_finished(trained_run, rolled_out, monkeypatch):
    calls = iter(range(100))

    def failing(self, row, stopped, mark=Forecasts.mark):
        if next(calls) == 2:
            raise OSError("the disk is full")
        mark(self, row, stopped)

    with monkeypatch.context() as patched:
        with_fields_of_moments(patched)
        patched.setattr(Forecasts, "mark", failing)
        with pytest.raises(OSError, match="disk is full"):
            wsdcast.rollout(run=trained_run)
    wsdcast.rollout(run=trained_run)
    xr.testing.assert_identical(forecast_of(trained_run, PAST_ERRORS_FORECAST), forecast_of(rolled_out / "run", PAST_ERRORS_FORECAST))


def test_statistics_given_as_a_forecast_are_refused(trained_run):
    wsdcast.rollout(run=trained_run)
    with pytest.raises(UserError, match=r"past_errors_forecast.zarr: has the statistics of scores and no fields"):
        wsdcast.score_forecast(str(trained_run / PAST_ERRORS_FORECAST), str(trained_run / "analysis.zarr"), trained_run / "other")


def test_scoring_in_the_rollout_needs_truth(trained_run):
    done = CliRunner().invoke(app, ["rollout", "--run", str(trained_run), "--score", "--start", "latest"])
    assert (done.exit_code, "no truth" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["rollout", "--run", str(trained_run), "--score", "--keep", "24"])
    assert (done.exit_code, "leave out --keep 24" in done.stderr) == (2, True)


def test_statistics_leave_out_stopped_members():
    wind = np.random.default_rng(0).normal(size=(4, 2, 2, 2, 3)).astype(np.float32)
    wind[1, 1] = np.nan
    result = statistics_over_members(wind, DEFAULT)
    np.testing.assert_allclose(result[0, 1, :2], wind[[0, 2, 3], 1].mean(axis=0), rtol=1e-5)
    wind[2:, 1] = np.nan
    assert np.isnan(statistics_over_members(wind, DEFAULT)[:, 1]).all()
    assert np.isfinite(statistics_over_members(wind, DEFAULT)[:, 0]).all()
