"""``forcings.past_states``: how many states before the state now the networks read."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from conftest import TINY, new_run

import wsdcast
from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.study.weather_variants import moments_cost, variant_of
from wsdcast.weather.forcings import forcings_of
from wsdcast.weather.forecast.autoregression import forecast
from wsdcast.weather.forecast.initial_times import initial_times, with_past, without_latest
from wsdcast.weather.network_sections import Forcings
from wsdcast.weather.networks import Sizes
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.trained import trained
from wsdcast.weather.training.rollouts import RolloutBatch, rollout_loss

pytestmark = pytest.mark.usefixtures("without_animation")

NUMBERS = (0, 1, 3)


@pytest.fixture(scope="module")
def record(prepared) -> Analysis:
    """Return the tiny record with one time left out."""
    whole = open_analysis(prepared / "run/analysis.zarr")
    kept = np.delete(np.arange(whole.times.size), 20)
    packed = replace(whole.states, values=whole.states.values[kept])
    return replace(whole, states=packed, times=whole.times[kept])


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("steps", [1, 4])
def test_samples_have_all_states_that_they_need(record, number, steps):
    of_record, inside = replace(record, past_states=number), set(record.times[record.part("train")])
    needed = np.arange(-number, steps + 1) * np.timedelta64(6, "h")
    expected = [index for index, time in enumerate(record.times) if inside.issuperset(time + needed)]
    assert of_record.now("train", steps).tolist() == expected


@pytest.mark.parametrize("number", NUMBERS)
def test_a_context_has_the_states_from_the_last_to_the_first(record, number):
    of_record = replace(record, past_states=number)
    (samples,) = samples_of(of_record, forcings_of(of_record, Forcings(past_states=number), torch.device("cpu")), "train")
    states = torch.from_numpy(record.normalise(record.states[:]))
    for sample in (0, len(samples) - 1):
        now = int(samples.now[sample])
        expected = torch.cat([states[now - steps] for steps in range(number + 1)])
        assert torch.equal(samples.context(torch.tensor([sample]))[0], expected)
    assert samples.context(torch.tensor([0])).shape[1] == Sizes(True, 0, 2, number).context == 2 * (1 + number)


@pytest.mark.parametrize("weights", [[1.5], [1.0, 1.0], [0.5, 0.0, -1.0, 2.0]])
def test_forecasts_and_rollouts_follow_a_recurrence(weights):
    """With a sampler that is linear in the states, a forecast is a recurrence; with weights of 1 and 1 it is Fibonacci's."""
    past = [torch.full((1, 1, 1, 1), value) for value in (1.0, 1.0, 3.0, -2.0)[: len(weights)]]

    def sampler(context: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return (context[:, :-1] * torch.tensor(weights)[:, None, None]).sum(dim=1, keepdim=True) + noise + context[:, -1:]

    expected = [float(state) for state in past]
    for step in range(6):
        expected.insert(0, sum(weight * state for weight, state in zip(weights, expected[: len(weights)], strict=True)) + step)
    zero = torch.zeros(1, 1, 1, 1)
    states = list(forecast(sampler, past, [zero] * 6, [zero + step for step in range(6)]))
    assert [float(state) for state in states] == pytest.approx(expected[5::-1])
    truth = [zero + value for value in expected[5::-1]]
    batch = RolloutBatch(past, [zero + step for step in range(6)], truth, torch.zeros(6, 2, 1, 1, 1, 1))
    error = rollout_loss(sampler, batch, lambda members, true: (members - true).abs().sum(), "all")
    assert float(error) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("number", NUMBERS)
def test_forecasts_begin_from_the_contexts_of_training(prepared, tmp_path, number):
    """The moments one step ahead of the rollout are those of the network for the sample of that time; a model file forecasts the same."""
    run = new_run(prepared, tmp_path)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(TINY + f"forcings: {{past_states: {number}}}\n")
    wsdcast.train(recipe, run)
    start = "2000-01-29T06"
    wsdcast.rollout(recipe, run, start=start)
    record = open_analysis(run / "analysis.zarr", past_states=number)
    networks = trained(load_recipe(recipe), run, record)
    assert networks.moments.network.first.in_channels == 2 * (1 + number)
    (samples,) = samples_of(record, networks.forcings, "test")
    (sample,) = np.flatnonzero(record.times[samples.now.numpy()] == np.datetime64(start))
    with torch.inference_mode():
        mean, std = networks.moments(samples.context(torch.tensor([sample])))
    with xr.open_zarr(run / "past_errors_forecast.zarr") as stored:
        at = stored.sel(time=start)
        for channel, name in enumerate(DEFAULT):
            scale = record.std[channel]
            np.testing.assert_allclose(at[f"{name}_mean"].squeeze(), mean[0, channel] * scale + record.mean[channel], atol=1e-4)
            np.testing.assert_allclose(at[f"{name}_std"].squeeze(), std[0, channel] * scale, atol=1e-4)
    wsdcast.export_model(run, tmp_path / "tiny.wsd")
    with xr.open_zarr(run / "analysis.zarr", chunks=None) as analyses:
        needed = analyses[list(DEFAULT)].sel(time=np.datetime64(start) - np.timedelta64(6, "h") * np.arange(number + 1)[::-1])
        needed.drop_encoding().to_zarr(tmp_path / "needed.zarr", consolidated=False)
    wsdcast.rollout(model=tmp_path / "tiny.wsd", initial=tmp_path / "needed.zarr", run=tmp_path / "other")
    with xr.open_zarr(tmp_path / "other/forecast.zarr") as other, xr.open_zarr(run / "forecast.zarr") as own:
        name = "10m_v_component_of_wind"
        np.testing.assert_array_equal(other[name].values, own[name].values)
    with xr.open_dataset(tmp_path / "other/initial_states.nc") as states:
        assert states.sizes["time"] == 1 + number


def test_an_initial_time_needs_all_states_before_it():
    times = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    times = np.delete(times, 1)  # 0, 12, 18, 24 and 30 h
    begins = initial_times(times, "2020-01-02T00/2020-01-02T06/6h", "the source", 2)
    assert (begins == times[3:]).all()
    np.testing.assert_array_equal(with_past(begins, 2), np.stack([times[3:], times[2:4], times[1:3]], axis=1))
    assert initial_times(times, "2020-01-01T00", "the source", 0).size == 1
    with pytest.raises(UserError, match=r"no state at 2020-01-01T06, which a forecast from 2020-01-02T00 needs; the source is from"):
        initial_times(times, "2020-01-02T00", "the source", 5)
    for start, message in (
        ("2020-01-01T06", "T06; the nearest possible start is 2020-01-01T18; the source is from 2020-01-01T00 to 2020-01-02T06"),
        ("2020-01-01T12", "T06, which a forecast from 2020-01-01T12 needs; the nearest possible start is 2020-01-01T18"),
        ("2020-01-01T21", "no state at 2020-01-01T21; the nearest possible start is 2020-01-01T18"),
        ("2021-01-01", "no state at 2021-01-01T00; the nearest possible start is 2020-01-02T06"),
    ):
        with pytest.raises(UserError, match=message):
            initial_times(times, start, "the source", 1)
    with pytest.raises(UserError, match="lacks 2 of 3 initial times or the states up to 6 h before them; the first is 2020-01-01T06"):
        initial_times(times, "2020-01-01T06/2020-01-01T18/6h", "the source", 1)
    record = SimpleNamespace(times=np.delete(times, 3), past_states=1)  # the last one, at 30 h, lacks the state before it
    assert without_latest(load_recipe("planet").changed(rollout__start="latest"), record).rollout.start == "2020-01-01T18"
    with pytest.raises(UserError, match="has no 6 states in a row"):
        initial_times(times, "latest", "the source", 5)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_the_network_of_a_fold_sees_no_state_of_its_samples(prepared, tmp_path, monkeypatch, number):
    """Nor does it leave out more than that."""
    trained_on: list[set[int]] = []
    subset = Samples.subset
    monkeypatch.setattr(Samples, "subset", lambda samples, indices: trained_on.append(set(indices.tolist())) or subset(samples, indices))
    run = new_run(prepared, tmp_path)
    wsdcast.train(load_recipe(prepared / "tiny.yaml").changed(forcings__past_states=number, moments__folds=3), run)
    count = len(np.load(run / "predictions/moments.npy"))
    for fold, outside in enumerate(trained_on):
        inside = range(fold * count // 3, (fold + 1) * count // 3)
        states = {state for sample in inside for state in range(sample - number, sample + 2)}
        assert outside == {sample for sample in range(count) if states.isdisjoint(range(sample - number, sample + 2))}


def test_networks_of_other_past_states_are_refused(prepared, tmp_path):
    run = new_run(prepared, tmp_path)
    wsdcast.train(prepared / "tiny.yaml", run)
    assert "made from another recipe (forcings.past_states: 1 there, 2 here)" in refused(
        "train", "--run", str(run), "-o", "forcings.past_states=2"
    )
    assert "forcings.past_states" in refused("train", "--run", str(run), "-o", "forcings.past_states=-1")


def test_a_variant_of_more_past_states_is_trained_for_fewer_steps(prepared):
    record = open_analysis(prepared / "run/analysis.zarr")
    recipe = load_recipe(prepared / "tiny.yaml").changed(moments__steps=40, generator__steps=4000)
    recipe = recipe.changed(study__variants={"long": {"forcings.past_states": 3}, "short": {"forcings.past_states": 0}})
    cost = moments_cost(recipe, record)
    long, short = (variant_of(recipe, record, cost, name)[0] for name in ("long", "short"))
    assert long.generator.steps < recipe.generator.steps < short.generator.steps


def test_the_summary_of_a_record_counts_samples_with_all_their_states(tmp_path):
    recipe = Recipe(name="tiny", data={"grid": "16x8", "days": 10}, forcings={"past_states": 3})
    facts = wsdcast.prepare(recipe, tmp_path / "run").facts
    # 32, 4 and 4 states; a sample has five.
    assert facts["training / validation / test"] == "28 / 0 / 0 samples"


def test_a_record_without_enough_samples_is_refused(prepared, tmp_path):
    run = new_run(prepared, tmp_path)
    assert "analysis.zarr: has 0 training samples" in refused("train", "--run", str(run), "-o", "forcings.past_states=200")
    # 96 states of the training split, each sample with 93 of them: what is outside of a fold shares states with it.
    options = ("-o", "forcings.past_states=91", "-o", "moments.folds=2")
    assert "moments.folds 2: a network would have 0 training samples" in refused("train", "--run", str(run), *options)


def test_more_folds_than_samples_are_refused(prepared, tmp_path):
    """Most of the networks would have nothing to predict."""
    run = new_run(prepared, tmp_path)
    line = refused("train", "--recipe", str(tmp_path / "tiny.yaml"), "--run", str(run), "-o", "moments.folds=1000")
    assert "moments.folds 1000: there are only 94 training samples" in line
    assert not (run / "moments").exists()
    assert [path.name for path in run.iterdir()] == ["analysis.zarr"]


@pytest.mark.slow
def test_variants_of_a_study_share_their_initial_times(prepared, tmp_path):
    run = new_run(prepared, tmp_path)
    recipe = load_recipe(prepared / "tiny.yaml").changed(study__variants={"long": {"forcings.past_states": 3}})
    changes = {"seeds": [0], "priors": ["warm"], "ablations": [], "nfe": [2], "rollout_nfe": [2], "members": 3, "leads": [6, 12]}
    wsdcast.study_nfe(recipe, run, **changes, starts=50, rollout_starts=50)
    files = [sorted((run / f"study/{name}-0").glob("one-step-midpoint-*.nc")) for name in ("warm", "long")]
    times = [xr.load_dataset(file)["time"].values for (file,) in files]
    np.testing.assert_array_equal(*times)
    record = open_analysis(run / "analysis.zarr", past_states=3)
    np.testing.assert_array_equal(times[0], record.times[record.now("test")])
