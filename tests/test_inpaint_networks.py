"""Contexts, networks, training and samples of images: what is drawn from which seed, bitwise continuation, and Algorithm 2."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import invoke
from image_runs import RECIPE, copy_of, drawn_by
from safetensors.torch import load_file

from wsdcast.images.contexts import fixed_contexts, training_pairs
from wsdcast.images.data.store import open_images
from wsdcast.images.drawing import as_images, batch_size, draw_samples, possible, same_noise_samples, sampler_of, warmth_for
from wsdcast.images.networks import fixed_moments_of, moments_model, trained
from wsdcast.images.recipe import ImageMomentsNetwork, Task
from wsdcast.images.stages.sample import _process, sample
from wsdcast.images.stages.train import train
from wsdcast.sampling.batches import in_batches
from wsdcast.training import checkpoints
from wsdcast.warmstart import stochastic
from wsdcast.warmstart.evaluations import ALL_SOLVERS, solver
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


def test_a_sample_depends_only_on_seed_image_and_number(inpainted, tmp_path, monkeypatch):
    monkeypatch.setattr("wsdcast.images.stages.sample._pictures", lambda *arguments: {})
    first = np.load(inpainted / "run/samples/samples.npy")
    run = copy_of(inpainted, tmp_path / "run", "moments", "generator")
    sample(run=run, contexts=9, samples=4)
    assert np.array_equal(np.load(run / "samples/samples.npy")[:6, :3], first)
    sample(run=run, seed=1, overwrite=True)
    other = np.load(run / "samples/samples.npy")
    assert np.mean(other != first) > 0.5
    sample(run=run, contexts=500, samples=2, overwrite=True)
    assert np.load(run / "samples/samples.npy").shape[0] == 20  # the test split has no more images


@pytest.fixture
def evaluated(networks):
    """Return a list to which each evaluation of the generator appends its number of samples."""
    rows: list[int] = []
    hook = networks.generator.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    yield rows
    hook.remove()


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (3, 2), (26, 11), (50, 20), (60, 24)])
def test_samples_are_evaluated_in_full_batches(images, networks, evaluated, monkeypatch, samples, batches):
    """A batch has fifty samples, whatever their number for each context. No sample depends on that number."""
    contexts, sampler = fixed_contexts(images, "test", RECIPE.task), sampler_of(networks, drawn_by("midpoint", 2), 1.0)
    assert len(contexts) == 20
    drawn = np.stack(list(draw_samples(contexts, sampler, samples)))
    assert drawn.shape == (20, samples, 16, 16, 3)
    assert evaluated == [50] * 2 * batches
    fewer = np.stack(list(draw_samples(fixed_contexts(images, "test", RECIPE.task, count=7), sampler, 1)))
    np.testing.assert_array_equal(fewer, drawn[:7, :1])


@pytest.mark.parametrize("threads", [2, 3])
def test_samples_do_not_depend_on_the_number_of_threads(images, networks, threads):
    contexts = fixed_contexts(images, "test", RECIPE.task)

    def drawn() -> tuple[float, np.ndarray, np.ndarray]:
        warmth = warmth_for("calibrated", networks, contexts)
        sampler = sampler_of(networks, drawn_by("midpoint", 2), warmth)
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


def test_a_batch_on_a_gpu_has_about_the_same_number_of_pixels_for_any_size():
    sides = {side: batch_size(side**2, torch.device("cuda")) for side in (16, 32, 64, 128, 1024)}
    assert sides == {16: 1000, 32: 250, 64: 62, 128: 15, 1024: 1}
    assert batch_size(32**2, torch.device("cpu")) == 50


def test_a_picture_evaluates_only_its_own_samples(images, networks, evaluated):
    contexts = fixed_contexts(images, "test", RECIPE.task, count=3)
    shown = same_noise_samples(contexts, networks, RECIPE.sample, (2, 3, 6), 1.0)
    assert list(shown) == [2, 6]
    assert evaluated == [3] * 8
    for nfe, drawn in shown.items():
        (full,) = zip(*draw_samples(contexts, sampler_of(networks, drawn_by("midpoint", nfe), 1.0), 1), strict=True)
        assert np.abs(drawn.astype(int) - full).max() <= 1
    # With fewer images the samples are the same.
    fewer = same_noise_samples(fixed_contexts(images, "test", RECIPE.task, count=2), networks, RECIPE.sample, (6,), 1.0)
    np.testing.assert_array_equal(fewer[6], shown[6][:2])


class Bent(torch.nn.Module):
    """A velocity whose paths are bent, so that their ends depend on the steps."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, warmth: torch.Tensor) -> torch.Tensor:
        return 3 * torch.sin(3 * x[:, :3] + 6 * t[:, None, None, None])


def test_a_picture_shows_the_samples_of_the_run_whatever_its_times_and_momentum(images, networks):
    contexts, networks = fixed_contexts(images, "test", RECIPE.task, count=3), replace(networks, generator=Bent())
    ab2 = {"solver": "ab2", "grid_in_time": "log-snr", "log_snr_ends": (-1.0, 6.0), "momentum": 0.5}
    (shown,) = same_noise_samples(contexts, networks, RECIPE.sample.model_copy(update=ab2), (5,), 1.0).values()
    of_run, with_defaults = (
        np.stack(list(draw_samples(contexts, sampler_of(networks, drawn_by("ab2", 5, "log-snr", **given), 1.0), 1)))[:, 0].astype(int)
        for given in ({"log_snr_ends": (-1.0, 6.0), "momentum": 0.5}, {})
    )
    assert np.abs(shown - of_run).max() <= 1
    assert np.abs(shown - with_defaults).max() > 1


def test_fixed_contexts_are_the_same_in_any_batch(images):
    contexts = fixed_contexts(images, "test", RECIPE.task, seed=3)
    whole = torch.arange(len(contexts))
    context, noise, target = contexts.context(whole), contexts.noise(whole, 3), contexts.target(whole)
    subset = torch.tensor([7, 2])
    assert torch.equal(contexts.context(subset), context[subset])
    assert torch.equal(contexts.noise(subset, 2), noise[subset, :2])
    assert torch.equal(contexts.target(subset), target[subset])
    assert noise[0, 0].std() == pytest.approx(1, abs=0.1)
    assert not torch.equal(noise[0, 0], noise[0, 1])
    assert not torch.equal(noise[0, 0], noise[1, 0])
    visible = context[:, -1:]
    assert set(visible.unique().tolist()) == {0, 1}
    assert visible.mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(context[:, :3], target * visible)
    assert not torch.equal(fixed_contexts(images, "test", RECIPE.task, seed=4).context(whole), context)
    half = fixed_contexts(images, "test", RECIPE.task, seed=3, visible=0.5).context(whole)[:, -1:]
    assert half.mean() == pytest.approx(0.5, abs=0.03)
    assert (half >= visible).all()  # with a larger share the same pixels stay visible


def test_fixed_contexts_are_on_the_device_of_the_networks(images, monkeypatch):
    monkeypatch.setattr("wsdcast.runs.devices.device", lambda: torch.device("meta"))
    contexts, indices = fixed_contexts(images, "validation", RECIPE.task), torch.arange(2)
    tensors = contexts.context(indices), contexts.target(indices), contexts.noise(indices, 2)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_stored_sample_is_the_result_of_algorithm_2(inpainted, images, networks):
    samples = np.load(inpainted / "run/samples/samples.npy")
    contexts = fixed_contexts(images, "test", RECIPE.task, count=6)
    index = torch.tensor([4])
    context, noise = contexts.context(index), contexts.noise(index, 3)[:, 2]
    with torch.inference_mode():
        x = algorithm_2(
            networks.generator, networks.prior_of, *(part.expand(50, -1, -1, -1) for part in (context, noise)), uniform(2), midpoint
        )
    assert np.array_equal(((x[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy(), samples[4, 2])
    # Without the library: two steps of the midpoint rule in the normalised space of the predicted moments.
    with torch.inference_mode():
        mean, std = networks.moments(context)
        state, one = noise, torch.ones(1)

        def velocity(x, t):
            return networks.generator(torch.cat([x, context, mean, std.log()], dim=1), torch.tensor([t]), one)

        for t in (0.0, 0.5):
            state = state + 0.5 * velocity(state + 0.25 * velocity(state, t), t + 0.25)
        expected = as_images(state * std + mean)[0]
    assert np.abs(expected.astype(int) - samples[4, 2]).max() <= 1


@pytest.mark.parametrize("name", [name for name in ALL_SOLVERS if name not in stochastic.SOLVERS])
def test_the_states_of_the_process_are_those_of_the_solver(images, networks, name):
    contexts, index = fixed_contexts(images, "test", RECIPE.task, count=2), torch.arange(1)
    nfe = possible(name, [12, 11], "uniform", "straight")[0]
    settings = RECIPE.sample.model_copy(update={"solver": name, "nfe": nfe})
    context, noise = contexts.context(index), contexts.noise(index, 1)[0]
    with torch.inference_mode():
        normalised, states, times = _process(networks, context, noise, settings, 1.0)
        last = sampler_of(networks, settings, 1.0)(context, noise)
        prior = networks.prior_of(context)
        velocity = velocity_of(networks.generator, prior, context, torch.ones(1))
        # The state at a time is the result of the solver on the times up to it.
        expected = [solver(name)(velocity, noise, torch.from_numpy(times[: step + 1])) for step in range(1, len(times))]
    np.testing.assert_array_equal(normalised[0], noise[0].numpy())
    np.testing.assert_allclose(normalised[1:], torch.cat(expected).numpy(), atol=1e-5)
    denormalised = torch.cat([prior.denormalise(x[None]) for x in torch.from_numpy(normalised)])
    np.testing.assert_allclose(states, denormalised.numpy(), atol=1e-5)
    np.testing.assert_allclose(states[-1], last[0].numpy(), atol=1e-4)
    assert len(normalised) == len(states) == len(times)
    assert (times[0], times[-1]) == (0, 1)


def test_bytes_of_data_are_rounded_and_clipped():
    data = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 0.5 / 127.5 - 1, 1.49 / 127.5 - 1]).reshape(1, 1, -1)
    assert as_images(data).tolist() == [[[0], [0], [128], [255], [255], [0], [1]]]


@pytest.mark.parametrize("kind", ["inpaint", "block", "super-resolution", "colourise", "denoise"])
def test_an_untrained_mean_is_the_known_part_of_the_image(images, kind):
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


def test_visible_pixels_replace_the_output_of_the_network(images):
    """So the network gets no gradient from them."""
    contexts = fixed_contexts(images, "validation", Task(visible_test=0.5))
    context, target = contexts.context(torch.arange(4)), contexts.target(torch.arange(4))
    model = moments_model(ImageMomentsNetwork(widths=(8, 8)), 3)
    outputs = torch.randn(4, 6, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model.network.forward = lambda _: outputs
    mean, std = model(context)
    visible = context[:, -1:].expand(-1, 3, -1, -1) == 1
    assert torch.equal(mean[visible], target[visible])
    assert (std[visible] == MINIMUM_STD).all()
    assert (mean[~visible] == outputs[:, :3][~visible]).all()
    negative_log_likelihood(model, context, target).backward()
    assert not outputs.grad[:, :3][visible].any()
    assert outputs.grad[:, :3][~visible].all()


def test_the_climatology_is_that_of_the_training_images(images):
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
        parts = [training_pairs(images, RECIPE.task, torch.Generator().manual_seed(5))(chosen, part) for part in slices]
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


def test_a_stopped_training_continues_to_the_same_bits(inpainted, tmp_path, monkeypatch):
    """Dropout, flips, masks, noise and times are all drawn. The training is stopped once in each network."""
    recipe = RECIPE.changed(training__validate_every=2, moments__dropout=0.2, generator__dropout=0.2)
    whole = copy_of(inpainted, tmp_path / "whole")
    train(recipe, whole)
    run = copy_of(inpainted, tmp_path / "run")
    save = checkpoints.save
    for network in ("moments", "generator"):

        def stopped(directory: Path, step: int, *others: object) -> None:
            save(directory, step, *others)
            if step == 2 and directory.name == network:  # noqa: B023
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
    logs = []
    for batch, launcher in ((8, []), (4, ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"])):
        run = copy_of(inpainted, tmp_path / str(batch))
        recipe = tmp_path / f"{batch}.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE.changed(generator__batch=batch, generator__prior="standard").dump()))
        command = ["inpaint", "train", "--recipe", str(recipe), "--run", str(run)]
        if launcher:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run([sys.executable, "-m", *launcher, "wsdcast", *command], capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr
        else:
            assert invoke(*command)[0] == 0
        logs.append(np.loadtxt(run / "generator/generator-losses.csv", delimiter=",", skiprows=1)[:, :4])
    # The columns are number, loss, learning rate and gradient norm. AdamW hides the scale of gradients, so weights would not show it.
    one, two = logs
    assert len(one) == 4
    assert (one[:, 3] > 0).all()
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_the_bound_of_the_std_and_the_known_pixels_can_be_switched_off(images):
    """Without both the moments are the network's output. Each of the two changes only its own part."""
    contexts = fixed_contexts(images, "validation", Task(visible_test=0.5))
    context = contexts.context(torch.arange(4))
    network, moments = ImageMomentsNetwork(widths=(8, 8)), {}
    for known, bound in ((True, 1.0), (True, None), (False, 1.0), (False, None)):
        torch.manual_seed(0)
        model = moments_model(network.model_copy(update={"known_pixels": known, "maximum_std": bound}), images.shape[0])
        torch.nn.init.normal_(model.network.last.weight, std=0.5)
        with torch.no_grad():
            moments[known, bound] = model.eval()(context)
    visible = (context[:, -1:] == 1).expand_as(moments[True, 1.0][0])
    mean, std = moments[False, None]
    assert std.max() > 1.5
    torch.testing.assert_close(moments[False, 1.0][1], std.clamp(max=1.0))
    torch.testing.assert_close(moments[True, None][0], torch.where(visible, context[:, :-1], mean))
    torch.testing.assert_close(moments[True, None][1], std.masked_fill(visible, 0.01))
    torch.testing.assert_close(moments[True, 1.0][1], std.clamp(max=1.0).masked_fill(visible, 0.01))
    assert not torch.equal(mean[visible], context[:, :-1][visible])
