"""Runs whose networks make one or few evaluations: what is trained, what samples, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from commands import refused
from conftest import new_run
from runs_of_objectives import SMALL, TUNED, opened, weights
from test_path_runs import run_with

import wsdcast
from wsdcast.nets.unet import UNet
from wsdcast.runs.artefact import is_current, make_stamp
from wsdcast.runs.errors import UserError
from wsdcast.warmstart.few_steps import distillation_loss, shortcut_loss
from wsdcast.weather.networks import generator_model
from wsdcast.weather.objective_sections import FewSteps
from wsdcast.weather.recipe import Recipe
from wsdcast.weather.samplers import few_sampler, sampler_of
from wsdcast.weather.samples import samples_of
from wsdcast.weather.stages import train as train_stage
from wsdcast.weather.training import few_steps

pytestmark = pytest.mark.usefixtures("without_animation")


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
                x = x + networks.few[count](inputs, one * step / count, one, *length) / count
            sampled = sampler_of(networks, recipe.rollout.model_copy(update={"nfe": count}))(context, noise)
            torch.testing.assert_close(sampled, prior.denormalise(x))
        for nfe in (2, 10) if objective == "distil" else (10,):
            settings = recipe.rollout.model_copy(update={"nfe": nfe})
            of_generator = sampler_of(replace(networks, few={}), settings)(context, noise)
            assert torch.equal(sampler_of(networks, settings)(context, noise), of_generator)


@pytest.mark.parametrize(("objective", "share", "validated"), [("distil", 0.0, 3), ("shortcut", 0.5, 1)])
def test_a_student_has_no_dropout_and_its_own_number_of_evaluations(prepared, tmp_path, monkeypatch, objective, share, validated):
    networks, numbers = [], []

    def recorded(*inputs: object, **options: bool) -> torch.nn.Module:
        networks.append(generator_model(*inputs, **options))
        return networks[-1]

    monkeypatch.setattr(few_steps, "generator_model", recorded)
    monkeypatch.setattr(few_steps, "few_sampler", lambda *inputs: numbers.append(inputs[-1]) or few_sampler(*inputs))
    evaluations: dict[str, list[int]] = {"student": [], "teacher": []}
    priors: list[torch.Tensor] = []

    def counted(student: UNet, teacher: UNet, *arguments: Any) -> torch.Tensor:
        priors.extend(arguments[0].mean)
        for name, network in {"student": student, "teacher": teacher}.items():
            evaluations[name].append(0)
            network.register_forward_hook(lambda *_, name=name: evaluations[name].append(evaluations[name].pop() + 1))
        return distillation_loss(student, teacher, *arguments)

    monkeypatch.setattr(few_steps, "distillation_loss", counted)
    changes = SMALL | {
        "few_steps__steps": 1,
        "few_steps__nfe": 3,
        "few_steps__teacher_nfe": 4,
        "generator__dropout": 0.5,
        "moments__dropout": 0.5,
    }
    _, run = run_with(prepared, tmp_path, generator__objective=objective, **changes)
    assert {module.p for module in networks[0].modules() if isinstance(module, torch.nn.Dropout)} == {share}
    assert set(numbers) == {validated}
    assert evaluations == ({"student": [3], "teacher": [4]} if objective == "distil" else {"student": [], "teacher": []})
    predicted = torch.from_numpy(np.load(run / "predictions/moments.npy"))[:, 0]
    assert len(priors) == 4 * (objective == "distil")
    for mean in priors:  # it is the predicted one, in which dropout had a part
        assert (predicted == mean).flatten(1).all(dim=1).any()


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


def test_a_training_of_few_evaluations_that_was_stopped_goes_on_to_the_same_bits(prepared, tmp_path, monkeypatch):
    changes = {"generator__objective": "shortcut", "few_steps__steps": 6, "training__validate_every": 2, **TUNED}
    recipe, whole = run_with(prepared, tmp_path / "whole", **changes)
    run = new_run(prepared, tmp_path / "stopped")
    for name in ("moments", "predictions", "generator"):
        shutil.copytree(whole / name, run / name)
    torch.manual_seed(5)  # the few steps depend on their own seed alone
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
    assert not (run / "few-steps").exists()
    summary = wsdcast.train(recipe, run)
    seconds = [json.loads((run / name / "stamp.json").read_text())["seconds"] for name in recipe.networks]
    assert summary.facts["fine-tuned share"] == f"{seconds[-1] / sum(seconds):.0%} of the time of training so far"
    for name in ("few-steps", "fine-tuned"):
        expected = weights(whole, name)
        assert all(torch.equal(value, expected[key]) for key, value in weights(run, name).items())


def test_small_batches_have_a_sample_for_steps_too(prepared, tmp_path, monkeypatch):
    """A rounded share of 0.875 is all of a batch of up to four samples, so no step was trained there."""
    assert [FewSteps().flow_samples(batch) for batch in (1, 2, 3, 4, 5, 8, 12, 16)] == [1, 1, 2, 3, 4, 7, 10, 14]
    chosen: list[int] = []
    lengths: set[float] = set()
    slower: list[bool] = []

    def recorded(network: UNet, teacher: UNet, *arguments: Any) -> torch.Tensor:
        chosen.append(arguments[-1])
        lengths.update(arguments[-2].d.tolist())
        weights = [torch.cat([values.detach().flatten() for values in of.parameters()]) for of in (network, teacher)]
        slower.append(not torch.equal(*weights))
        return shortcut_loss(network, teacher, *arguments)

    monkeypatch.setattr(few_steps, "shortcut_loss", recorded)
    run_with(prepared, tmp_path, generator__objective="shortcut", **SMALL | {"few_steps__batch": 4, "few_steps__flow_share": 0.875})
    assert chosen == [3, 3, 3]
    assert lengths <= {1, 1 / 2, 1 / 4, 1 / 8}
    assert slower == [False, True, True]  # the teacher has the averaged weights


@pytest.mark.parametrize("objective", ["shortcut", "mean-flow"])
def test_a_record_with_too_few_samples_for_a_batch_is_refused_before_training(prepared, tmp_path, monkeypatch, objective):
    monkeypatch.setattr(train_stage, "samples_of", lambda *arguments: [of.subset(torch.arange(3)) for of in samples_of(*arguments)])
    with pytest.raises(UserError, match=f"objective {objective} needs 4 training samples for each process, and there are 3 for 1"):
        run_with(prepared, tmp_path, generator__objective=objective)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["analysis.zarr"]


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


def test_networks_of_another_objective_do_not_stay(prepared, tmp_path):
    recipe, run = run_with(prepared, tmp_path, generator__objective="distil", **SMALL, **TUNED)
    flow = recipe.changed(generator__objective="flow", fine_tune__steps=0)
    with pytest.raises(UserError, match=r"few-steps belongs to another recipe; remove it with --overwrite, or work in a copy"):
        wsdcast.train(flow, run)
    wsdcast.train(flow, run, overwrite=True)
    assert not (run / "few-steps").exists()
    assert not (run / "fine-tuned").exists()
    assert wsdcast.rollout(run=run, nfe=2).facts["solver"] == "midpoint, uniform times"
