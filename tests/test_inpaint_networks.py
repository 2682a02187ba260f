"""Contexts, networks, training and samples of images: what is drawn for whom, that a training goes on bit for bit, and Algorithm 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_errors import invoke
from test_inpaint import RECIPE, prepared

from wsdcast.images.contexts import fixed_contexts, training_pairs
from wsdcast.images.data.store import open_images
from wsdcast.images.drawing import as_images, batch_size, draw_samples, possible, same_noise_samples, sampler_of, warmth_for
from wsdcast.images.networks import fixed_moments_of, moments_model, trained
from wsdcast.images.recipe import ImageMomentsNetwork, Task
from wsdcast.images.stages.sample import _process, sample
from wsdcast.images.stages.train import train
from wsdcast.runs.names import STOCHASTIC
from wsdcast.sampling.batches import in_batches
from wsdcast.training import checkpoints
from wsdcast.warmstart.evaluations import NAMES, solver
from wsdcast.warmstart.flow import sample as algorithm_2
from wsdcast.warmstart.flow import velocity_of
from wsdcast.warmstart.moments import MINIMUM_STD, negative_log_likelihood
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.times import uniform


@pytest.fixture(scope="module")
def images(inpainted):
    return open_images(inpainted / "run/images")


@pytest.fixture(scope="module")
def networks(inpainted, images):
    return trained(RECIPE, inpainted / "run", images)


def test_samples_depend_on_seed_image_and_number_alone(inpainted, tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.images.stages.sample._pictures", lambda *arguments: {})
    few = np.load(inpainted / "run/samples/samples.npy")
    run = prepared(inpainted, tmp_path / "run", "moments", "generator")
    sample(run=run, contexts=9, samples=4)
    assert np.array_equal(np.load(run / "samples/samples.npy")[:6, :3], few)
    sample(run=run, seed=1, overwrite=True)
    other = np.load(run / "samples/samples.npy")
    assert np.mean(other != few) > 0.5
    sample(run=run, contexts=500, samples=2, overwrite=True)
    assert np.load(run / "samples/samples.npy").shape[0] == 20  # there are no more


@pytest.fixture
def evaluated(networks):
    """How many samples each evaluation of the generator had."""
    rows: list[int] = []
    hook = networks.generator.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    yield rows
    hook.remove()


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (3, 2), (26, 11), (50, 20), (60, 24)])
def test_samples_are_evaluated_in_full_batches(images, networks, evaluated, monkeypatch, samples, batches):
    """Of fifty, but for the last, whatever the number of samples; and no sample depends on that number."""
    contexts, sampler = fixed_contexts(images, "test", RECIPE.task), sampler_of(networks, "midpoint", "uniform", 2, 1.0)
    assert len(contexts) == 20
    drawn = np.stack(list(draw_samples(contexts, sampler, samples)))
    assert drawn.shape == (20, samples, 16, 16, 3)
    assert evaluated == [50] * 2 * batches
    few = np.stack(list(draw_samples(fixed_contexts(images, "test", RECIPE.task, count=7), sampler, 1)))
    np.testing.assert_array_equal(few, drawn[:7, :1])


@pytest.mark.parametrize("threads", [2, 3])
def test_samples_do_not_depend_on_the_number_of_threads(images, networks, threads):
    contexts = fixed_contexts(images, "test", RECIPE.task)

    def drawn() -> tuple[float, np.ndarray, np.ndarray]:
        warmth = warmth_for("calibrated", networks, contexts)
        sampler = sampler_of(networks, "midpoint", "uniform", 2, warmth)
        raw = in_batches(sampler, 13)(contexts.context(torch.arange(14)), contexts.noise(torch.arange(14), 1)[:, 0])
        return warmth, raw.numpy(), np.stack(list(draw_samples(contexts, sampler, 3)))

    expected = drawn()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for value, one in zip(drawn(), expected, strict=True):
            np.testing.assert_array_equal(value, one)
    finally:
        torch.set_num_threads(before)


def test_a_batch_on_a_gpu_has_as_many_pixels_for_any_size():
    sides = {side: batch_size(side**2, torch.device("cuda")) for side in (16, 32, 64, 128, 1024)}
    assert sides == {16: 1000, 32: 250, 64: 62, 128: 15, 1024: 1}
    assert batch_size(32**2, torch.device("cpu")) == 50


def test_a_picture_costs_its_own_samples(images, networks, evaluated):
    contexts = fixed_contexts(images, "test", RECIPE.task, count=3)
    shown = same_noise_samples(contexts, networks, "midpoint", "uniform", (2, 3, 6), 1.0)
    assert list(shown) == [2, 6]
    assert evaluated == [3] * 8
    for nfe, drawn in shown.items():
        (full,) = zip(*draw_samples(contexts, sampler_of(networks, "midpoint", "uniform", nfe, 1.0), 1), strict=True)
        assert np.abs(drawn.astype(int) - full).max() <= 1
    # Those of fewer images are the same.
    fewer = same_noise_samples(fixed_contexts(images, "test", RECIPE.task, count=2), networks, "midpoint", "uniform", (6,), 1.0)
    np.testing.assert_array_equal(fewer[6], shown[6][:2])


def test_fixed_contexts_are_the_same_in_any_batch(images):
    contexts = fixed_contexts(images, "test", RECIPE.task, seed=3)
    every = torch.arange(len(contexts))
    context, noise, target = contexts.context(every), contexts.noise(every, 3), contexts.target(every)
    some = torch.tensor([7, 2])
    assert torch.equal(contexts.context(some), context[some])
    assert torch.equal(contexts.noise(some, 2), noise[some, :2])
    assert torch.equal(contexts.target(some), target[some])
    assert noise[0, 0].std() == pytest.approx(1, abs=0.1)
    assert not torch.equal(noise[0, 0], noise[0, 1])
    assert not torch.equal(noise[0, 0], noise[1, 0])
    visible = context[:, -1:]
    assert set(visible.unique().tolist()) == {0, 1}
    assert visible.mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(context[:, :3], target * visible)
    assert not torch.equal(fixed_contexts(images, "test", RECIPE.task, seed=4).context(every), context)
    half = fixed_contexts(images, "test", RECIPE.task, seed=3, visible=0.5).context(every)[:, -1:]
    assert half.mean() == pytest.approx(0.5, abs=0.03)
    assert (half >= visible).all()  # what is visible stays so


def test_fixed_contexts_are_where_the_networks_are(images, monkeypatch):
    monkeypatch.setattr("wsdcast.runs.devices.device", lambda: torch.device("meta"))
    contexts, some = fixed_contexts(images, "validation", RECIPE.task), torch.arange(2)
    assert {tensor.device.type for tensor in (contexts.context(some), contexts.target(some), contexts.noise(some, 2))} == {"meta"}


def test_a_sample_is_what_algorithm_2_makes(inpainted, images, networks):
    samples = np.load(inpainted / "run/samples/samples.npy")
    contexts = fixed_contexts(images, "test", RECIPE.task, count=6)
    some = torch.tensor([4])
    context, noise = contexts.context(some), contexts.noise(some, 3)[:, 2]
    with torch.inference_mode():
        x = algorithm_2(
            networks.generator, networks.prior_of, *(part.expand(50, -1, -1, -1) for part in (context, noise)), uniform(2), midpoint
        )
    assert np.array_equal(((x[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy(), samples[4, 2])
    # The same from the definition, without the library: two midpoint steps in the normalised space of the predicted moments.
    with torch.inference_mode():
        mean, std = networks.moments(context)
        state, one = noise, torch.ones(1)

        def velocity(x, t):
            return networks.generator(torch.cat([x, context, mean, std.log()], dim=1), torch.tensor([t]), one)

        for t in (0.0, 0.5):
            state = state + 0.5 * velocity(state + 0.25 * velocity(state, t), t + 0.25)
        byhand = as_images(state * std + mean)[0]
    assert np.abs(byhand.astype(int) - samples[4, 2]).max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STOCHASTIC])
def test_the_states_of_the_process_are_those_of_the_solver(images, networks, name):
    contexts, some = fixed_contexts(images, "test", RECIPE.task, count=2), torch.arange(1)
    nfe = possible(name, [12, 11])[0]
    settings = RECIPE.sample.model_copy(update={"solver": name, "nfe": nfe})
    context, noise = contexts.context(some), contexts.noise(some, 1)[0]
    with torch.inference_mode():
        normalised, states, times = _process(networks, context, noise, settings, 1.0)
        last = sampler_of(networks, name, "uniform", nfe, 1.0)(context, noise)
        prior = networks.prior_of(context)
        velocity = velocity_of(networks.generator, prior, context, torch.ones(1))
        # Where the solver is if it is given the times up to each of them alone.
        expected = [solver(name)(velocity, noise, torch.from_numpy(times[: step + 1])) for step in range(1, len(times))]
    np.testing.assert_array_equal(normalised[0], noise[0].numpy())
    np.testing.assert_allclose(normalised[1:], torch.cat(expected).numpy(), atol=1e-5)
    np.testing.assert_allclose(states, prior.denormalise(torch.from_numpy(normalised)).numpy(), atol=1e-5)
    np.testing.assert_allclose(states[-1], last[0].numpy(), atol=1e-4)
    assert len(normalised) == len(states) == len(times)
    assert (times[0], times[-1]) == (0, 1)


def test_bytes_of_data_are_rounded_and_clipped():
    data = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 0.5 / 127.5 - 1, 1.49 / 127.5 - 1]).reshape(1, 1, -1)
    assert as_images(data).tolist() == [[[0], [0], [128], [255], [255], [0], [1]]]


@pytest.mark.parametrize("kind", ["inpaint", "block", "super-resolution", "colourise", "denoise"])
def test_an_untrained_mean_is_the_image_as_it_is_known(images, kind):
    contexts = fixed_contexts(images, "validation", Task(kind=kind))
    context, target = contexts.context(torch.arange(4)), contexts.target(torch.arange(4))
    mean, std = moments_model(ImageMomentsNetwork(widths=(8, 8)), 3)(context)
    assert torch.equal(mean, context[:, :3])
    known = context[:, 3:].expand(-1, 3, -1, -1) == 1
    assert torch.equal(mean[known], target[known])
    assert known.any() == (kind in ("inpaint", "block"))
    assert (std[known] == MINIMUM_STD).all()
    assert std[~known].unique().numel() == 1
    assert (std[~known] > MINIMUM_STD).all()


def test_what_is_shown_stays_known_whatever_the_network_says(images):
    """And so teaches it nothing: no gradient comes from there."""
    contexts = fixed_contexts(images, "validation", Task(visible_test=0.5))
    context, target = contexts.context(torch.arange(4)), contexts.target(torch.arange(4))
    model = moments_model(ImageMomentsNetwork(widths=(8, 8)), 3)
    outputs = torch.randn(4, 6, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model.network.forward = lambda _: outputs
    mean, std = model(context)
    shown = context[:, -1:].expand(-1, 3, -1, -1) == 1
    assert torch.equal(mean[shown], target[shown])
    assert (std[shown] == MINIMUM_STD).all()
    assert (mean[~shown] == outputs[:, :3][~shown]).all()
    negative_log_likelihood(model, context, target).backward()
    assert not outputs.grad[:, :3][shown].any()
    assert outputs.grad[:, :3][~shown].all()


def test_the_climatology_is_of_the_training_part(images):
    recipe = RECIPE.changed(generator__prior="climatology")
    mean, std = fixed_moments_of(recipe, images)(torch.zeros(2, 4, 16, 16))
    training = images.images[images.parts["train"]].astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(mean[1], training.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(std[1], training.std(axis=0), atol=1e-5)
    mean, std = fixed_moments_of(RECIPE.changed(generator__prior="standard"), images)(torch.zeros(2, 4, 16, 16))
    assert (mean == 0).all()
    assert (std == 1).all()


def test_contexts_of_a_step_are_the_same_for_any_number_of_processes(images):
    chosen = torch.arange(20, 32)

    def drawn(*slices: slice) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [training_pairs(images, RECIPE.task, torch.Generator().manual_seed(5))(chosen, mine) for mine in slices]
        return tuple(torch.cat(fields) for fields in zip(*parts, strict=True))

    whole = drawn(slice(0, 12))
    for parts in ((slice(0, 6), slice(6, 12)), [slice(3 * rank, 3 * rank + 3) for rank in range(4)]):
        assert all(torch.equal(a, b) for a, b in zip(drawn(*parts), whole, strict=True))
    context, target = whole
    plain = images.batch(chosen)  # the training split comes first
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(target, plain, strict=True)])
    straight = torch.tensor([torch.equal(a, b) for a, b in zip(target, plain, strict=True)])
    assert (mirrored ^ straight).all()
    assert mirrored.any()
    assert straight.any()
    shares = context[:, 3].mean(dim=(1, 2))
    assert shares.min() < 0.1
    assert shares.max() < 0.3
    again = training_pairs(images, RECIPE.task, random := torch.Generator().manual_seed(5))
    assert not torch.equal(again(chosen, slice(0, 12)).context, again(chosen, slice(0, 12)).context)
    assert random.device.type == "cpu"


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(inpainted, tmp_path, monkeypatch):
    """With dropout, flips, masks, noise and times, all of which are drawn; stopped in the one network and then in the other."""
    recipe = RECIPE.changed(training__validate_every=2, moments__dropout=0.2, generator__dropout=0.2)
    whole = prepared(inpainted, tmp_path / "whole")
    train(recipe, whole)
    run = prepared(inpainted, tmp_path / "run")
    save = checkpoints.save
    for network in ("moments", "generator"):

        def stopped(kept: Path, step: int, *rest: object) -> None:
            save(kept, step, *rest)
            if step == 2 and kept.name == network:  # noqa: B023
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "save", stopped)
            with pytest.raises(KeyboardInterrupt):
                train(recipe, run)
        assert not (run / network).exists()
    train(recipe, run)
    for network in ("moments", "generator"):
        first, second = (load_file(directory / network / "weights.safetensors") for directory in (whole, run))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert (run / network / f"{network}-losses.csv").read_text().count("\n") == 5


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(inpainted, tmp_path):
    weights = []
    for batch, launcher in ((8, []), (4, ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"])):
        run = prepared(inpainted, tmp_path / str(batch))
        recipe = tmp_path / f"{batch}.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE.changed(generator__batch=batch, generator__prior="standard").dump()))
        command = ["inpaint", "train", "--recipe", str(recipe), "--run", str(run)]
        if launcher:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run([sys.executable, "-m", *launcher, "wsdcast", *command], capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr
        else:
            assert invoke(*command)[0] == 0
        weights.append(load_file(run / "generator/weights.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=2e-3, rtol=0)


def test_the_bound_of_the_std_and_the_known_pixels_can_be_switched_off(images):
    """Without them the moments are what the network says; with them each changes its own part alone."""
    contexts = fixed_contexts(images, "validation", Task(visible_test=0.5))
    context = contexts.context(torch.arange(4))
    network, found = ImageMomentsNetwork(widths=(8, 8)), {}
    for known, bound in ((True, 1.0), (True, None), (False, 1.0), (False, None)):
        torch.manual_seed(0)
        model = moments_model(network.model_copy(update={"known_pixels": known, "maximum_std": bound}), images.shape[0])
        torch.nn.init.normal_(model.network.last.weight, std=0.5)
        with torch.no_grad():
            found[known, bound] = model.eval()(context)
    shown = (context[:, -1:] == 1).expand_as(found[True, 1.0][0])
    mean, std = found[False, None]
    assert std.max() > 1.5
    torch.testing.assert_close(found[False, 1.0][1], std.clamp(max=1.0))
    torch.testing.assert_close(found[True, None][0], torch.where(shown, context[:, :-1], mean))
    torch.testing.assert_close(found[True, None][1], std.masked_fill(shown, 0.01))
    torch.testing.assert_close(found[True, 1.0][1], std.clamp(max=1.0).masked_fill(shown, 0.01))
    assert not torch.equal(mean[shown], context[:, :-1][shown])
