"""Fine-tuning: what it trains, and the rollouts of its loss."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from runs_of_objectives import SMALL, TUNED, opened, training_samples, weights
from test_path_runs import run_with

import wsdcast
from wsdcast.nets.unet import UNet
from wsdcast.sampling.samplers import Sampler
from wsdcast.warmstart.crps import MEMBERS, EnsembleLoss
from wsdcast.weather.model_file import read_model
from wsdcast.weather.recipe import load_recipe
from wsdcast.weather.samplers import few_sampler
from wsdcast.weather.trained import Trained, assembled
from wsdcast.weather.training import fine_tuning
from wsdcast.weather.training.fine_tuning import samples_of_rollouts
from wsdcast.weather.training.rollouts import RolloutBatch, rollout_batches_of, rollout_loss

pytestmark = pytest.mark.usefixtures("without_animation")


@pytest.mark.parametrize(("objective", "nfe", "gradients"), [("distil", 1, "all"), ("shortcut", 4, "last"), ("crps", 1, "all")])
def test_fine_tuning_has_no_dropout_and_ever_longer_rollouts(prepared, tmp_path, monkeypatch, objective, nfe, gradients):
    """Members with masks of their own would differ more in training than in a forecast. All samples have the longest rollout."""
    networks, rollouts, priors = [], [], []

    def recorded(trained: Trained, network: UNet, nfe: int) -> Sampler:
        networks.append((network, nfe))
        priors.append(trained.prior_of)
        return few_sampler(trained, network, nfe)

    def measured(sampler: Sampler, batch: RolloutBatch, loss: EnsembleLoss, gradients: str) -> torch.Tensor:
        rollouts.append((len(batch.truth), gradients))
        return rollout_loss(sampler, batch, loss, gradients)

    monkeypatch.setattr(fine_tuning, "few_sampler", recorded)
    monkeypatch.setattr(fine_tuning, "rollout_loss", measured)
    monkeypatch.setattr(fine_tuning, "samples_of_rollouts", lambda stage: samples_of_rollouts(stage).subset(torch.tensor([5, 7])))
    changes = SMALL | TUNED | {"fine_tune__nfe": nfe, "fine_tune__gradients": gradients, "generator__dropout": 0.5}
    run_with(prepared, tmp_path, generator__objective=objective, **changes)
    assert rollouts == [(1, gradients), (1, gradients), (2, gradients)]
    assert {number for _, number in networks} == {nfe}
    assert {module.p for module in networks[0][0].modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
    context = torch.ones(2, 4, 8, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(priors[0](context).mean.sum(), context)
    assert gradient.any()  # that of a later step goes through the prior, which depends on the states before it


def test_samples_of_rollouts_have_the_longest_one_in_the_training_split(prepared):
    samples, recipe = training_samples(prepared), load_recipe(prepared / "tiny.yaml").changed(fine_tune__rollout=(1, 30, 2))
    chosen = samples_of_rollouts(SimpleNamespace(recipe=recipe, samples=samples))
    assert torch.equal(chosen.now, samples.now[:-29])  # a sample itself has the first state after it


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
    for name, value in networks.few[nfe].state_dict().items():
        assert torch.equal(value, tuned[name])
    wsdcast.rollout(run=run, nfe=nfe)
    wsdcast.export_model(run, tmp_path / "model.wsd")
    file = read_model(tmp_path / "model.wsd")
    travelled = assembled(file.recipe, file.record, file.load)
    for name, value in travelled.few[nfe].state_dict().items():
        assert torch.equal(value, tuned[name])


def test_a_flow_trained_with_its_moments_can_be_fine_tuned(prepared, tmp_path):
    _, run = run_with(prepared, tmp_path, generator__moments="joint", **TUNED | {"fine_tune__nfe": 2})
    summary = wsdcast.rollout(run=run, nfe=2)
    assert summary.facts["solver"] == "midpoint, uniform times, with the fine-tuned generator"


def test_only_the_last_step_of_a_rollout_has_a_gradient_unless_all_have(prepared):
    samples = training_samples(prepared)
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


def test_rollouts_have_the_truth_of_each_step_and_no_gap(prepared):
    samples = training_samples(prepared)
    gappy = samples.subset(torch.cat([torch.arange(5), torch.arange(6, 12)]))
    assert [(gappy.longer(3).now - samples.now[0]).tolist()] == [[0, 1, 2, 6, 7, 8, 9]]
    batch = rollout_batches_of(samples, lambda: 2, torch.Generator().manual_seed(0))(torch.tensor([4, 7]), slice(1, 2))
    now = samples.now[7] + torch.arange(-1, 3)
    states = samples.states(now)
    for ours, expected in zip((*batch.states[::-1], *batch.truth), states, strict=True):
        assert torch.equal(ours[0], expected)
    assert batch.noise.shape == (2, MEMBERS, 1, 2, 8, 16)


def test_each_member_and_sample_of_a_rollout_has_its_own_states_forcings_truth_and_noise(prepared):
    samples, chosen = training_samples(prepared), torch.tensor([4, 7])
    solar = replace(samples.forcings, longitude=torch.arange(0, 360, 22.5, dtype=torch.float64))  # forcings that change with time
    samples = replace(samples, forcings=solar)
    batches = [rollout_batches_of(samples, lambda: 2, torch.Generator().manual_seed(0)) for _ in range(2)]
    batch, of_second = batches[0](chosen, slice(None)), batches[1](chosen, slice(1, 2))
    assert torch.equal(of_second.noise, batch.noise[:, :, 1:])  # of a second process
    contexts, scored = [], []

    def sampler(context: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        contexts.append(context.unflatten(0, (MEMBERS, -1)))
        return context[:, :2] + noise

    def loss(members: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        scored.append((members, truth))
        return members.mean()

    rollout_loss(sampler, batch, loss, "all")
    now, before = samples.context(chosen)[:, :2], samples.context(chosen)[:, 2:4]
    for step, (members, truth) in enumerate(scored):
        torch.testing.assert_close(members, now + batch.noise[: step + 1].sum(dim=0))
        later = samples.context(chosen + step)
        assert torch.equal(truth, samples.context(chosen + step + 1)[:, :2])
        for member in range(MEMBERS):
            assert torch.equal(contexts[step][member][:, 4:], later[:, 4:])
            assert torch.equal(contexts[step][member][:, 2:4], now if step else before)
