"""Tests of the method against closed forms: prior, blending, loss, flow, solver, Algorithms 1 and 2."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from wsdcast.runs.errors import UserError
from wsdcast.warmstart.flow import draw, generator_input, sample, training_loss
from wsdcast.warmstart.moments import MAXIMUM_STD, MINIMUM_STD, MomentsModel, negative_log_likelihood
from wsdcast.warmstart.paths import STRAIGHT
from wsdcast.warmstart.prior import (
    PRIOR_MAKERS,
    InformedPrior,
    features_only,
    fixed_moments,
    frozen_prior,
    plain_blending,
    standard_moments,
)
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.times import uniform
from wsdcast.warmstart.warmth import calibrated_warmth


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def prior(random: torch.Generator) -> InformedPrior:
    return InformedPrior(torch.randn(3, 2, 4, 5, generator=random), torch.rand(3, 2, 4, 5, generator=random) + 0.05)


def test_denormalising_inverts_normalising(prior, random):
    x = torch.randn(3, 2, 4, 5, generator=random)
    torch.testing.assert_close(prior.denormalise(prior.normalise(x)), x)
    torch.testing.assert_close(prior.normalise(prior.mean + 2 * prior.std), torch.full_like(x, 2.0))


def test_log_prob_is_that_of_scipy(prior, random):
    x = torch.randn(3, 2, 4, 5, generator=random)
    expected = stats.norm.logpdf(x.numpy(), prior.mean.numpy(), prior.std.numpy()).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(prior.log_prob(x).numpy(), expected, rtol=1e-5)


def test_blending_has_the_limits_of_equation_4(prior):
    assert torch.equal(prior.blended(torch.ones(1)).std, prior.std)
    assert torch.equal(prior.blended(torch.zeros(1)).std, torch.ones_like(prior.std))
    # Only the standard deviation is blended: at w = 0 the mean is still subtracted.
    assert torch.equal(prior.blended(torch.zeros(1)).mean, prior.mean)
    w = torch.tensor([0.25, 0.5, 0.9])
    by_hand = [[0.25 * max(s, 0.75) + 0.75, 0.5 * max(s, 0.5) + 0.5, 0.9 * max(s, 0.1) + 0.1] for s in (0.05, 0.6, 0.8)]
    for s, expected in zip((0.05, 0.6, 0.8), by_hand, strict=True):
        blended = InformedPrior(torch.zeros(3, 1), torch.full((3, 1), s)).blended(w)
        np.testing.assert_allclose(blended.std[:, 0].numpy(), expected, rtol=1e-6)


class Doubled(InformedPrior):
    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().normalise(x)


@pytest.mark.parametrize(
    "make", [InformedPrior, features_only, PRIOR_MAKERS["unblended"], Doubled], ids=["informed", "features", "unblended", "own class"]
)
@pytest.mark.parametrize("samples", [slice(1, 3), torch.tensor([2, 0, 2])], ids=["slice", "indices"])
def test_the_prior_of_some_samples_is_that_of_all_at_these_samples(prior, random, make, samples):
    whole, x, warmth = make(prior.mean, prior.std), torch.randn(3, 2, 4, 5, generator=random), torch.full((1,), 0.5)
    some = whole.of(samples)
    assert torch.equal(some.features(), whole.features()[samples])
    assert torch.equal(some.normalise(x[samples]), whole.normalise(x)[samples])
    assert torch.equal(some.blended(warmth).std, whole.blended(warmth).std[samples])


def test_standard_prior_is_a_special_case(random):
    context, x = torch.randn(3, 4, 2, 2, generator=random), torch.randn(3, 2, 2, 2, generator=random)
    prior = frozen_prior(standard_moments(2))(context)
    assert torch.equal(prior.normalise(x), x)
    for w in (0.0, 0.3, 1.0):  # warmth has no effect
        torch.testing.assert_close(prior.blended(torch.tensor([w])).std, torch.ones(3, 2, 2, 2))


def test_untrained_moments_are_persistence_of_the_state_now(random):
    now, before = torch.randn(2, 5, 2, 4, 4, generator=random)
    network = nn.Conv2d(4, 4, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    mean, std = MomentsModel(network, channels=2)(torch.cat([now, before], dim=1))
    assert torch.equal(mean, now)
    assert torch.allclose(std, torch.tensor(math.log1p(math.exp(-1.5))))


@pytest.mark.parametrize(("raw", "passes"), [(0.0, (True, True)), (3.0, (True, False)), (-8.0, (False, True))])
def test_a_std_beyond_a_bound_can_come_back(raw, passes):
    """Inside the bounds both directions have a gradient. Beyond one, only the direction back has: to a smaller std, or to a larger one."""
    raws = torch.full((1, 1, 2), raw, requires_grad=True)
    model = MomentsModel(lambda context: torch.cat([torch.zeros(1, 1, 2), raws], dim=1), 1)
    for direction, has_gradient in zip((1, -1), passes, strict=True):
        (gradient,) = torch.autograd.grad(direction * model(torch.zeros(1, 1, 2))[1].sum(), raws)
        expected = torch.sigmoid(raws - 1.5) * direction if has_gradient else torch.zeros_like(raws)
        torch.testing.assert_close(gradient, expected)


def test_a_std_that_began_above_its_bound_becomes_the_error():
    """While the errors are larger than the bound, the std stays there. When they are smaller, it follows them."""
    raws, random = torch.zeros(1, 1, 1, requires_grad=True), torch.Generator().manual_seed(0)
    model = MomentsModel(lambda context: torch.cat([0 * context, raws.expand_as(context)], dim=1), 1, maximum_std=0.3)
    optimiser = torch.optim.Adam([raws], lr=0.05)
    for size, expected in ((1.0, 0.3), (0.1, 0.1)):
        for _ in range(200):
            optimiser.zero_grad()
            context = torch.zeros(4, 1, 512)
            negative_log_likelihood(model, context, size * torch.randn(context.shape, generator=random)).backward()
            optimiser.step()
        assert model(context)[1].max().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("raw", "expected"), [(-50.0, MINIMUM_STD), (50.0, MAXIMUM_STD)])
def test_predicted_std_is_clipped(raw, expected):
    _, std = MomentsModel(lambda context: torch.full((1, 2, 1, 1), raw), channels=1)(torch.zeros(1, 1, 1, 1))
    assert std.item() == pytest.approx(expected)


def test_each_channel_has_its_own_lowest_std():
    """The gradient of each leads back from its own bound."""
    raws = torch.tensor([-50.0, -50.0, -5.0]).reshape(1, 3, 1).requires_grad_()
    model = MomentsModel(lambda context: torch.cat([torch.zeros(1, 3, 1), raws], dim=1), 3, minimum_std=(0.01, 0.002, 0.002))
    _, std = model(torch.zeros(1, 3, 1))
    between = math.log1p(math.exp(-5 - 1.5))
    assert 0.001 < between < 0.002
    torch.testing.assert_close(std, torch.tensor([0.01, 0.002, 0.002]).reshape(1, 3, 1), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(-std.sum(), raws)
    torch.testing.assert_close(gradient, -torch.sigmoid(raws.detach() - 1.5))
    assert "minimum_std" not in model.state_dict()  # weights of older versions can be loaded


def test_moments_loss_is_minimal_at_the_true_moments(random):
    target = 0.3 + 2.0 * torch.randn(4000, 1, 1, 1, generator=random)

    def loss(mean: float, std: float) -> float:
        return negative_log_likelihood(fixed_moments(torch.full((1, 1, 1), mean), torch.full((1, 1, 1), std)), target, target).item()

    assert loss(0.3, 2.0) == pytest.approx(math.log(2.0) + 0.5 * math.log(2 * math.pi) + 0.5, abs=0.03)
    assert all(loss(0.3, 2.0) < loss(*other) for other in ((0.6, 2.0), (0.0, 2.0), (0.3, 1.7), (0.3, 2.3)))


def test_the_path_runs_from_noise_to_data_at_constant_velocity(random):
    noise, data = torch.randn(2, 3, 2, 4, 4, generator=random)
    t = torch.tensor([0.0, 0.25, 1.0])
    x, velocity = STRAIGHT.point(noise, data, t)
    torch.testing.assert_close(x[0], noise[0])
    torch.testing.assert_close(x[1], 0.75 * noise[1] + 0.25 * data[1])
    torch.testing.assert_close(x[2], data[2])
    # At any time, a point and its velocity give data and noise.
    t_field = t[:, None, None, None]
    torch.testing.assert_close(x + (1 - t_field) * velocity, data)
    torch.testing.assert_close(x - t_field * velocity, noise)


class Perfect(nn.Module):
    """The exact velocity for data that are N(0, s^2) in normalised space, for any time and at full warmth."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = s

    def forward(self, x: torch.Tensor, t: torch.Tensor, warmth: torch.Tensor) -> torch.Tensor:
        t = t[:, None, None, None]
        return (t * self.s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * self.s**2) * x[:, :1]


def test_sampling_a_gaussian_gives_its_closed_form(random):
    """With a prior N(mean, std) and data N(0, s^2) in normalised space, the flow takes noise x to mean + s std x."""
    noise = torch.randn(64, 1, 2, 2, generator=random)
    context = torch.zeros(64, 1, 2, 2)
    moments = frozen_prior(lambda context: (torch.full_like(context, 5.0), torch.full_like(context, 0.5)))
    drawn = sample(Perfect(0.7), moments, context, noise, uniform(200), midpoint)
    torch.testing.assert_close(drawn, 5 + 0.5 * 0.7 * noise, atol=1e-4, rtol=1e-4)
    drawn = sample(Perfect(0.7), frozen_prior(standard_moments(1)), context, noise, uniform(200), midpoint)
    torch.testing.assert_close(drawn, 0.7 * noise, atol=1e-4, rtol=1e-4)


def test_training_loss_is_algorithm_1_line_by_line(prior, random):
    context, target = torch.randn(3, 4, 4, 5, generator=random), torch.randn(3, 2, 4, 5, generator=random)
    inputs = {}

    class Generator(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, warmth: torch.Tensor) -> torch.Tensor:
            inputs.update(x=x, t=t, warmth=warmth)
            return torch.zeros_like(target)

    loss = training_loss(Generator(), prior, context, target, draw(target.shape, torch.Generator().manual_seed(7)))
    same_random = torch.Generator().manual_seed(7)
    w, t = torch.rand(3, generator=same_random), torch.randn(3, generator=same_random).sigmoid()
    noise = torch.randn(3, 2, 4, 5, generator=same_random)
    w_field = w[:, None, None, None]
    std = w_field * torch.maximum(prior.std, 1 - w_field) + (1 - w_field)
    data = (target - prior.mean) / std
    assert torch.equal(inputs["t"], t)
    assert torch.equal(inputs["warmth"], w)
    x = (1 - t[:, None, None, None]) * noise + t[:, None, None, None] * data
    torch.testing.assert_close(inputs["x"], generator_input(x, context, InformedPrior(prior.mean, std)))
    torch.testing.assert_close(loss, ((data - noise) ** 2).mean())


def test_the_moments_model_gets_no_gradient_from_the_generator(random):
    scale = nn.Parameter(torch.ones(1))
    prior = frozen_prior(lambda context: (context * scale, context.abs() * scale + 1))(torch.ones(2, 1, 2, 2))
    assert not prior.mean.requires_grad
    assert not prior.std.requires_grad


def test_calibrated_warmth_of_wide_and_narrow_numbers():
    """With std 4 and 0.2 the mean square is above 1 at w = 0, where both are 1, and at w = 1, and below 1 between."""
    std, error = torch.tensor([4.0, 0.2]), torch.tensor([4.0, 0.25])
    prior = InformedPrior(torch.zeros(1, 2), std[None], plain_blending)
    squares = {w: ((error / (w * std + 1 - w)) ** 2).mean().item() for w in np.linspace(0, 1, 1025)}
    largest = max(w for w, square in squares.items() if square <= 1)
    assert squares[0.0] > 1
    assert squares[1.0] > 1
    assert calibrated_warmth(prior, error[None]) == pytest.approx(largest, abs=1 / 1024)


def test_calibrated_warmth_needs_a_value_that_counts_and_stops_at_full_warmth():
    class Watched(InformedPrior):
        def blended(self, warmth: torch.Tensor) -> InformedPrior:
            tried.append(warmth.item())
            return super().blended(warmth)

    tried: list[float] = []
    prior = Watched(torch.zeros(1, 2), torch.full((1, 2), 0.5))
    assert calibrated_warmth(prior, torch.full((1, 2), 0.1)) == 1.0
    assert tried == [1.0]
    for target, counted in ((torch.ones(1, 2), torch.zeros(1, 1, dtype=torch.bool)), (torch.ones(0, 2), None)):
        with pytest.raises(UserError, match="the warmth cannot be calibrated: no value counts"):
            calibrated_warmth(prior, target, counted)


def test_calibrated_warmth_is_the_widest_prior_if_none_is_wide_enough():
    prior = InformedPrior(torch.zeros(1, 1), torch.full((1, 1), 4.0), plain_blending)
    assert calibrated_warmth(prior, torch.full((1, 1), 8.0)) == 1.0  # std 4 is wider than 1


@pytest.mark.parametrize(("error", "warmth"), [(0.5, 0.5**0.5), (0.8, 0.2**0.5), (0.15, 0.85 / 0.9), (0.1, 1.0), (0.01, 1.0), (3.0, 0.0)])
def test_calibrated_warmth_is_where_the_blended_std_is_the_error(error, warmth):
    """With std 0.1, the std of Eq. 4 is 1 - w^2 while 1 - w is larger than 0.1, and 0.1 w + 1 - w beyond w = 0.9."""
    prior = InformedPrior(torch.zeros(4, 2, 3, 3), torch.full((4, 2, 3, 3), 0.1))
    target = torch.full((4, 2, 3, 3), error)
    calibrated = calibrated_warmth(prior, target)
    assert calibrated == pytest.approx(warmth, abs=1 / 1024)
    # Known pixels, which have no error, do not count.
    counted = torch.zeros(4, 1, 3, 3, dtype=torch.bool)
    counted[:, :, 0] = True
    assert calibrated_warmth(prior, target * counted, counted) == calibrated
    assert error == 3 or prior.blended(torch.tensor([calibrated])).normalise(target).max() <= 1 + 1e-5
