"""Tests of rollouts: each member is independent of the others, and forecasts are written step by step, by one process or several."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import TINY
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.store import analysis
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, QUANTILES, STATISTICS, STOPPED, Forecasts, statistics
from wsdcast.data.store.zarr_store import VARIABLES
from wsdcast.runs.artefact import alone, partial_of
from wsdcast.runs.background import ahead, in_background
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FORECAST, MOMENTS_FORECAST
from wsdcast.runs.unfinished import marks_of
from wsdcast.sampling.acceleration import in_bfloat16
from wsdcast.sampling.batches import in_batches
from wsdcast.verification import streamed
from wsdcast.verification.scoring import statistics_of
from wsdcast.warmstart import evaluations
from wsdcast.weather import samplers as sampling
from wsdcast.weather.forecast import writing
from wsdcast.weather.forecast.initial_times import starts_of, without_latest
from wsdcast.weather.forecast.running import ensembles, groups
from wsdcast.weather.priors import trained
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.stages import rollout as stage

RECIPE = TINY.replace("rollout: {members: 3, nfe: 2, starts: 2, days: 0.5}", "rollout: {members: 5, nfe: 2, starts: 4, days: 1}")


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """Return a directory with the recipe and a run directory with trained networks."""
    directory = tmp_path_factory.mktemp("networks")
    (directory / "tiny.yaml").write_text(RECIPE)
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    wsdcast.train(directory / "tiny.yaml", directory / "run")
    return directory


@pytest.fixture
def run(networks, tmp_path) -> Path:
    """Return a run directory for one test, with links to the prepared record and the trained networks."""
    (tmp_path / "run").mkdir()
    for artefact in (networks / "run").iterdir():
        if artefact.name in ("analysis.zarr", "moments", "predictions", "generator"):
            (tmp_path / "run" / artefact.name).symlink_to(artefact)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(networks) -> xr.Dataset:
    """Return the forecast that the others are compared with."""
    wsdcast.rollout(run=networks / "run")
    return forecast_of(networks / "run")


def forecast_of(run: Path, artefact: str = FORECAST) -> xr.Dataset:
    return xr.open_zarr(run / artefact, decode_timedelta=True).load()


def loaded(run: Path):
    recipe, record = load_recipe(run.parent / "tiny.yaml"), open_analysis(run / "analysis.zarr")
    return recipe, record, trained(recipe, run, record)


@pytest.mark.parametrize(("at_once", "members"), [(1, 5), (2, 5), (4, 5), (3, 2), (1, 1)])
def test_members_are_the_same_however_they_share_batches(networks, whole, at_once, members):
    recipe, record, parts = loaded(networks / "run")
    sampler = in_batches(sampler_of(parts, recipe.rollout), stage.batch_size(16 * 8, torch.device("cpu")))
    starts = starts_of(recipe, record)[::-1]  # in reversed order
    for first in range(0, 4, at_once):
        subset = starts[first : first + at_once]
        members_by_time = np.stack(list(ensembles(record, parts.forcings, sampler, subset, members, 4, 0)), axis=2)
        expected = np.stack([whole[name].sel(time=record.times[subset]).values[:, :members] for name in VARIABLES], axis=3)
        np.testing.assert_array_equal(members_by_time, expected)


def test_the_first_members_of_a_larger_ensemble(run, whole):
    wsdcast.rollout(run=run, members=8, starts=4)
    xr.testing.assert_equal(forecast_of(run)[list(VARIABLES)].isel(number=slice(0, 5)), whole[list(VARIABLES)])


def test_groups_fill_batches(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    starts, sizes = np.arange(12), lambda *how: [group.size for group in groups(*how, torch.device("cpu"))]
    assert sizes(starts, 50, 25) == [1] * 12
    assert sizes(starts, 8, 25) == [3] * 4  # four batches, each with 24 of 25 places
    assert sizes(starts, 50, 68) == [4] * 3  # 200 of 204
    assert sizes(starts[:5], 5, 400) == [5]
    assert sizes(starts, 1000, 25) == [1] * 12
    np.testing.assert_array_equal(np.concatenate(groups(starts, 7, 10, torch.device("cpu"))), starts)
    assert sizes(starts[:0], 5, 25) == []


def test_groups_on_a_gpu_are_even_and_fit_a_batch():
    gpu, starts = torch.device("cuda"), np.arange(12)
    sizes = lambda *how, **alone: [group.size for group in groups(*how, gpu, **alone)]  # noqa: E731
    assert sizes(starts, 50, 976) == [12]
    assert sizes(starts, 50, 500) == [6, 6]
    assert sizes(starts, 8, 63) == [6, 6]
    assert sizes(starts, 8, 40) == [4, 4, 4]
    assert sizes(starts, 50, 25) == [1] * 12
    assert sizes(starts, 5, 976, alone=True) == [1] * 12  # so that no member's bits depend on the other initial times
    np.testing.assert_array_equal(np.concatenate(groups(starts, 7, 40, gpu)), starts)
    assert sizes(starts[:0], 5, 25) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "artefact", "module", "kind"),
    [
        (1, MOMENTS_FORECAST, "wsdcast.verification.streamed", "ScoredForecasts"),
        (3, MOMENTS_FORECAST, "wsdcast.verification.streamed", "ScoredForecasts"),
        (3, FORECAST, "wsdcast.data.store.forecasts", "Forecasts"),
    ],
)
def test_killed_and_started_again(run, networks, whole, when, artefact, module, kind, monkeypatch):
    """Killed where some starts are written and one is half written, it does the rest and leaves the same stores."""
    script = f"""
import os, signal, wsdcast
from {module} import {kind} as Store
write, calls = Store.write, []
def killed(self, row, first, wind):
    write(self, row, first, wind)
    calls.append(row)
    if len(calls) == {when}:
        os.kill(os.getpid(), signal.SIGKILL)
Store.write = killed
from wsdcast.weather.stages import rollout
rollout.groups = lambda starts, *how, **alone: [starts[i:i + 1] for i in range(starts.size)]
wsdcast.rollout(run={str(run)!r})
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == -signal.SIGKILL
    partial = partial_of(run / artefact)
    assert len(list(marks_of(partial).glob("[0-9]*"))) == when - 1
    written = []
    monkeypatch.setattr(Forecasts, "mark", lambda self, row, stopped, mark=Forecasts.mark: (written.append(row), mark(self, row, stopped)))
    wsdcast.rollout(run=run)
    assert len(written) == (8 if artefact == MOMENTS_FORECAST else 4) - (when - 1)
    xr.testing.assert_identical(forecast_of(run), whole)
    xr.testing.assert_identical(forecast_of(run, MOMENTS_FORECAST), forecast_of(networks / "run", MOMENTS_FORECAST))
    assert not marks_of(partial).exists()


def test_an_unfinished_forecast_of_another_recipe_is_not_mixed(run, monkeypatch):
    def failing(self, row, first, wind):
        raise OSError(28, "No space left on device", str(self.path))

    monkeypatch.setattr(streamed.ScoredForecasts, "write", failing)
    with pytest.raises(OSError, match="No space left"):
        wsdcast.rollout(run=run)
    monkeypatch.undo()
    for change in ({"seed": 1}, {"members": 6}, {"nfe": 4}):
        with pytest.raises(UserError, match=r"is unfinished and of another recipe; .*--overwrite"):
            wsdcast.rollout(run=run, **change)
    wsdcast.rollout(run=run, seed=1, overwrite=True)
    with pytest.raises(UserError, match=r"rollout.seed: 1 there, 2 here"):
        wsdcast.rollout(run=run, seed=2)


def test_two_at_once_are_kept_apart(run):
    with alone(run, "rollout"), pytest.raises(UserError, match="another `wsdcast rollout` is at work in"):
        wsdcast.rollout(run=run)
    assert not (run / FORECAST).exists()


@pytest.mark.slow
def test_two_processes_share_the_starts(run, whole):
    """Each process writes its own initial times, and the store is the same as that of one process."""
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "wsdcast", "rollout"]
    done = subprocess.run(
        [sys.executable, *arguments, "--run", str(run)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wsdcast rollout") == 1
    xr.testing.assert_identical(forecast_of(run), whole)


def test_a_member_that_leaves_the_physical_range_is_stopped_alone(run, whole, monkeypatch):
    """A member that diverges at its second step is missing from then on, marked, and named. The others keep their bits."""

    def blowing_up(networks, settings, **how):
        sampler, calls = sampler_of(networks, settings), []

        def sample(context, noise):
            state = sampler(context, noise)
            calls.append(1)
            if len(calls) == 2:
                state[7] = torch.inf  # the third member of the second start
            return state

        return sample

    monkeypatch.setattr(stage, "sampler_of", blowing_up)
    summary = wsdcast.rollout(run=run)
    forecast = forecast_of(run)
    assert "1 of 20 members, with winds beyond 120 m/s: member 2 of " in summary.facts["stopped: forecast.zarr"]
    assert " at 12 h; more data" in summary.facts["stopped: forecast.zarr"]
    stopped = forecast[STOPPED].values
    assert stopped[1, 2] == np.timedelta64(12, "h")
    assert np.isnat(stopped).sum() == 19
    for name in VARIABLES:
        values, expected = forecast[name].values, whole[name].values.copy()
        expected[1, 2, 1:] = np.nan
        np.testing.assert_array_equal(values, expected)
    # Scores are computed from the remaining members.
    scores = wsdcast.score(run=run).scores
    assert all(np.isfinite(row["crps_fair: wsdcast"]) for row in scores)


def test_keep_lead_times(run, whole):
    done = CliRunner().invoke(app, ["rollout", "--run", str(run), "--keep", "24,12"], catch_exceptions=False)
    assert done.exit_code == 0
    hours = np.array([12, 24]) * np.timedelta64(1, "h")
    xr.testing.assert_equal(forecast_of(run)[list(VARIABLES)], whole[list(VARIABLES)].sel(prediction_timedelta=hours))
    rows = wsdcast.score(run=run).scores
    assert [row["lead_hours"] for row in rows] == [12, 24]
    by_lead = (run / "report.html").read_text().split("All lead times")[1].split("</table>")[0]
    assert re.findall(r"<td>(\d+) h</td>", by_lead) == ["12", "24"]


def test_keep_statistics(run, whole):
    summary = wsdcast.rollout(run=run, keep="statistics")
    forecast = forecast_of(run)
    assert list(forecast["statistic"].values) == list(STATISTICS)
    members = {name: whole[name] for name in VARIABLES}
    members["10m_wind_speed"] = np.hypot(*(whole[name] for name in VARIABLES))
    for name, values in members.items():
        np.testing.assert_allclose(forecast[name].sel(statistic="mean"), values.mean("number"), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(forecast[name].sel(statistic="std"), values.std("number", ddof=1), rtol=1e-4, atol=1e-4)
        for share in QUANTILES:
            expected = values.quantile(share, "number")
            np.testing.assert_allclose(forecast[name].sel(statistic=f"quantile {share:g}"), expected, rtol=1e-4, atol=1e-4)
    assert "statistics x 4 leads" in summary.written[str(run / FORECAST)]
    assert not (run / "forecast.gif").exists()
    with pytest.raises(UserError, match="scores need the members"):
        wsdcast.score(run=run)


def test_scores_made_in_the_rollout_are_those_of_its_fields(run, networks, whole, monkeypatch):
    scored = wsdcast.score(run=networks / "run").scores
    calls = iter(range(100))

    def failing(*arguments):
        if next(calls) == 3:
            raise OSError("the disk is full")
        return statistics_of(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(streamed, "statistics_of", failing)
        with pytest.raises(OSError, match="disk is full"):
            wsdcast.rollout(run=run, keep="scores")
    done = CliRunner().invoke(app, ["rollout", "--run", str(run), "--score"], catch_exceptions=False)
    assert done.exit_code == 0
    assert not set(VARIABLES) & set(forecast_of(run))
    assert not (run / "forecast.gif").exists()
    assert not list(run.rglob("parts"))
    rows = wsdcast.score(run=run).scores
    assert [row.keys() for row in rows] == [row.keys() for row in scored]
    for ours, theirs in zip(rows, scored, strict=True):
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-6)
    both = [xr.load_dataset(place / "scores.nc", decode_timedelta=True) for place in (run, networks / "run")]
    for name in ("rank_histogram", "reliability", "energy_score", "power_ratio", "crps_fair_interval"):
        np.testing.assert_allclose(both[0][name], both[1][name], rtol=1e-5, atol=1e-7)


def with_fields_of_moments(monkeypatch) -> None:
    """Let the rollout store the fields of the moments model alone, as older versions did."""
    monkeypatch.setattr(stage, "ScoredForecasts", lambda *layout: Forecasts(*layout[:-1]))


def test_the_moments_alone_are_kept_as_statistics_and_scored_as_their_fields_would_be(run, networks, whole, monkeypatch):
    """Stores of older versions, with fields, are scored too, and the report is about the generator's forecast in both cases."""
    with monkeypatch.context() as patched:
        with_fields_of_moments(patched)
        wsdcast.rollout(run=run)
    assert set(VARIABLES) <= set(forecast_of(run, MOMENTS_FORECAST))
    assert not set(VARIABLES) & set(forecast_of(networks / "run", MOMENTS_FORECAST))
    rows = [wsdcast.score(run=place, overwrite=True).scores for place in (run, networks / "run")]
    assert "crps_fair: moments alone" in rows[0][0]
    for ours, theirs in zip(*rows, strict=True):
        assert list(ours) == list(theirs)
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-6)
    fields, statistics_alone = (xr.load_dataset(place / "scores.nc", decode_timedelta=True) for place in (run, networks / "run"))
    assert list(fields["forecast"].values[:2]) == ["wsdcast", "moments alone"]
    xr.testing.assert_allclose(fields, statistics_alone, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("change", [{"start": "latest"}, {"keep": "statistics"}], ids=str)
def test_the_moments_alone_are_not_rolled_out_where_they_cannot_be_scored(run, change):
    wsdcast.rollout(run=run)
    with pytest.raises(UserError, match=r"moments_forecast.zarr was made from another recipe"):
        wsdcast.rollout(run=run, **change)
    summary = wsdcast.rollout(run=run, **change, overwrite=True)
    assert (run / FORECAST).exists()
    assert not (run / MOMENTS_FORECAST).exists()
    assert summary.facts["not written: moments_forecast.zarr"].startswith("only scores need it")


def test_scores_without_the_moments_alone_say_so_and_take_them_up_later(run):
    wsdcast.rollout(run=run)
    shutil.rmtree(run / MOMENTS_FORECAST)
    summary = wsdcast.score(run=run)
    assert "crps_fair: moments alone" not in summary.scores[0]
    assert "moments_forecast.zarr is not there" in summary.facts["moments alone"]
    wsdcast.rollout(run=run)
    summary = wsdcast.score(run=run)
    assert "crps_fair: moments alone" in summary.scores[0]
    assert "moments alone" not in summary.facts


def test_moments_alone_that_were_scored_with_less_truth_take_no_lead_times_from_the_forecast(run, monkeypatch):
    """The record was made longer after the rollout."""
    whole_truth = stage.truth_of

    def shorter(record):
        truth = whole_truth(record)
        return dataclasses.replace(truth, times=truth.times[:-1])

    with monkeypatch.context() as patched:
        patched.setattr(stage, "truth_of", shorter)
        wsdcast.rollout(run=run)
    summary = wsdcast.score(run=run)
    assert [row["lead_hours"] for row in summary.scores] == [6, 12, 18, 24]
    assert "crps_fair: moments alone" not in summary.scores[0]
    assert "dropped" not in summary.facts
    assert "the record has more truth now than at the rollout" in summary.facts["moments alone"]


def test_an_unfinished_rollout_of_an_older_version_is_finished(run, networks, whole, monkeypatch):
    calls = iter(range(100))

    def failing(self, row, stopped, mark=Forecasts.mark):
        if next(calls) == 2:
            raise OSError("the disk is full")
        mark(self, row, stopped)

    with monkeypatch.context() as patched:
        with_fields_of_moments(patched)
        patched.setattr(Forecasts, "mark", failing)
        with pytest.raises(OSError, match="disk is full"):
            wsdcast.rollout(run=run)
    wsdcast.rollout(run=run)
    xr.testing.assert_identical(forecast_of(run, MOMENTS_FORECAST), forecast_of(networks / "run", MOMENTS_FORECAST))


def test_statistics_in_the_place_of_a_forecast_are_named(run):
    wsdcast.rollout(run=run)
    with pytest.raises(UserError, match=r"moments_forecast.zarr: has the statistics of scores and no fields"):
        wsdcast.score_forecast(str(run / MOMENTS_FORECAST), str(run / "analysis.zarr"), run / "other")


def test_scoring_in_the_rollout_needs_truth(run):
    done = CliRunner().invoke(app, ["rollout", "--run", str(run), "--score", "--start", "latest"])
    assert (done.exit_code, "no truth" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["rollout", "--run", str(run), "--score", "--keep", "24"])
    assert (done.exit_code, "leave out --keep 24" in done.stderr) == (2, True)


def test_statistics_of_those_that_are_left():
    wind = np.random.default_rng(0).normal(size=(4, 2, 2, 2, 3)).astype(np.float32)
    wind[1, 1] = np.nan
    result = statistics(wind)
    np.testing.assert_allclose(result[0, 1, :2], wind[[0, 2, 3], 1].mean(axis=0), rtol=1e-5)
    wind[2:, 1] = np.nan
    assert np.isnan(statistics(wind)[:, 1]).all()
    assert np.isfinite(statistics(wind)[:, 0]).all()


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("latest", ["2000-01-30T18"]),
        ("2000-01-29", ["2000-01-29T00"]),
        ("2000-01-29T06:00:00Z", ["2000-01-29T06"]),
        ("2000-01-28/2000-01-29/12h", ["2000-01-28T00", "2000-01-28T12", "2000-01-29T00", "2000-01-29T12"]),
        ("2000-01-28/2000-01-29T00/1d", ["2000-01-28T00", "2000-01-29T00"]),
    ],
)
def test_start_times(networks, start, expected):
    recipe, record, _ = loaded(networks / "run")
    resolved = without_latest(recipe.changed(rollout__start=start), record)
    np.testing.assert_array_equal(record.times[starts_of(resolved, record)], np.array(expected, "datetime64[ns]"))


def test_forecast_from_the_latest_state_has_no_truth(run):
    summary = wsdcast.rollout(run=run, start="latest")
    assert forecast_of(run).sizes["time"] == 1
    assert summary.facts["starts"] == "1, 2000-01-30T18 to 2000-01-30T18"
    assert (run / "forecast.gif").exists()
    assert "current: forecast.zarr" in wsdcast.rollout(run=run, start="latest").facts
    with pytest.raises(UserError, match="no truth for any start and lead time of the forecast"):
        wsdcast.score(run=run)


@pytest.mark.parametrize("stage", ["rollout", "maps", "plume"])
def test_what_needs_a_few_states_does_not_read_the_whole_record(run, whole, stage, networks, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the whole record is read")

    monkeypatch.setattr(analysis, "read_packed", refuse)
    if stage == "rollout":
        wsdcast.rollout(run=run)
        xr.testing.assert_equal(forecast_of(run)[list(VARIABLES)], whole[list(VARIABLES)])
    else:
        wsdcast.plot(stage, run=networks / "run", out=run / "drawn.png", at=(10.0, 20.0) if stage == "plume" else None)
        assert (run / "drawn.png").exists()


def test_starts_that_were_trained_on_are_said(run):
    assert "1 of the initial times" in wsdcast.rollout(run=run, start="2000-01-05").facts["seen in training"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--start 1999-01-01",
            "the record lacks 1 of 1 initial times or the states 6 h before them; the first is 1999-01-01T00, and the record is from 2000",
        ),
        ("--start 2000-01-01/2000-01-02/1d", "the record lacks 1 of 2 initial times or the states 6 h before them"),
        ("--start 2000-01-02/2000-01-01/1d", "--start: '2000-01-02/2000-01-01/1d': the last time is before the first"),
        ("--start tomorrow", "--start: Invalid isoformat string: 'tomorrow'"),
        ("--start 2000-01-02/2000-01-03/5h", "--start: '5h': expected a multiple of 6 h"),
        ("--start latest --starts 3", "--starts 3: the start times are already given"),
        ("--lead 5h", "--lead '5h': expected a multiple of 6 h, such as 12h or 10d"),
        ("--keep 24,30", "--keep: lead times are multiples of 6 h up to 24 h, not 24, 30"),
        ("--keep some", "--keep: input should be 'all', 'statistics' or 'scores', not 'some'"),
    ],
)
def test_refusals(run, options, message):
    done = CliRunner().invoke(app, ["rollout", "--run", str(run), *options.split()])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (run / FORECAST).exists()


def test_lead_is_a_length(run):
    done = CliRunner().invoke(app, ["rollout", "--run", str(run), "--lead", "1.5d", "--starts", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert forecast_of(run).sizes["prediction_timedelta"] == 6


def test_half_precision_changes_little(networks):
    recipe, record, parts = loaded(networks / "run")
    sampler, starts = sampler_of(parts, recipe.rollout), starts_of(recipe, record)
    with torch.inference_mode():
        exact, halved = (next(ensembles(record, parts.forcings, variant, starts, 5, 4, 0)) for variant in (sampler, in_bfloat16(sampler)))
    assert halved.dtype == np.float32
    assert 0 < np.abs(exact - halved).max() < 0.2  # m/s


@pytest.mark.parametrize(("solver", "nfe"), [("midpoint", 4), ("rk4", 4), ("ab3", 5), ("dpm3", 4), ("implicit_adams", 4)])
def test_states_and_velocities_stay_float32_where_networks_do_not(networks, monkeypatch, solver, nfe):
    recipe, record, parts = loaded(networks / "run")
    seen: list[torch.Tensor] = []
    settings = recipe.changed(rollout__solver=solver, rollout__nfe=nfe).rollout
    whole = evaluations.solver(solver)

    def watched(velocity, noise, times):
        def seen_velocity(x, t):
            seen.extend((x, velocity(x, t)))
            return seen[-1]

        return whole(seen_velocity, noise, times, watch=seen.append)

    monkeypatch.setattr(sampling, "solver", lambda *_: watched)
    inner = []
    parts.generator.last.register_forward_hook(lambda *passed: inner.append(passed[-1].dtype))
    starts = starts_of(recipe, record)
    with torch.inference_mode():
        next(ensembles(record, parts.forcings, in_bfloat16(sampling.sampler_of(parts, settings)), starts, 2, 1, 0))
    assert {tensor.dtype for tensor in seen} == {torch.float32}
    assert set(inner) == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch's compiler instantiates it
def test_the_network_is_one_graph_for_the_compiler(networks):
    """The network is traced as for a GPU, but no kernels are compiled."""
    _, _, parts = loaded(networks / "run")
    compiled = torch.compile(parts.generator, backend="aot_eager", fullgraph=True)
    inputs = torch.randn(4, 10, 8, 16), torch.full((1,), 0.3), torch.ones(1)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(*inputs), parts.generator(*inputs), rtol=1e-5, atol=1e-5)


def test_the_writer_keeps_order_and_bounds():
    done, waiting = [], []
    with in_background() as later:
        for number in range(6):
            later(lambda number: (time.sleep(0.005), done.append(number)), number)
            waiting.append(number + 1 - len(done))
    assert done == list(range(6))
    assert max(waiting) <= 3  # one is being written and two wait


def test_a_failure_of_the_writer_fails_the_block_and_nothing_is_written_after():
    done = []

    def fail():
        raise OSError("disk full")

    def block():
        with in_background() as later:
            later(done.append, 1)
            later(fail)
            for number in range(10):
                later(done.append, number)
                time.sleep(0.01)

    with pytest.raises(OSError, match="disk full"):
        block()
    assert done == [1]


def test_ahead_passes_items_and_errors_on():
    produced = []

    def items():
        for number in range(3):
            produced.append(number)
            yield number
        raise ValueError("the end")

    items_ahead = ahead(items())
    assert next(items_ahead) == 0
    assert next(items_ahead) == 1
    assert next(items_ahead) == 2
    with pytest.raises(ValueError, match="the end"):
        next(items_ahead)
    assert produced == [0, 1, 2]


@pytest.mark.slow
def test_memory_does_not_grow_with_lead_times(run, monkeypatch):
    """Memory holds the fields of at most one chunk, however long the forecast, and a bounded number that wait for the writer."""
    alive: set[int] = set()
    most = []

    def counted(*arguments):
        for number, winds in enumerate(ensembles(*arguments)):
            alive.add(number)
            weakref.finalize(winds, alive.discard, number)
            most.append(len(alive))
            yield winds

    monkeypatch.setattr(writing, "ensembles", counted)
    wsdcast.rollout(run=run, start="2000-01-10", days=12)
    assert len(most) == 2 * 48
    assert max(most) <= LEADS_PER_CHUNK + 2
