"""Runs whose networks make one or few evaluations: what is trained, what samples, what is kept, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from conftest import new_run
from safetensors.torch import load_file
from small_training import WIND
from test_path_runs import run_with

import wsdcast
from wsdcast.data.store.analysis import open_analysis
from wsdcast.nets.weights import operations
from wsdcast.runs.artefact import is_current, make_stamp
from wsdcast.runs.errors import UserError
from wsdcast.sampling.samplers import Sampler
from wsdcast.study.weather_variants import generator_operations, moments_cost, variant_of
from wsdcast.warmstart.crps import MEMBERS, NOISE_NUMBERS
from wsdcast.warmstart.few_steps import shortcut_loss
from wsdcast.weather.climate import zonal_amplitude
from wsdcast.weather.model_file import read_model
from wsdcast.weather.networks import generator_model, moments_model
from wsdcast.weather.objective_sections import FewSteps
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import few_sampler, sampler_of
from wsdcast.weather.samples import Samples, samples_of
from wsdcast.weather.stages import train as train_stage
from wsdcast.weather.trained import FewEvaluations, Trained, assembled, trained
from wsdcast.weather.training import few_steps, fine_tuning
from wsdcast.weather.training.rollouts import rollout_batches_of, rollout_loss

SMALL = {"few_steps__steps": 3, "few_steps__batch": 4, "few_steps__flow_share": 0.75}
TUNED = {"fine_tune__steps": 3, "fine_tune__batch": 2, "fine_tune__rollout": [1, 2]}


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / name / "weights.safetensors")


def opened(recipe: Recipe, run: Path) -> tuple[Trained, Samples, torch.Tensor, torch.Tensor]:
    """Return the networks, the samples of the training split, a batch of contexts, and noise."""
    record = open_analysis(run / "analysis.zarr")
    networks = trained(recipe, run, record)
    (samples,) = samples_of(record, networks.forcings, "train")
    return networks, samples, samples.context(torch.arange(3)), torch.randn(3, 2, 8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def flow(prepared, tmp_path_factory) -> tuple[Recipe, Path]:
    """Return a recipe of the flow, and its run directory."""
    return run_with(prepared, tmp_path_factory.mktemp("flow"))


@pytest.mark.parametrize("objective", ["distil", "shortcut", "mean-flow"])
def test_few_evaluations_are_those_of_the_second_network_and_many_those_of_the_flow(prepared, tmp_path, flow, objective):
    recipe, run = run_with(prepared, tmp_path, generator__objective=objective, **SMALL)
    of_flow = weights(flow[1], "generator")
    assert all(torch.equal(value, of_flow[name]) for name, value in weights(run, "generator").items())
    few = weights(run, "few-steps")
    assert any(not torch.equal(few[name], value) for name, value in of_flow.items())
    assert ("embeddings.2.layers.2.weight" in few) == (objective != "distil")
    networks, _, context, noise = opened(recipe, run)
    numbers = [1] if objective == "distil" else [1, 2, 4, 8]
    assert list(networks.few) == numbers
    with torch.inference_mode():
        prior, one = networks.prior_of(context), torch.ones(1)
        for count in numbers[:2]:
            x = noise
            for step in range(count):
                inputs = torch.cat([x, context, prior.features()], dim=1)
                length = () if objective == "distil" else (one / count,)
                x = x + networks.few[count].network(inputs, one * step / count, one, *length) / count
            sampled = sampler_of(networks, recipe.rollout.model_copy(update={"nfe": count}))(context, noise)
            torch.testing.assert_close(sampled, prior.denormalise(x))
        for nfe in (2, 10) if objective == "distil" else (10,):
            settings = recipe.rollout.model_copy(update={"nfe": nfe})
            of_generator = sampler_of(replace(networks, few={}), settings)(context, noise)
            assert torch.equal(sampler_of(networks, settings)(context, noise), of_generator)


@pytest.mark.parametrize(("objective", "share"), [("distil", 0.0), ("shortcut", 0.5)])
def test_a_student_has_no_dropout(prepared, tmp_path, monkeypatch, objective, share):
    networks = []

    def recorded(*inputs: object, **options: bool) -> torch.nn.Module:
        networks.append(generator_model(*inputs, **options))
        return networks[-1]

    monkeypatch.setattr(few_steps, "generator_model", recorded)
    run_with(prepared, tmp_path, generator__objective=objective, generator__dropout=0.5, **SMALL)
    assert {module.p for module in networks[0].modules() if isinstance(module, torch.nn.Dropout)} == {share}


@pytest.mark.parametrize("objective", ["distil", "shortcut", "crps"])
def test_fine_tuning_has_no_dropout(prepared, tmp_path, monkeypatch, objective):
    """Members with masks of their own would differ more in training than in a forecast."""
    networks = []

    def recorded(trained: Trained, few: FewEvaluations, nfe: int) -> Sampler:
        networks.append(few.network)
        return few_sampler(trained, few, nfe)

    monkeypatch.setattr(fine_tuning, "few_sampler", recorded)
    run_with(prepared, tmp_path, generator__objective=objective, generator__dropout=0.5, **SMALL, **TUNED)
    in_training = {module.p for network in networks[:1] for module in network.modules() if isinstance(module, torch.nn.Dropout)}
    assert in_training == {0.0}


def test_the_forecast_of_the_flow_does_not_change(prepared, tmp_path, flow):
    wsdcast.rollout(run=flow[1], nfe=4, days=0.5, starts=1, overwrite=True)
    _, run = run_with(prepared, tmp_path, generator__objective="distil", **SMALL)
    forecasts = {}
    for nfe in (4, 1):
        summary = wsdcast.rollout(run=run, nfe=nfe, days=0.5, starts=1, overwrite=True)
        with xr.open_zarr(run / "forecast.zarr") as forecast:
            forecasts[nfe] = forecast["10m_u_component_of_wind"].values
    assert summary.facts["solver"] == "none; the network of the objective distil makes 1 evaluation"
    with xr.open_zarr(flow[1] / "forecast.zarr") as forecast:
        assert np.array_equal(forecast["10m_u_component_of_wind"].values, forecasts[4])
    assert np.abs(forecasts[4] - forecasts[1]).max() > 0.1
    assert "warmth 0.5: the network for nfe 1 is trained at full warmth only" in refused(
        "rollout", "--run", str(run), "--nfe", "1", "--warmth", "0.5"
    )


def test_the_flow_is_not_trained_again_for_another_objective(prepared, tmp_path, flow):
    recipe, run = run_with(prepared, tmp_path)
    written = (run / "generator/stamp.json").stat().st_mtime_ns
    summary = wsdcast.train(recipe.changed(generator__objective="distil", **SMALL), run)
    assert (run / "generator/stamp.json").stat().st_mtime_ns == written
    assert summary.facts["few-steps share"].endswith("% of the time of training so far")
    # A forecast belongs to all networks.
    changed = recipe.changed(generator__objective="distil", **SMALL)
    assert make_stamp(changed, run, "forecast.zarr")["inputs"] == json.loads((run / "few-steps/stamp.json").read_text())["id"]
    assert make_stamp(recipe, run, "forecast.zarr")["inputs"] == json.loads((run / "generator/stamp.json").read_text())["id"]


def test_a_refusal_names_a_key_that_the_network_depends_on(flow, tmp_path):
    """What is trained after the flow is no difference."""
    recipe = flow[0].changed(generator__objective="distil", fine_tune__steps=3)
    for artefact, change, words in (
        ("generator", {"generator__moments_weight": 2.0}, r"generator\.moments_weight: 1\.0 there, 2\.0 here"),
        ("fine-tuned", {"fine_tune__steps": 4}, r"fine_tune\.steps: 3 there, 4 here"),
    ):
        (tmp_path / artefact).mkdir()
        (tmp_path / artefact / "stamp.json").write_text(json.dumps(make_stamp(recipe, tmp_path, artefact)))
        with pytest.raises(UserError, match=words):
            is_current(recipe.changed(**change), tmp_path, artefact, False)


@pytest.mark.parametrize("prior", ["warm", "persistence"])
def test_a_generator_of_the_crps_makes_one_evaluation_around_its_prior(prepared, tmp_path, prior):
    recipe, run = run_with(prepared, tmp_path, generator__objective="crps", generator__prior=prior)
    networks, samples, context, noise = opened(recipe, run)
    with torch.inference_mode():
        gaussian = networks.prior_of(context)
        if prior == "persistence":
            torch.testing.assert_close(gaussian.mean, context[:, :2])
            # The statistics of the store also count the first pair of states, which has no state before it.
            first = samples.now[0]
            states = samples.states(torch.cat([first[None] - 1, samples.now, samples.now[-1:] + 1]))
            change = states[1:] - states[:-1]
            weight = torch.from_numpy(open_analysis(run / "analysis.zarr").grid.area_weights)[:, None]
            expected = (weight * change.double().square()).mean(dim=(0, 2, 3)).sqrt()
            torch.testing.assert_close(gaussian.std[0, :, 0, 0].double(), expected, rtol=1e-5, atol=0)
        inputs = torch.cat([context, gaussian.features()], dim=1)
        numbers = torch.stack([member.flatten()[:NOISE_NUMBERS] for member in noise])
        expected = gaussian.mean + gaussian.std * networks.generator(inputs, numbers)
        sampled = sampler_of(networks, recipe.rollout.model_copy(update={"nfe": 1}))(context, noise)
    torch.testing.assert_close(sampled, expected)
    line = refused("rollout", "--run", str(run), "--nfe", "4")
    assert "nfe 4: a generator of the objective crps makes one evaluation" in line
    wsdcast.rollout(run=run, nfe=1)
    wsdcast.score(run=run)


@pytest.mark.parametrize("objective", ["flow", "distil", "crps"])
def test_fine_tuning_trains_the_last_network_for_its_number_of_evaluations(prepared, tmp_path, objective):
    nfe = 2 if objective == "flow" else 1
    changes = SMALL | TUNED | {"fine_tune__nfe": nfe, "fine_tune__gradients": "all", "generator__objective": objective}
    recipe, run = run_with(prepared, tmp_path, **changes)
    before = weights(run, "few-steps" if objective == "distil" else "generator")
    tuned = weights(run, "fine-tuned")
    assert tuned.keys() == before.keys()
    changed = max((tuned[name] - value).abs().max().item() for name, value in before.items())
    assert 1e-6 < changed < 1e-2  # three steps at a learning rate of 1e-4
    networks, *_ = opened(recipe, run)
    for name, value in networks.few[nfe].network.state_dict().items():
        assert torch.equal(value, tuned[name])
    wsdcast.rollout(run=run, nfe=nfe)
    wsdcast.export_model(run, tmp_path / "model.wsd")
    file = read_model(tmp_path / "model.wsd")
    travelled = assembled(file.recipe, file.record, file.load)
    for name, value in travelled.few[nfe].network.state_dict().items():
        assert torch.equal(value, tuned[name])


def test_only_the_last_step_of_a_rollout_has_a_gradient_unless_all_have(flow):
    _, samples, *_ = opened(*flow)
    random = torch.Generator().manual_seed(0)
    batch = rollout_batches_of(samples.longer(3), lambda: 3, random)(torch.arange(2), slice(None))
    factor = torch.ones((), requires_grad=True)
    states: list[torch.Tensor] = []

    def sampler(context: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        states.append(factor * context[:, :2] + noise)
        return states[-1]

    def loss(members: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return (members - truth).mean()

    of_last = rollout_loss(sampler, batch, loss, "last")
    (gradient,) = torch.autograd.grad(of_last, factor)
    # The last state is factor * (the state before) + noise, and the state before is a constant.
    torch.testing.assert_close(gradient, states[1].mean())
    truth = torch.stack(batch.truth)
    torch.testing.assert_close(of_last, states[2].unflatten(0, (MEMBERS, -1)).mean() - truth[2].mean())
    states.clear()
    of_all = rollout_loss(sampler, batch, loss, "all")
    torch.testing.assert_close(of_all, torch.stack(states).mean() - truth.mean())
    (gradient,) = torch.autograd.grad(of_all, factor)
    start, noise = batch.states[0].mean(), batch.noise.mean(dim=(1, 2, 3, 4, 5))
    expected = (start + (2 * start + noise[0]) + (3 * start + 2 * noise[0] + noise[1])) / 3
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_rollouts_have_the_truth_of_each_step_and_no_gap(flow):
    _, samples, *_ = opened(*flow)
    gappy = samples.subset(torch.cat([torch.arange(5), torch.arange(6, 12)]))
    assert [(gappy.longer(3).now - samples.now[0]).tolist()] == [[0, 1, 2, 6, 7, 8, 9]]
    batch = rollout_batches_of(samples, lambda: 2, torch.Generator().manual_seed(0))(torch.tensor([4, 7]), slice(1, 2))
    now = samples.now[7] + torch.arange(-1, 3)
    states = samples.states(now)
    for ours, expected in zip((*batch.states[::-1], *batch.truth), states, strict=True):
        assert torch.equal(ours[0], expected)
    assert batch.noise.shape == (2, MEMBERS, 1, 2, 8, 16)


def test_a_training_of_few_evaluations_that_was_stopped_goes_on_to_the_same_bits(prepared, tmp_path, monkeypatch):
    changes = {"generator__objective": "shortcut", "few_steps__steps": 6, "training__validate_every": 2, **TUNED}
    recipe, whole = run_with(prepared, tmp_path / "whole", **changes)
    run = new_run(prepared, tmp_path / "stopped")
    calls: list[int] = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return shortcut_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(few_steps, "shortcut_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wsdcast.train(recipe, run)
    assert (run / "generator").exists()
    assert not (run / "few-steps").exists()
    wsdcast.train(recipe, run)
    for name in ("few-steps", "fine-tuned"):
        expected = weights(whole, name)
        assert all(torch.equal(value, expected[key]) for key, value in weights(run, name).items())


def test_small_batches_have_a_sample_for_steps_too(prepared, tmp_path, monkeypatch):
    """A rounded share of 0.875 is all of a batch of up to four samples, so no step was trained there."""
    assert [FewSteps().flow_samples(batch) for batch in (1, 2, 3, 4, 5, 8, 12, 16)] == [1, 1, 2, 3, 4, 7, 10, 14]
    chosen: list[int] = []

    def recorded(*arguments: Any) -> torch.Tensor:
        chosen.append(arguments[-1])
        return shortcut_loss(*arguments)

    monkeypatch.setattr(few_steps, "shortcut_loss", recorded)
    run_with(prepared, tmp_path, generator__objective="shortcut", **SMALL | {"few_steps__batch": 4, "few_steps__flow_share": 0.875})
    assert chosen == [3, 3, 3]


@pytest.mark.parametrize("objective", ["shortcut", "mean-flow"])
def test_a_record_with_too_few_samples_for_a_batch_is_refused_before_training(prepared, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(train_stage, "samples_of", lambda *arguments: [of.subset(torch.arange(3)) for of in samples_of(*arguments)])
    with pytest.raises(UserError, match=f"objective {objective} needs 4 training samples for each process, and there are 3 for 1"):
        run_with(prepared, tmp_path, generator__objective=objective)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["analysis.zarr"]


VARIANTS = {
    "distilled": {"generator.objective": "distil", "few_steps.steps": 20},
    "shortcut": {"generator.objective": "shortcut", "few_steps.steps": 20, "generator.prior": "standard"},
    "mean flow": {"generator.objective": "mean-flow", "few_steps.steps": 10},
    "crps": {"generator.objective": "crps"},
    "crps of fields": {"generator.objective": "crps", "crps.noise": "fields"},
    "tuned": {"generator.objective": "distil", "few_steps.steps": 10, "fine_tune.steps": 10, "fine_tune.rollout": [1, 3]},
}


@pytest.fixture(scope="module")
def studied(flow) -> Recipe:
    study = {"seeds": [0], "priors": ["warm"], "ablations": [], "nfe": [1, 2], "rollout_nfe": [1, 2], "members": 3, "starts": 3}
    study |= {"rollout_starts": 2, "leads": [6, 12], "variants": VARIANTS}
    recipe = flow[0].changed(moments__steps=40, generator__steps=100, rollout__nfe=4)
    return recipe.changed(**{f"study__{key}": value for key, value in study.items()})


def computed_cost(recipe: Recipe, record) -> float:
    """Return the floating-point operations of a whole training, written out."""
    generator = generator_model(recipe.generator, WIND, noise=recipe.crps.noise)
    few = generator_model(recipe.generator, WIND, few_steps=True)
    of_generator, of_few = (operations(net, *map(torch.zeros, net.input_shapes(8, 16))) for net in (generator, few))
    of_moments = operations(moments_model(recipe.moments, WIND), torch.zeros(1, 4, 8, 16)) * recipe.generator.needs_moments_network
    total = recipe.generator.steps * recipe.generator.batch * 3 * of_generator * (2 if recipe.generator.objective == "crps" else 1)
    total += (3 * recipe.moments.steps * recipe.moments.batch + record.now("train").size) * of_moments
    samples = recipe.few_steps.steps * recipe.few_steps.batch
    total += {"distil": 3 + 4, "shortcut": 3 + 2 / 8, "mean-flow": 5}.get(recipe.generator.objective, 0) * samples * of_few
    if recipe.fine_tune.steps:  # rollouts of 1 and of 3 steps, of two members; the last step of the network has gradients
        samples = recipe.fine_tune.steps * recipe.fine_tune.batch * 2
        total += samples * ((3 + 5) / 2 * of_few + (1 + 3) / 2 * of_moments)
    return total


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_cost_as_much_as_the_recipe(prepared, studied, name):
    record = open_analysis(prepared / "run/analysis.zarr")
    variant, _ = variant_of(studied, record, moments_cost(studied, record), name)
    rounded = 3 * generator_operations(variant, record) + 3 * generator_operations(studied, record)
    # The embedding of the step's length costs a few thousandths more.
    expected = computed_cost(studied, record)
    assert computed_cost(variant, record) == pytest.approx(expected, abs=rounded / 2 + 0.005 * expected)


@pytest.mark.slow
def test_a_study_compares_objectives(prepared, studied, tmp_path):
    run = new_run(prepared, tmp_path)
    quick = {name: changes | {"few_steps.steps": 2} for name, changes in VARIANTS.items()}
    quick["tuned"] |= {"fine_tune.steps": 2}
    recipe = studied.changed(generator__steps=30, moments__steps=4, fine_tune__batch=2, study__variants=quick)
    summary = wsdcast.study_nfe(recipe, run)
    with xr.open_dataset(run / "study.nc", decode_timedelta=True) as study:
        study.load()
    names, numbers, solvers = (study[name].values.tolist() for name in ("prior", "nfe", "solver"))
    rows = dict(zip(zip(names, numbers, strict=True), solvers, strict=True))
    # Names and numbers whose "euler" is no solver of the flow are told apart.
    others = ["shortcut 1, 2", "mean flow 1, 2", *(f"{name} 1" for name in VARIANTS if name not in ("shortcut", "mean flow"))]
    assert sorted(study.attrs["not_by_the_flow"].split("; ")) == sorted(others)
    assert study.attrs["not_by_the_flow"] in summary.facts["not by the flow"]
    assert f"whose solver is called euler: {study.attrs['not_by_the_flow']}." in (run / "study.html").read_text()
    assert rows == {
        ("warm", 2): "midpoint",
        ("moments alone", 0): "",
        **{(name, 1): "euler" for name in VARIANTS},
        ("shortcut", 2): "euler",
        ("mean flow", 2): "euler",
    }
    assert np.isfinite(study["crps_6h"]).all()
    one = study.isel(setting=study["nfe"].values == 1)
    assert one["crps"].sel(prediction_timedelta=np.timedelta64(12, "h")).notnull().all()


def test_what_objectives_do_not_allow_is_refused(prepared):
    run = str(prepared / "run")

    def line(*options: str) -> str:
        return refused("train", "--run", run, *(word for option in options for word in ("-o", option)))

    assert "needs the straight path, not blur-noise" in line("generator.objective=shortcut", "generator.path=blur-noise")
    assert "the objective crps has no flow" in line("generator.objective=crps", "generator.moments=joint")
    assert "the midpoint rule makes an even number" in line("few_steps.teacher_nfe=3")
    assert "few_steps.flow_share" in line("few_steps.flow_share=0.5")
    for objective in ("shortcut", "mean-flow"):
        of_three = line(f"generator.objective={objective}", "few_steps.batch=3")
        assert f"few_steps.batch 3: the objective {objective} needs 4 samples or more" in of_three
    for other in (
        "few_steps.precision=bf16",
        "few_steps.compile=true",
        "generator.attention=[1]",
        "generator.activation_checkpointing=true",
    ):
        assert "the objective mean-flow works without bf16, compile" in line("generator.objective=mean-flow", other)
    assert "fine_tune.nfe 4: the objective distil makes 1" in line("generator.objective=distil", "fine_tune.steps=3", "fine_tune.nfe=4")
    assert "moments.folds 2: not with generator.moments joint" in line("moments.folds=2", "generator.moments=joint")
    assert "cannot be trained through" in line("generator.prior=given", "fine_tune.steps=3")
    # This is found before the first training.
    assert "has no 2000 steps of 6 h without a gap" in line("fine_tune.steps=1", "fine_tune.rollout=[2000]")


def test_a_model_with_the_prior_persistence_travels(prepared, tmp_path):
    recipe, run = run_with(prepared, tmp_path, generator__prior="persistence")
    wsdcast.export_model(run, tmp_path / "model.wsd")
    file = read_model(tmp_path / "model.wsd")
    networks, _, context, _ = opened(recipe, run)
    for ours, expected in zip(assembled(file.recipe, file.record, file.load).moments(context), networks.moments(context), strict=True):
        assert torch.equal(ours, expected)


def test_networks_of_another_objective_do_not_stay(prepared, tmp_path):
    recipe, run = run_with(prepared, tmp_path, generator__objective="distil", **SMALL, **TUNED)
    flow = recipe.changed(generator__objective="flow", fine_tune__steps=0)
    with pytest.raises(UserError, match=r"few-steps belongs to another recipe; remove it with --overwrite, or work in a copy"):
        wsdcast.train(flow, run)
    wsdcast.train(flow, run, overwrite=True)
    assert not (run / "few-steps").exists()
    assert not (run / "fine-tuned").exists()
    assert wsdcast.rollout(run=run, nfe=2).facts["solver"] == "midpoint, uniform times"


def test_the_amplitude_of_waves_is_that_of_the_training_split(prepared, flow):
    _, samples, *_ = opened(*flow)
    record = open_analysis(prepared / "run/analysis.zarr")
    states = samples.states(torch.from_numpy(np.flatnonzero(record.part("train")))).double()
    waves = torch.fft.fft(states)[..., :9] / 4  # orthonormal on 16 points
    weights = torch.from_numpy(record.grid.area_weights)[:, None]
    expected = (weights * waves.abs().square()).mean(dim=(0, 2)).sqrt()
    torch.testing.assert_close(zonal_amplitude(record).double(), expected, rtol=1e-4, atol=1e-6)


def test_a_flow_trained_with_its_moments_can_be_fine_tuned(prepared, tmp_path):
    _, run = run_with(prepared, tmp_path, generator__moments="joint", **TUNED | {"fine_tune__nfe": 2})
    summary = wsdcast.rollout(run=run, nfe=2)
    assert summary.facts["solver"] == "midpoint, uniform times, with the fine-tuned generator"


def test_a_store_without_the_change_in_6_h_is_refused(prepared, tmp_path):
    """Stores of early versions lack it. The loss was NaN, with advice to lower the learning rate."""
    run = new_run(prepared, tmp_path)
    metadata = json.loads((run / "analysis.zarr/zarr.json").read_text())
    for statistics in metadata["attributes"]["normalisation"].values():
        del statistics["difference_std"]
    (run / "analysis.zarr/zarr.json").write_text(json.dumps(metadata))
    for option in ("generator.prior=persistence", "generator.objective=crps", "fine_tune.steps=1"):
        line = refused("train", "--run", str(run), "-o", option, "-o", "rollout.solver=auto", "-o", "rollout.nfe=1")
        assert "the store does not have the size of the change in 6 h of 10m_u_component_of_wind, 10m_v_component_of_wind; prepare" in line
        assert [path.name for path in run.iterdir()] == ["analysis.zarr"]
