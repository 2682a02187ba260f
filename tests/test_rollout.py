"""Rollouts: members do not depend on each other, and forecasts are written step by step, by one process or several."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from rollouts import forecast_of, loaded

import wsdcast
from wsdcast.data.store import analysis
from wsdcast.data.store.forecasts import LEADS_PER_CHUNK, STOPPED, Forecasts
from wsdcast.data.variables import DEFAULT
from wsdcast.nets.peak import peak_memory
from wsdcast.runs.complete import partial_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.locks import alone
from wsdcast.runs.names import ANIMATION, FORECAST, PAST_ERRORS_FORECAST
from wsdcast.runs.unfinished import marks_of
from wsdcast.sampling.batches import in_batches
from wsdcast.verification import streamed
from wsdcast.weather.forecast import memory, past_errors, writing
from wsdcast.weather.forecast.initial_times import starts_of
from wsdcast.weather.forecast.running import ensembles, groups
from wsdcast.weather.samplers import sampler_of
from wsdcast.weather.stages import rollout as stage

pytestmark = pytest.mark.usefixtures("without_animation")


@pytest.mark.parametrize(("at_once", "members"), [(1, 5), (2, 5), (4, 5), (3, 2), (1, 1)])
def test_members_do_not_depend_on_the_others_in_their_batch(rolled_out, reference_forecast, at_once, members):
    recipe, record, parts = loaded(rolled_out / "run")
    sampler = in_batches(sampler_of(parts, recipe.rollout), stage.batch_size(16 * 8, torch.device("cpu")))
    starts = starts_of(recipe, record)[::-1]  # in reversed order
    for first in range(0, 4, at_once):
        subset = starts[first : first + at_once]
        members_by_time = np.stack(list(ensembles(record, parts.forcings, sampler, subset, members=members, steps=4, seed=0)), axis=2)
        expected = np.stack([reference_forecast[name].sel(time=record.times[subset]).values[:, :members] for name in DEFAULT], axis=3)
        np.testing.assert_array_equal(members_by_time, expected)


def test_a_larger_ensemble_begins_with_the_same_members(trained_run, reference_forecast):
    wsdcast.rollout(run=trained_run, members=8, starts=4)
    xr.testing.assert_equal(forecast_of(trained_run)[list(DEFAULT)].isel(number=slice(0, 5)), reference_forecast[list(DEFAULT)])


def test_groups_fill_batches(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    starts, sizes = np.arange(12), lambda *how: [group.size for group in groups(*how, torch.device("cpu"))]
    assert sizes(starts, 50, 25) == [1] * 12
    assert sizes(starts, 8, 25) == [3] * 4  # four batches, each with 24 of 25 places
    assert sizes(starts, 50, 68) == [4] * 3  # 200 of 204
    assert sizes(starts[:5], 5, 400) == [5]
    assert sizes(starts, 1000, 25) == [1] * 12
    assert sizes(starts, 26, 25) == [7, 5]  # 182 of 200, with the most batches that a group may have
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


@pytest.mark.parametrize(("threads", "starts", "together", "at_a_time"), [(1, 7, 24, 25), (1, 1, 8, 25), (2, 13, 48, 50), (4, 3, 24, 25)])
def test_a_rollout_needs_memory_for_its_largest_group_and_its_batches(rolled_out, monkeypatch, threads, starts, together, at_a_time):
    recipe, record, networks = loaded(rolled_out / "run")
    needed = []
    monkeypatch.setattr(memory, "require_memory", lambda size, _: needed.append(size))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    settings = recipe.rollout.model_copy(update={"members": 8})
    for kept in (1, 2):
        memory.require_memory_of_rollout(networks, record, np.arange(starts), settings, 25, kept)
    of_network = at_a_time * peak_memory(networks.generator, (1, 10, 8, 16), (1,), (1,), training=False)
    fields = [memory.fields_of_member(record, networks.forcings, 1) + 2 * LEADS_PER_CHUNK * kept for kept in (1, 2)]
    assert needed == [of_network + (together * count + past_errors.MOST * 2) * 4 * 8 * 16 for count in fields]
    monkeypatch.setattr(memory.devices, "device", lambda: torch.device("meta"))
    memory.require_memory_of_rollout(networks, record, np.arange(starts), settings, 25, 1)
    assert len(needed) == 2  # no estimate for another device than the CPU


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "artefact", "module", "kind"),
    [
        (1, PAST_ERRORS_FORECAST, "wsdcast.verification.streamed", "ScoredForecasts"),
        (3, PAST_ERRORS_FORECAST, "wsdcast.verification.streamed", "ScoredForecasts"),
        (3, FORECAST, "wsdcast.data.store.forecasts", "Forecasts"),
    ],
)
def test_a_killed_rollout_continues_and_leaves_the_same_stores(
    trained_run, rolled_out, reference_forecast, when, artefact, module, kind, monkeypatch
):
    """It is killed when some initial times are written and another one is half written. Only the others are computed again."""
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
from wsdcast.weather.forecast import artefacts
artefacts.groups = lambda starts, *how, **alone: [starts[i:i + 1] for i in range(starts.size)]
wsdcast.rollout(run={str(trained_run)!r})
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == -signal.SIGKILL
    partial = partial_of(trained_run / artefact)
    assert len(list(marks_of(partial).glob("[0-9]*"))) == when - 1
    written = []
    monkeypatch.setattr(Forecasts, "mark", lambda self, row, stopped, mark=Forecasts.mark: (written.append(row), mark(self, row, stopped)))
    wsdcast.rollout(run=trained_run)
    assert len(written) == (8 if artefact == PAST_ERRORS_FORECAST else 4) - (when - 1)
    xr.testing.assert_identical(forecast_of(trained_run), reference_forecast)
    xr.testing.assert_identical(forecast_of(trained_run, PAST_ERRORS_FORECAST), forecast_of(rolled_out / "run", PAST_ERRORS_FORECAST))
    assert not marks_of(partial).exists()


def test_an_unfinished_forecast_of_another_recipe_is_not_continued(trained_run, monkeypatch):
    def failing(self, row, first, wind):
        raise OSError(28, "No space left on device", str(self.path))

    monkeypatch.setattr(streamed.ScoredForecasts, "write", failing)
    with pytest.raises(OSError, match="No space left"):
        wsdcast.rollout(run=trained_run)
    monkeypatch.undo()
    for change in ({"seed": 1}, {"members": 6}, {"nfe": 4}):
        with pytest.raises(
            UserError, match=r"is unfinished and .* \(its own initial times: 20\d\d-.*; arithmetic: deterministic\); .*--overwrite"
        ):
            wsdcast.rollout(run=trained_run, **change)
    (trained_run / ANIMATION).write_bytes(b"of an earlier forecast")
    wsdcast.rollout(run=trained_run, seed=1, overwrite=True)
    assert (trained_run / ANIMATION).read_bytes() != b"of an earlier forecast"
    with pytest.raises(UserError, match=r"rollout.seed: 1 there, 2 here"):
        wsdcast.rollout(run=trained_run, seed=2)


def test_a_rollout_that_was_stopped_while_its_store_was_completed_computes_nothing_again(trained_run, monkeypatch):
    start = "2000-01-30T12"  # with truth at its first lead time alone
    with monkeypatch.context() as patched:
        patched.setattr(streamed.ScoredForecasts, "close", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wsdcast.rollout(run=trained_run, start=start)
    summary = wsdcast.rollout(run=trained_run, start=start)
    assert re.fullmatch(r"\d+ s", summary.facts["time: past_errors_forecast.zarr"])  # and no time for each sample, as there is none
    assert summary.facts["time: forecast.zarr"].endswith(" ms a sample")
    assert summary.written[str(trained_run / PAST_ERRORS_FORECAST)].startswith("1 initial time x scores x 4 leads, ")


def test_a_second_rollout_at_the_same_time_is_refused(trained_run):
    with alone(trained_run), pytest.raises(UserError, match="another wsdcast command is at work in"):
        wsdcast.rollout(run=trained_run)
    assert not (trained_run / FORECAST).exists()


def test_a_refusal_for_lack_of_disk_leaves_nothing_behind_and_keeps_what_was_begun(trained_run, monkeypatch):
    """An empty store stayed, so that a forecast with another option was refused as well."""
    before = set(trained_run.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("wsdcast.runs.resources.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(UserError, match="but only 10 bytes are free"):
            wsdcast.rollout(run=trained_run)
    assert set(trained_run.iterdir()) == before
    with monkeypatch.context() as patched:
        patched.setattr(Forecasts, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wsdcast.rollout(run=trained_run)
        patched.setattr("wsdcast.runs.resources.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(UserError, match="but only 10 bytes are free"):
            wsdcast.rollout(run=trained_run)
        assert (marks_of(partial_of(trained_run / FORECAST)) / "claim.json").exists()
        (partial_of(trained_run / FORECAST) / "written").write_bytes(bytes(10**6))  # what is written needs no room again
        with pytest.raises(ZeroDivisionError):
            wsdcast.rollout(run=trained_run)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(trained_run, reference_forecast):
    """Each process writes its own initial times, and the store is the same as that of one process."""
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "wsdcast", "rollout"]
    done = subprocess.run(
        [sys.executable, *arguments, "--run", str(trained_run)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wsdcast rollout") == 1
    xr.testing.assert_identical(forecast_of(trained_run), reference_forecast)


def test_a_member_that_leaves_the_physical_range_is_stopped_alone(trained_run, reference_forecast, monkeypatch):
    """A member that diverges at its second step is missing from then on, marked, and named. The others keep their bits."""

    def blowing_up(networks, settings, **how):
        sampler, calls = sampler_of(networks, settings), []

        def sample(context, noise):
            state = sampler(context, noise)
            calls.append(1)
            if len(calls) == 2:
                state[7] = torch.inf  # the third member of the second initial time
            return state

        return sample

    monkeypatch.setattr(stage, "sampler_of", blowing_up)
    summary = wsdcast.rollout(run=trained_run)
    forecast = forecast_of(trained_run)
    assert "1 of 20 members, with winds beyond 120 m/s: member 2 of " in summary.facts["stopped: forecast.zarr"]
    assert " at 12 h; more data" in summary.facts["stopped: forecast.zarr"]
    stopped = forecast[STOPPED].values
    assert stopped[1, 2] == np.timedelta64(12, "h")
    assert np.isnat(stopped).sum() == 19
    for name in DEFAULT:
        values, expected = forecast[name].values, reference_forecast[name].values.copy()
        expected[1, 2, 1:] = np.nan
        np.testing.assert_array_equal(values, expected)
    # Scores are computed from the remaining members.
    scores = wsdcast.score(run=trained_run).scores
    assert all(np.isfinite(row["crps_fair: wsdcast"]) for row in scores)


@pytest.mark.parametrize("stage", ["rollout", "maps", "plume"])
def test_rollouts_and_figures_do_not_read_the_whole_record(trained_run, reference_forecast, stage, rolled_out, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the whole record is read")

    monkeypatch.setattr(analysis, "read_packed", refuse)
    if stage == "rollout":
        wsdcast.rollout(run=trained_run)
        xr.testing.assert_equal(forecast_of(trained_run)[list(DEFAULT)], reference_forecast[list(DEFAULT)])
    else:
        wsdcast.plot(stage, run=rolled_out / "run", out=trained_run / "drawn.png", at=(10.0, 20.0) if stage == "plume" else None)
        assert (trained_run / "drawn.png").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_lead_times(trained_run, monkeypatch):
    """Memory holds at most one chunk of fields and a few that wait for the writer, however long the forecast is."""
    alive: set[int] = set()
    most = []

    def counted(*arguments, **options):
        for number, winds in enumerate(ensembles(*arguments, **options)):
            alive.add(number)
            weakref.finalize(winds, alive.discard, number)
            most.append(len(alive))
            yield winds

    monkeypatch.setattr(writing, "ensembles", counted)
    wsdcast.rollout(run=trained_run, start="2000-01-10", days=12)
    assert len(most) == 2 * 48
    assert max(most) <= LEADS_PER_CHUNK + 2
