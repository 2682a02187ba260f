"""Tests that no training step of any recipe makes the host wait for a GPU. They need no GPU.

Recipe, networks, batches and losses are those of the commands. The steps are taken on torch's ``meta`` device, which has shapes but no
values and refuses to mix devices, and on the CPU in bfloat16, which ``meta`` does not support.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from no_waiting import NoWaiting
from torch import Tensor

from wsdcast.bench.synthetic import record_of
from wsdcast.images import classifier
from wsdcast.images.data import store as image_store
from wsdcast.images.recipe import ImageRecipe
from wsdcast.images.stages import train as image_training
from wsdcast.runs import devices, recipes
from wsdcast.runs.summary import Summary
from wsdcast.training.fitting import Fitted, History
from wsdcast.training.loop import Plan, fit, read
from wsdcast.training.state import Training
from wsdcast.warmstart.prior import PRIOR_MAKERS, frozen_prior
from wsdcast.weather import forcings, samples
from wsdcast.weather.forecast import running
from wsdcast.weather.networks import moments_model
from wsdcast.weather.priors import fixed_or_given
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.trained import assembled
from wsdcast.weather.training import few_steps, fine_tuning, generator, moments
from wsdcast.weather.training.job import Priors, TrainingJob

META, CPU = torch.device("meta"), torch.device("cpu")
DROPOUT = {"moments__dropout": 0.1, "generator__dropout": 0.1}
ONE_LEVEL = {"moments__widths": (8,), "generator__widths": (8,)}
"""The networks of all trainings, as each operation takes long under the watch, except where a training names others."""
TWO_LEVELS = {"moments__widths": (8, 8), "generator__widths": (8, 8)}
RECOMPUTED = {"generator__attention": (1,), "generator__activation_checkpointing": True}
DISTIL = {"generator__objective": "distil", "few_steps__begin": "scratch"}
INPUTS = {
    "data__forcings": ("mean_sea_level_pressure",),
    "forcings__past_states": 2,
    "forcings__solar_time": True,
    "forcings__latitude_longitude": True,
    "forcings__static": ("land_sea_mask",),
}
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "moments": ("moments", DROPOUT | TWO_LEVELS),
    "moments, fixed std": ("moments", {"moments__std": 0.5}),
    "flow": ("generator", DROPOUT),
    "flow, inputs of all kinds": ("generator", INPUTS),
    "flow, recomputed activations": ("generator", TWO_LEVELS | RECOMPUTED),
    "flow, climatology": ("generator", {"generator__prior": "climatology"}),
    "flow, persistence": ("generator", {"generator__prior": "persistence"}),
    "flow, blurred": ("generator", {"generator__path": "blur-noise"}),
    "flow, weighted": ("generator", {"training__weights": {"10m_u_component_of_wind": 2.0}}),
    "joint": ("generator", {"generator__moments": "joint"}),
    "end-to-end": ("generator", {"generator__moments": "end-to-end"}),
    "distil": ("few_steps", DISTIL),
    "distil, blurred": ("few_steps", {**DISTIL, "generator__path": "blur-noise"}),
    "distil, joint": ("few_steps", {**DISTIL, "generator__moments": "joint"}),
    "shortcut": ("few_steps", {"generator__objective": "shortcut", "few_steps__begin": "scratch"}),
    "crps": ("generator", {"generator__objective": "crps"}),
    "crps, noise as fields": ("generator", {"generator__objective": "crps", "crps__noise": "fields"}),
    "fine-tuned flow": ("fine_tuning", {"fine_tune__steps": 4, "fine_tune__rollout": (1, 2)}),
    "fine-tuned on all steps": ("fine_tuning", {"fine_tune__steps": 4, "fine_tune__rollout": (3,), "fine_tune__gradients": "all"}),
    "fine-tuned distilled network": ("fine_tuning", {**DISTIL, "fine_tune__steps": 4, "fine_tune__rollout": (2,)}),
}
"""Which network is trained, and what the recipe changes. ``meta`` cannot copy the flow's weights, so networks begin from random ones."""

READ_TIMES = [name for name in TRAININGS if name.startswith(("distil", "fine-tuned"))]
"""Trainings whose solver reads flow times. They are on the host, also if the networks are on a GPU."""


class OnMeta(torch.Generator):
    """A random generator whose numbers are drawn on ``meta``, for which torch has none."""

    device = META


class Walked(Exception):  # noqa: N818
    """The steps were taken."""


@contextmanager
def walking(device: torch.device) -> Iterator[pytest.MonkeyPatch]:
    """Let each training take two steps on the device under the watch, instead of all, and then raise :class:`Walked`."""

    def walk(training: Training, plan: Plan, *_: Any) -> None:
        take_two(training, plan, device)

    def untrained(recipe, directory, record, given, after):
        return assembled(recipe, record, lambda network, _: network.to(device).eval().requires_grad_(False), given, after)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "device", lambda: device)
        patch.setattr(moments, "fitted", walk)
        patch.setattr(TrainingJob, "train_and_report", lambda job, artefact, training, plan: walk(training, plan))
        patch.setattr(TrainingJob, "is_current", lambda *_: False)
        patch.setattr(moments, "make_stamp", lambda *_: {"hash": "", "inputs": {}})
        for module in (few_steps, fine_tuning):
            patch.setattr(module, "trained", untrained)
        if device == META:
            for module in (generator, few_steps, fine_tuning):
                patch.setattr(module, "random_of", lambda *_: OnMeta())
            for module in (samples, forcings, image_store):
                patch.setattr(module, "sent", sent)
        yield patch


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Stand for the copy through pinned memory, for which the host does not wait."""
    return tensor if tensor.device == device else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def take_two(training: Training, plan: Plan, device: torch.device) -> None:
    """Take two steps. On the CPU also check that their numbers are finite and that weights change."""
    if device == META:
        training.optimiser = torch.optim.SGD(training.model.parameters())  # the fused one of the trainings does not support meta
    before = [parameter.clone() for parameter in training.model.parameters()]
    steps = fit(training, plan)
    with NoWaiting(device.type):
        taken = list(islice(steps, 2))
    assert {number.device for step in taken for number in (step.loss, step.gradient)} == {device}
    if device == CPU:
        assert [step.number for step in read(taken)] == [0, 1]
        assert any(not torch.equal(*pair) for pair in zip(before, training.model.parameters(), strict=True))
    raise Walked


def begin(which: str, changes: dict[str, Any], directory: Path, device: torch.device, *, on_device: bool = False) -> None:
    """Begin a training. The record is on the host, as one that does not fit on a GPU, unless ``on_device``."""
    (directory / "r.yaml").write_text(TINY)
    recipe = load_recipe(directory / "r.yaml").changed(**(ONE_LEVEL | changes))
    record = record_of(recipe, 60)
    parts = samples.samples_of(record, forcings.forcings_of(record, recipe.forcings, device), "train", "validation")
    if on_device:
        parts = [replace(part, packed=part.packed.to(device)) for part in parts]
    job = TrainingJob(recipe, directory, record, *parts)
    make_prior, from_context = PRIOR_MAKERS[recipe.generator.prior], None
    if recipe.generator.reads_frozen_moments:
        from_context = frozen_prior(moments_model(recipe.moments, job.sizes).to(device), make_prior)
    elif not recipe.generator.needs_moments_network:
        from_context = frozen_prior(fixed_or_given(recipe, record, None), make_prior)
    priors = Priors(lambda _, context: from_context(context), from_context) if from_context else None
    trainings = {
        "moments": lambda: moments.train_moments(job),
        "generator": lambda: generator.train_generator(job, priors),
        "few_steps": lambda: few_steps.train_few_steps(job, priors),
        "fine_tuning": lambda: fine_tuning.fine_tune(job),
    }
    with pytest.raises(Walked):
        trainings[which]()


@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_waits(name, tmp_path, monkeypatch):
    """Nor does it compile kernels, for which these recipes do not ask."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network, **_: pytest.fail(f"{type(network).__name__} is compiled"))
    with walking(META):
        begin(*TRAININGS[name], tmp_path, META)


def test_no_step_waits_if_the_record_is_on_the_device(tmp_path):
    with walking(META):
        begin("generator", INPUTS, tmp_path, META, on_device=True)


@pytest.mark.parametrize("name", [name for name in TRAININGS if name not in READ_TIMES])
def test_no_step_waits_in_bfloat16(name, tmp_path):
    which, changes = TRAININGS[name]
    halved = {f"{section}__precision": "bf16" for section in ("moments", "generator", "few_steps")}
    with walking(CPU):
        begin(which, changes | halved, tmp_path, CPU)


def test_derivatives_in_forward_mode_wait(tmp_path):
    """In them torch copies every Python number to the device. If this test fails with a new release, mean-flow belongs to TRAININGS."""
    with walking(META), pytest.raises(AssertionError, match="to between cpu and meta"):
        begin("few_steps", {"generator__objective": "mean-flow", "few_steps__begin": "scratch"}, tmp_path, META)


FROZEN = {
    "distil": ["UNet"],
    "distil, joint": ["UNet", "MomentsModel"],
    "fine-tuned flow": ["MomentsModel"],
    "shortcut": [],
}
"""The frozen networks that a step of a training evaluates."""


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_networks_have_compiled_kernels_where_the_recipe_asks_for_them(name, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network, **_: compiled.append(network))
    which, changes = TRAININGS[name]
    with walking(META):
        begin(which, changes | {f"{section}__compile": True for section in ("few_steps", "fine_tune")}, tmp_path, META)
    assert [type(network).__name__ for network in compiled] == FROZEN[name]
    assert not any(parameter.requires_grad for network in compiled for parameter in network.parameters())


@pytest.mark.parametrize(("network", "prior"), [("moments", "warm"), ("generator", "warm"), ("generator", "climatology")])
def test_no_step_waits_on_images(network, prior, inpainted, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network, **_: compiled.append(type(network).__name__))

    def walk(recipe, path, training, plan, *_):
        if path.name == network:
            take_two(training, plan, META)
        return Fitted(training.model, History([[0.0] * 5]), plan.settings, 1)

    with walking(META) as patch:
        patch.setattr(image_training, "fit_and_write", walk)
        patch.setattr(image_training, "_seed", lambda *_: OnMeta())
        patch.setattr(image_training, "is_current", lambda *_: False)
        patch.setattr(image_training, "load_network", lambda network, _: network.to(META).eval())
        recipe = recipes.load(inpainted / "tiny.yaml", ImageRecipe).changed(generator__compile=True)
        with pytest.raises(Walked):
            image_training.train(recipe, inpainted / "run", prior=prior, overwrite=True)
    assert compiled == ["ImageMoments"] * (network == "generator" and prior == "warm")  # each batch of the generator has new moments


def test_no_step_of_the_classifier_of_images_waits(inpainted, tmp_path):
    recipe, images = recipes.load(inpainted / "tiny.yaml", ImageRecipe), image_store.open_images(inpainted / "run/images")
    with walking(META) as patch:
        patch.setattr(classifier, "fit_and_write", lambda recipe, path, training, plan, *_: take_two(training, plan, META))
        patch.setattr(classifier, "sent", sent)
        with pytest.raises(Walked):
            classifier.extractors(recipe, tmp_path, images, None, Summary("inpaint score"), False)


@pytest.mark.parametrize("prescribed", [False, True])
def test_no_lead_time_of_a_rollout_waits(prescribed, monkeypatch):
    """The host waits for a state only when it has begun the next one. Both are left out here, with the copies of the initial states."""
    recipe = load_recipe("planet").changed(data__grid="16x8", **INPUTS)
    record = record_of(recipe, 60)
    fields = forcings.forcings_of(record, recipe.forcings, META)
    for module in (running, forcings):
        monkeypatch.setattr(module, "sent", sent)
    monkeypatch.setattr(devices, "device", lambda: META)
    monkeypatch.setattr(running, "_finished", lambda copy, _: np.zeros(copy.shape, np.float32))
    sampler, starts = lambda context, noise: context[:, :2] + noise, np.array([4, 9])
    leads = running.ensembles(record, fields, sampler, starts, members=3, steps=4, seed=0, prescribed=prescribed)
    next(leads)
    with NoWaiting("meta"):
        assert [lead.shape for lead in leads] == [(2, 3, 2, 8, 16)] * 3


@pytest.mark.parametrize("wait", [Tensor.item, bool, Tensor.tolist, torch.nonzero, lambda x: x[x > 0], lambda x: x.to("cpu")])
def test_the_watch_sees_all_ways_to_wait(wait):
    x = torch.ones((), device="meta")
    with NoWaiting("meta"), pytest.raises((AssertionError, NotImplementedError)):
        wait(x)
    with NoWaiting("meta"), pytest.raises(AssertionError, match="between cpu and meta"):
        torch.ones(3).to("meta")
