"""Stochastic solvers on images: whose noise a step has, what samples depend on, memory, and what is refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from commands import refused
from image_runs import RECIPE, copy_of, drawn_by

from wsdcast.images import memory
from wsdcast.images.contexts import fixed_contexts
from wsdcast.images.data.store import open_images
from wsdcast.images.drawing import as_images, draw_samples, same_noise_samples, sampler_of
from wsdcast.images.networks import trained
from wsdcast.images.stages.sample import _process, sample
from wsdcast.images.stages.train import train
from wsdcast.runs.errors import UserError
from wsdcast.warmstart import stochastic
from wsdcast.warmstart.flow import sample as algorithm_2
from wsdcast.warmstart.stochastic import sde2
from wsdcast.warmstart.times import uniform


@pytest.fixture(scope="module")
def images(inpainted):
    return open_images(inpainted / "run/images")


@pytest.fixture(scope="module")
def networks(inpainted, images):
    return trained(RECIPE, inpainted / "run", images)


def test_a_draw_depends_on_seed_image_sample_and_number_alone(images):
    contexts = fixed_contexts(images, "test", RECIPE.task, seed=3)
    noise = contexts.noise(torch.arange(4), 3, 5)
    assert noise.shape == (4, 3, 5 * 3, 16, 16)
    assert torch.equal(contexts.noise(torch.tensor([2, 1]), 2, 2), noise[[2, 1], :2, :6])
    # The first draw is that of any other solver.
    assert torch.equal(contexts.noise(torch.arange(4), 3), noise[:, :, :3])
    draws = noise[0, 0].reshape(5, -1)
    assert torch.corrcoef(draws).fill_diagonal_(0).abs().max() < 0.15
    torch.testing.assert_close(draws.std(dim=1), torch.ones(5), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", stochastic.SOLVERS)
def test_samples_do_not_depend_on_batches_or_threads(images, networks, name):
    contexts, few = (fixed_contexts(images, "test", RECIPE.task, count=count) for count in (20, 7))
    sampler = sampler_of(networks, drawn_by(name, 3), 1.0)
    drawn = np.stack(list(draw_samples(contexts, sampler, 3, noise_count=3)))
    np.testing.assert_array_equal(np.stack(list(draw_samples(few, sampler, 1, noise_count=3))), drawn[:7, :1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        np.testing.assert_array_equal(np.stack(list(draw_samples(contexts, sampler, 3, noise_count=3))), drawn)
    finally:
        torch.set_num_threads(before)


def test_a_sample_is_what_algorithm_2_makes_with_the_noise_of_each_step(inpainted, images, networks, tmp_path):
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator")
    summary = sample(run=run, solver="sde2", nfe=4)
    assert "4 a sample, sde2" in summary.facts["evaluations"]
    samples = np.load(run / "samples/samples.npy")
    contexts, some = fixed_contexts(images, "test", RECIPE.task, count=6), torch.tensor([4])
    context, noise = contexts.context(some), contexts.noise(some, 3, 4)[:, 2]
    with torch.inference_mode():
        x = algorithm_2(networks.generator, networks.prior_of, context, noise, uniform(4), sde2)
    assert np.abs(as_images(x)[0].astype(int) - samples[4, 2]).max() <= 1
    # So are the pictures.
    settings = RECIPE.sample.model_copy(update={"solver": "sde2", "nfe": 4})
    _, states, _ = _process(networks, context, noise, settings, 1.0)
    np.testing.assert_allclose(states[-1], x[0].numpy(), atol=1e-4)
    few = fixed_contexts(images, "test", RECIPE.task, count=3)
    shown = same_noise_samples(few, networks, settings, (2, 4), 1.0)
    assert np.abs(shown[4].astype(int) - samples[:3, 0]).max() <= 1


@pytest.mark.parametrize("solver", ["midpoint", "sde1"])
def test_on_times_that_begin_later_the_start_is_the_noise_of_the_path_there(images, networks, solver):
    settings = RECIPE.sample.model_copy(update={"solver": solver, "nfe": 4, "grid_in_time": "sgmse"})
    contexts, some = fixed_contexts(images, "test", RECIPE.task, count=2), torch.arange(1)
    context, noise = contexts.context(some), contexts.noise(some, 1, settings.noise_count)[0]
    normalised, states, times = _process(networks, context, noise, settings, 1.0)
    assert times[0] == pytest.approx(0.3645, abs=1e-4)
    np.testing.assert_allclose(normalised[0], (1 - times[0]) * noise[0, :3].numpy(), rtol=1e-6)
    with torch.inference_mode():
        drawn = sampler_of(networks, settings, 1.0)(context, noise)
    np.testing.assert_allclose(states[-1], drawn[0].numpy(), atol=1e-4)


def test_the_memory_of_the_noise_is_counted(images, monkeypatch):
    needed = []
    monkeypatch.setattr(memory, "require_memory", lambda size, purpose: needed.append(size))
    require = partial(memory.require_sampling, RECIPE, images, 5)
    require()
    require(noise_count=11)
    of_field = 4 * 3 * 16 * 16
    group = 50 * torch.get_num_threads()  # of five samples each, one after the other
    assert needed[1] - needed[0] == 2 * 10 * of_field * group


def test_a_path_without_noise_is_refused(inpainted, images, tmp_path):
    run = copy_of(inpainted, tmp_path / "run", "moments")
    train(RECIPE.changed(generator__path="blur", generator__steps=1), run)
    line = refused("inpaint", "sample", "--run", str(run), "--solver", "sde1")
    assert "solver sde1: works on the straight path only, not on the path blur" in line
    with pytest.raises(UserError, match="nfe 0: the solver sde2 cannot make this number of evaluations"):
        sampler_of(trained(RECIPE, inpainted / "run", images), drawn_by("sde2", 0), 1.0)
