"""Arguments as they come from Python: data sets, times of coordinates, keys, models of the moments, tensors and own flow times."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from conftest import new_run, six_hourly, wind_dataset
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.steps import time_in_words
from wsdcast.data.store.forecasts import row_of
from wsdcast.runs.errors import UserError
from wsdcast.runs.summary import Summary
from wsdcast.verification.kernels import fair_crps, ranked
from wsdcast.warmstart.evaluations import ALL_SOLVERS, grid, solver
from wsdcast.warmstart.flow import sample
from wsdcast.warmstart.prior import frozen_prior, standard_moments
from wsdcast.weather.recipe import load_recipe

DATASET = wind_dataset(six_hourly("2020-01-01", 3), np.linspace(78.75, -78.75, 8), 22.5 * np.arange(16))


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda: wsdcast.prepare(source=DATASET), "--source"),
        (lambda: wsdcast.check(DATASET), "source"),
        (lambda: wsdcast.score_forecast(DATASET, "truth.nc"), "forecast"),
        (lambda: wsdcast.score_forecast("forecast.zarr", DATASET), "--truth"),
        (lambda: wsdcast.products(DATASET), "forecast"),
        (lambda: wsdcast.convert(DATASET, "netcdf", "out.nc"), "forecast"),
        (lambda: wsdcast.forecast_page(DATASET), "forecast"),
        (lambda: wsdcast.score_stations(DATASET, "stations.csv"), "forecast"),
    ],
)
def test_a_data_set_in_place_of_its_file_is_refused_in_one_line(directory, call, option):
    with pytest.raises(UserError) as refused:
        call()
    line = str(refused.value)
    assert line.startswith(f"{option}: ")
    assert "not Dataset; xarray's to_netcdf and to_zarr write one" in line
    assert len(line) < 140
    assert "\n" not in line
    assert not list(directory.iterdir())


@pytest.mark.parametrize("days", ["1d", datetime.timedelta(days=1), np.timedelta64(1, "D"), True, -1])
def test_a_length_that_is_no_number_is_refused_by_the_name_of_its_argument(directory, days):
    """The option is ``--lead``; there is no option ``--days``."""
    said = {True: r"days: expected a number, not true", -1: "days: input should be greater than 0, not -1"}
    with pytest.raises(UserError, match=rf"^{said.get(days, 'days: expected a number, such as 1.5, not ')}"):
        wsdcast.rollout(days=days)


TOKYO = datetime.timezone(datetime.timedelta(hours=9))
SAME_TIMES = {
    "text": "2020-01-31T06",
    "text of another zone": "2020-01-31T15:00:00+09:00",
    "hours": np.datetime64("2020-01-31T06"),
    "nanoseconds": np.datetime64("2020-01-31T06", "ns"),
    "array": np.array("2020-01-31T06", "datetime64[ns]"),
    "coordinate": xr.DataArray(np.array("2020-01-31T06", "datetime64[ns]")),
    "timestamp": pd.Timestamp("2020-01-31T06"),
    "timestamp of another zone": pd.Timestamp("2020-01-31T15", tz=TOKYO),
    "datetime": datetime.datetime(2020, 1, 31, 6),
    "datetime of another zone": datetime.datetime(2020, 1, 31, 15, tzinfo=TOKYO),
}


@pytest.mark.parametrize("time", SAME_TIMES.values(), ids=SAME_TIMES)
def test_a_time_of_any_type_is_the_same_time(time):
    recipe = load_recipe("planet").changed(rollout__start=time, data__start=time, data__end=time, data__skip=[time])
    expected = datetime.datetime(2020, 1, 31, 6)
    assert (recipe.data.start, recipe.data.end, recipe.data.skip) == (expected, expected, (expected,))
    assert recipe.rollout.start == "2020-01-31T06"
    assert row_of(np.array(["2020-01-31T00", "2020-01-31T06"], "datetime64[ns]"), time, "f") == 1


@pytest.mark.parametrize("clock", ["00", "00:30", "23:00:05", "06"])
def test_the_nearest_initial_time_is_named_as_it_must_be_given(clock):
    starts = np.array([f"2020-01-31T{clock}"], "datetime64[ns]")
    with pytest.raises(UserError, match=r"^--start 2020-01-31T12: not in f, whose nearest initial time is ") as refused:
        row_of(starts, "2020-01-31T12", "f")
    named = str(refused.value).split()[-1]
    assert named == f"2020-01-31T{clock}"
    assert row_of(starts, named, "f") == 0
    assert time_in_words(starts[0]) == f"2020-01-31 {clock} UTC"


@pytest.mark.parametrize("several", [np.asarray, xr.DataArray, pd.DatetimeIndex, list])
def test_several_times_may_be_those_of_a_coordinate(several):
    times = several(np.array(["2020-01-31T06", "2020-02-01"], "datetime64[ns]"))
    recipe = load_recipe("planet").changed(data__skip=times)
    assert recipe.data.skip == (datetime.datetime(2020, 1, 31, 6), datetime.datetime(2020, 2, 1))


@pytest.mark.parametrize("several", [np.array, xr.DataArray, list, tuple])
def test_lead_times_that_are_kept_may_be_an_array(several):
    assert load_recipe("planet").changed(rollout__keep=several([6, 72])).rollout.keep == (6, 72)


def test_what_is_no_time_is_refused_in_one_line():
    starts = DATASET["time"]
    assert row_of(starts.values, starts[2], "f") == 2
    with pytest.raises(UserError, match=r"^--start of type DataArray: expected a time such as 2020-01-31T06$"):
        row_of(starts.values, starts[1:3], "f")
    for key, words in {"data__start": "expected a time", "data__skip": "expected a time", "rollout__start": "input should be"}.items():
        with pytest.raises(UserError, match=rf"^{key.replace('__', '.')}[^:]*: {words}[^\n]*, not DataArray$"):
            load_recipe("planet").changed(**{key: [starts[1:3]] if key == "data__skip" else starts[1:3]})


@pytest.mark.parametrize("kind", [list, tuple])
def test_several_files_are_refused_with_what_names_several(directory, kind):
    expected = rf"^--source: expected one path or URL, not a {kind.__name__}; a directory or a glob names several$"
    with pytest.raises(UserError, match=expected):
        wsdcast.prepare(source=kind(["a.nc", "b.nc"]))
    assert not list(directory.iterdir())


def test_an_end_without_a_time_includes_its_day_whatever_its_type():
    days = "2020-01-31", np.datetime64("2020-01-31"), 20200131, np.int64(20200131)
    ends = {load_recipe("planet").changed(data__end=day).data.end for day in days}
    assert ends == {datetime.datetime(2020, 1, 31, 23, 59, 59)}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"generator__stepps": 3}, "generator.stepps: unknown key; did you mean generator.steps?"),
        ({"warmth": 1}, "warmth: unknown key; did you mean rollout.warmth?"),
        ({"generator": {"steps": 3}}, "generator: a section; name one of its keys, such as generator__steps"),
        ({"generator__times": {"mean": 1}}, "generator__times: a section; name one of its keys, such as generator__times__kind"),
        ({"nets__steps": 3}, "nets: unknown key"),
        ({"generator__learning_rate": 0}, "generator.learning_rate: input should be greater than 0, not 0"),
        ({"generator__steps__mean": 3}, "generator.steps.mean: unknown key"),
        ({"generator__steps__mean__x": 3}, "generator.steps.mean.x: unknown key"),
        ({"data__variables__x__y": 3}, "data.variables.x.y: unknown key"),
    ],
)
def test_a_wrong_key_of_a_changed_recipe_is_named(changes, line):
    with pytest.raises(UserError) as refused:
        load_recipe("planet").changed(**changes)
    assert str(refused.value) == line


def test_a_key_of_a_section_within_a_section_is_changed_alone():
    changed = load_recipe("planet").changed(generator__times__mean=1.2)
    assert (changed.generator.times.mean, changed.generator.times.kind) == (1.2, "logit-normal")
    assert changed.changed(generator__times__mean=0.0) == load_recipe("planet")


def gaussian(context):
    return context[:, :2], torch.full_like(context[:, :2], 0.3)


def test_a_model_of_the_moments_that_nothing_reads_is_refused(prepared, rolled_out, tmp_path):
    """It was left aside without a word, and the networks that were asked for were trained in its place."""
    run = new_run(prepared, tmp_path)
    for stage in (wsdcast.train, wsdcast.study_nfe):
        with pytest.raises(UserError, match=r"moments: a model of yours is read only with the prior given, not with .*warm"):
            stage(run=run, moments=gaussian)
    with pytest.raises(UserError, match="read only with the prior given, not with warm"):
        wsdcast.rollout(run=rolled_out / "run", moments=gaussian)
    with pytest.raises(UserError, match="as moments=MODEL, and str is no function"):
        wsdcast.train(run=run, prior="given", moments="ridge")
    with pytest.raises(UserError, match=r"as moments=MODEL$"):
        wsdcast.study_nfe(run=run, priors=["standard", "given"], ablations=[])
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {"analysis.zarr"}


def test_scores_take_tensors_and_arrays_of_xarray():
    ensemble, truth = np.random.default_rng(0).normal(size=(2, 6, 3, 4))[0], np.zeros((3, 4))
    expected = fair_crps(ranked(ensemble, truth))
    assert np.array_equal(fair_crps(ranked(torch.from_numpy(ensemble), torch.from_numpy(truth))), expected)
    assert np.array_equal(fair_crps(ranked(xr.DataArray(ensemble), xr.DataArray(truth))), expected)


@pytest.mark.parametrize("times", [[1, 0.5, 0], [0, 0.5, 0.9], [0, 0.5, 0.5, 1], [0.0]])
def test_flow_times_that_do_not_increase_to_the_data_are_refused(times):
    """The paper and many programs count from data to noise. Such times gave samples of nothing, without a word."""
    context, prior_of = torch.zeros(1, 4, 8, 8), frozen_prior(standard_moments(2))
    with pytest.raises(ValueError, match="do not increase to 1"):
        sample(lambda x, t, warmth: x[:, :2], prior_of, context, torch.zeros(1, 2, 8, 8), torch.tensor(times), solver("euler"))


@pytest.mark.parametrize("name", ["explicit_adams", "implicit_adams"])
def test_unequal_steps_of_a_method_for_equal_ones_are_refused(name):
    noise = torch.ones(1, 1)
    with pytest.raises(ValueError, match="assumes equal steps"):
        ALL_SOLVERS[name](lambda x, t: -x, noise, grid("quadratic", 4))
    for times in (grid("uniform", 8), torch.linspace(0, 1, 301)):  # rounded to single precision, the latter differ by 2e-5 of a step
        assert ALL_SOLVERS[name](lambda x, t: -x, noise, times).item() == pytest.approx(np.exp(-1), abs=0.01)


def test_run_works_when_it_is_called_and_keeps_what_was_finished_before_an_error(directory, monkeypatch):
    """It returned an iterator, and a call without a loop did nothing."""
    done = []

    def stage(name):
        def work(recipe, run, *, overwrite):
            done.append(name)
            return Summary(name)

        return work

    def fails(recipe, run, *, overwrite):
        raise UserError("no room")

    for name in ("prepare", "train", "rollout", "score"):
        monkeypatch.setattr(f"wsdcast.weather.pipeline.{name}", stage(name))
    assert [summary.stage for summary in wsdcast.run()] == done == ["prepare", "train", "rollout", "score"]
    done.clear()
    monkeypatch.setattr("wsdcast.weather.pipeline.rollout", fails)
    with pytest.raises(UserError, match=r"^no room$"):
        wsdcast.run()
    assert done == ["prepare", "train"]
    assert "wsdcast: no room" in (stopped := CliRunner().invoke(app, ["run"])).stderr
    assert stopped.exit_code == 2
    assert "prepare" in stopped.stdout
    assert "train" in stopped.stdout


def test_forecast_works_when_it_is_called(directory):
    with pytest.raises(UserError, match=r"^none.wsd is not there"):
        wsdcast.forecast("none.wsd", "gfs")
