"""Tests of the ablations' priors, and joint training of both networks."""

from __future__ import annotations

from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import six_hourly
from scipy.special import logit
from scipy.stats import kstest, norm
from small_training import WIND
from torch import nn

from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import Analysis
from wsdcast.data.store.states import PackedStates
from wsdcast.data.store.zarr_store import wind_packing
from wsdcast.runs.names import PriorName
from wsdcast.runs.recipes import TrainingTimes
from wsdcast.training.batches import Pairs, flow_batches_of
from wsdcast.warmstart.flow import draw, joint_loss, training_loss
from wsdcast.warmstart.moments import MINIMUM_STD, negative_log_likelihood
from wsdcast.warmstart.prior import PRIOR_MAKERS, InformedPrior, fixed_moments, frozen_prior, no_blending, plain_blending, standard_moments
from wsdcast.weather.climate import STATES_IN_MEMORY, climatology
from wsdcast.weather.network_sections import Generator, Moments
from wsdcast.weather.networks import generator_model, moments_model

SHAPE = (2, 3, 4)


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_plain_blending_is_linear_and_no_blending_keeps_the_std():
    std, w = torch.tensor([0.05, 0.6]), torch.tensor(0.25)
    torch.testing.assert_close(plain_blending(std, w), torch.tensor([0.25 * 0.05 + 0.75, 0.25 * 0.6 + 0.75]))
    torch.testing.assert_close(no_blending(std, w), std)


def test_what_is_left_of_the_method_in_each_ablation(random):
    mean, std = torch.randn(3, *SHAPE, generator=random), torch.rand(3, *SHAPE, generator=random) + 0.1
    x, w = torch.randn(3, *SHAPE, generator=random), torch.tensor([0.3])
    warm = InformedPrior(mean, std)
    torch.testing.assert_close(PRIOR_MAKERS["mean-only"](mean, std).blended(w).normalise(x), x - mean)
    torch.testing.assert_close(warm.features(), torch.cat([mean, std.log()], dim=1))
    torch.testing.assert_close(PRIOR_MAKERS["mean-only"](mean, std).features(), torch.cat([mean, torch.zeros_like(std)], dim=1))
    only_told = PRIOR_MAKERS["features-only"](mean, std)
    torch.testing.assert_close(only_told.blended(w).normalise(x), x)
    torch.testing.assert_close(only_told.blended(w).features(), warm.features())  # not blended, for any warmth
    torch.testing.assert_close(PRIOR_MAKERS["unblended"](mean, std).blended(w).normalise(x), warm.normalise(x))
    for w in (0.0, 1.0):
        blended = PRIOR_MAKERS["plain-blend"](mean, std).blended(torch.tensor([w]))
        torch.testing.assert_close(blended.std, std if w else torch.ones_like(std))


def test_every_prior_has_a_maker_and_a_misspelt_name_is_refused():
    assert {name for name in get_args(PriorName) if PRIOR_MAKERS[name] is InformedPrior} == {
        "warm",
        "standard",
        "climatology",
        "persistence",
        "given",
    }
    assert PRIOR_MAKERS["class-climatology"] is InformedPrior
    for name in ("worm", "mean_only", "per-sample"):
        with pytest.raises(KeyError):
            PRIOR_MAKERS[name]


def test_standard_and_fixed_moments_do_not_depend_on_the_context(random):
    context = torch.randn(3, 4, 3, 4, generator=random)
    mean, std = standard_moments(2)(context)
    assert torch.equal(mean, torch.zeros(3, *SHAPE))
    assert torch.equal(std, torch.ones(3, *SHAPE))
    field = torch.randn(SHAPE, generator=random)
    mean, std = fixed_moments(field, field.abs())(context)
    assert torch.equal(mean, field.expand(3, *SHAPE))
    assert torch.equal(std, field.abs().expand(3, *SHAPE))


class SmallGenerator(nn.Module):
    """A small generator: at every point a perceptron of state, features, time and warmth."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x: torch.Tensor, t: torch.Tensor, warmth: torch.Tensor) -> torch.Tensor:
        scalars = torch.stack([t, warmth], dim=1)[:, :, None].expand(-1, -1, x.shape[2])
        return self.layers(torch.cat([x, scalars], dim=1).transpose(1, 2)).transpose(1, 2)


class Constant(nn.Module):
    """Moments that do not depend on the context. Mean and log std are two trainable numbers."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(std).log())

    def forward(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean.expand(context.shape), self.log_std.exp().expand(context.shape)


def trained_together(loss_of, steps: int = 400) -> tuple[Constant, list[float]]:
    torch.manual_seed(0)
    generator, moments, random = SmallGenerator(), Constant(0.5, 0.7), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam([*generator.parameters(), *moments.parameters()], lr=1e-2)
    losses = []
    for _ in range(steps):
        target = 1 + 0.5 * torch.randn(64, 1, 4, generator=random)
        loss = loss_of(generator, moments, torch.zeros(64, 1, 4), target, draw(target.shape, random))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return moments, losses


def test_networks_collude_unless_the_std_is_detached():
    """Appendix E: with only the generator's loss the std grows far beyond the data's, because this makes the velocity easy to predict."""

    def everything(generator, moments, context, target, draws):
        return training_loss(generator, InformedPrior(*moments(context)), context, target, draws)

    def detached(generator, moments, context, target, draws):
        mean, std = moments(context)
        return training_loss(generator, InformedPrior(mean, std.detach()), context, target, draws)

    colluding, losses = trained_together(everything)
    honest, honest_losses = trained_together(detached)
    assert np.mean(losses[-50:]) < 0.75 * np.mean(honest_losses[-50:])  # the loss looks better
    assert colluding.log_std.exp().item() > 2  # four times the data's std, and growing
    assert honest.log_std.exp().item() == pytest.approx(0.7)


@pytest.mark.parametrize("end_to_end", [False, True])
def test_joint_training_finds_the_moments(end_to_end):
    moments, _ = trained_together(partial(_joint, end_to_end=end_to_end), steps=600)
    assert moments.mean.item() == pytest.approx(1, abs=0.1)
    assert moments.log_std.exp().item() == pytest.approx(0.5, abs=0.05)


def _joint(generator, moments, context, target, draws, end_to_end):
    return joint_loss(generator, moments, InformedPrior, context, target, draws, end_to_end)


def test_only_end_to_end_does_the_generator_teach_the_mean(random):
    context, target = torch.zeros(8, 1, 4), torch.randn(8, 1, 4, generator=random)
    gradients = {}
    for end_to_end in (False, True):
        torch.manual_seed(0)
        generator, moments = SmallGenerator(), Constant(0.5, 0.7)
        joint_loss(
            generator, moments, InformedPrior, context, target, draw(target.shape, torch.Generator().manual_seed(1)), end_to_end
        ).backward()
        gradients[end_to_end] = moments.mean.grad.item(), moments.log_std.grad.item()
    model = Constant(0.5, 0.7)
    (-InformedPrior(*model(context)).log_prob(target).mean() / 4).backward()
    assert gradients[False] == pytest.approx((model.mean.grad.item(), model.log_std.grad.item()), rel=1e-5)
    assert gradients[True][0] != pytest.approx(gradients[False][0], rel=1e-3)
    assert gradients[True][1] == pytest.approx(gradients[False][1], rel=1e-5)


def test_the_flow_starts_from_the_moments_of_a_given_model():
    """Any callable can be the moments model. This one is a line fitted by numpy."""
    slope = np.polyfit([0.0, 1.0, 2.0], [1.0, 3.0, 5.0], 1)
    foreign = lambda context: (slope[0] * context + slope[1], torch.full_like(context, 0.1))  # noqa: E731
    prior = frozen_prior(foreign)(torch.tensor([[[4.0]]]))
    assert prior.sample(torch.tensor([[[1.0]]])).item() == pytest.approx(9.1, abs=1e-5)


def test_moments_have_the_precision_of_the_context_under_autocast():
    torch.manual_seed(0)
    model = moments_model(Moments(widths=(8, 8)), WIND)
    nn.init.normal_(model.network.last.weight)
    context = torch.randn(3, 4, 8, 16)
    exact = model(context)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(context)
    assert [field.dtype for field in result] == [torch.float32] * len(exact)
    for field, expected in zip(result, exact, strict=True):
        assert 0 < (field - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("joint", [False, True])
def test_a_step_in_bf16(joint):
    """Loss and gradients are near those in float32."""
    losses, gradients = {}, {}
    for precision in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        moments, generator = moments_model(Moments(widths=(8, 8)), WIND), generator_model(Generator(widths=(8, 8)), WIND)
        for network in (generator, moments.network):
            nn.init.normal_(network.last.weight, std=0.1)
        context, target = torch.randn(4, 4, 8, 16), torch.randn(4, 2, 8, 16)
        draws = draw(target.shape, torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            if joint:
                loss = joint_loss(generator, moments, InformedPrior, context, target, draws)
            else:
                loss = negative_log_likelihood(moments, context, target)
        loss.backward()
        losses[precision] = loss.item()
        gradients[precision] = torch.cat([parameter.grad.flatten() for parameter in moments.parameters()])
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.02)
    assert losses[torch.bfloat16] != losses[torch.float32]
    assert torch.cosine_similarity(*gradients.values(), dim=0) > 0.95


def test_the_climatology_is_of_the_training_part_a_few_states_at_a_time():
    random = np.random.default_rng(0)
    shape, read = (3 * STATES_IN_MEMORY + 5, 2, 2, 4), []

    class Wind(PackedStates):
        def __getitem__(self, index):
            states = super().__getitem__(index)
            read.append(len(states))
            return states

    wind = Wind(random.integers(-4000, 4000, shape).astype(np.int16), wind_packing(2))
    wind.values[:, 0, 0, 0] = 300  # a point without variance
    times = six_hourly("2020-01-01", shape[0])
    mean, std = np.array([1, -2], np.float32), np.array([5, 6], np.float32)
    record = Analysis(wind, times, Grid.regular("4x2"), mean, std, std, times[-20], times[-10])
    moments = climatology(record)
    assert max(read) == STATES_IN_MEMORY
    assert sum(read) == shape[0] - 20
    states = record.normalise(PackedStates(wind.values[:-20], wind_packing(2))[:]).astype(np.float64)
    np.testing.assert_allclose(moments[0], states.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments[1], np.maximum(states.std(axis=0), MINIMUM_STD), rtol=1e-6)
    assert moments[1][0, 0, 0] == np.float32(MINIMUM_STD)


def test_joint_training_weights_the_channels_of_the_two_losses_by_themselves(random):
    context, target = torch.zeros(8, 2, 4), torch.randn(8, 2, 4, generator=random)
    draws = draw(target.shape, random)
    moments = Constant(0.5, 0.7)

    def generator(x, t, warmth):
        return 0.3 * x[:, :2]

    flow, own = torch.tensor([[1.5], [0.5]]), torch.tensor([[0.2], [1.8]])
    joint = joint_loss(generator, moments, InformedPrior, context, target, draws, channel_weights=flow, moments_channel_weights=own)
    prior = InformedPrior(*moments(context))
    of_generator = training_loss(generator, prior, context, target, draws, channel_weights=flow)
    standardised = (target - prior.mean) / prior.std
    density = -0.5 * standardised**2 - prior.std.log() - 0.5 * np.log(2 * np.pi)
    assert joint.item() == pytest.approx(of_generator.item() - (own * density).mean().item(), rel=1e-6)


@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_the_weight_of_the_moments_loss_scales_only_their_gradients(weight, random):
    context, target = torch.zeros(8, 1, 4), torch.randn(8, 1, 4, generator=random)
    draws = draw(target.shape, random)
    torch.manual_seed(0)
    generator, moments = SmallGenerator(), Constant(0.5, 0.7)
    loss = joint_loss(generator, moments, InformedPrior, context, target, draws, moments_weight=weight)
    loss.backward()
    alone, own = Constant(0.5, 0.7), Constant(0.5, 0.7)
    of_generator = training_loss(generator, InformedPrior(*alone(context)), context, target, draws)
    of_moments = -InformedPrior(*own(context)).log_prob(target).mean() / 4
    of_moments.backward()
    assert loss.item() == pytest.approx(of_generator.item() + weight * of_moments.item(), rel=1e-6)
    assert moments.mean.grad.item() == pytest.approx(weight * own.mean.grad.item(), rel=1e-5)
    assert moments.log_std.grad.item() == pytest.approx(weight * own.log_std.grad.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("times", "distribution"),
    [
        (TrainingTimes(), lambda t: norm.cdf(logit(t))),
        (TrainingTimes(mean=-0.5, scale=2.0), lambda t: norm.cdf((logit(t) + 0.5) / 2)),
        (TrainingTimes(kind="uniform"), lambda t: t),
        # The authors use sigma = (1 - t) / t = exp(1.2 n - 1.2) with a standard normal n.
        (TrainingTimes(mean=1.2, scale=1.2), lambda t: norm.sf((np.log((1 - t) / t) + 1.2) / 1.2)),
    ],
    ids=["logit-normal", "shifted", "uniform", "the authors'"],
)
def test_training_times_have_their_distribution(times, distribution):
    pairs = lambda chosen, part: Pairs(torch.zeros(chosen.numel(), 1, 1, 1), torch.zeros(chosen.numel(), 1, 1, 1))  # noqa: E731
    batch_of = flow_batches_of(pairs, (1, 1, 1), torch.Generator().manual_seed(0), None, times)
    drawn = batch_of(torch.arange(20_000), slice(None)).draws.t.double().numpy()
    assert kstest(drawn, distribution).pvalue > 0.01


def test_default_training_times_are_logit_normal():
    draws = draw((5, 2), torch.Generator().manual_seed(3))
    random = torch.Generator().manual_seed(3)
    assert torch.equal(draws.warmth, torch.rand(5, generator=random))
    assert torch.equal(draws.t, torch.randn(5, generator=random).sigmoid())
    assert torch.equal(draws.noise, torch.randn(5, 2, generator=random))
