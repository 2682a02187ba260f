"""Tests of what a project with networks and data of its own gives to the method: tensors of any shape, and tensors of a wrong one."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from wsdcast.sampling.samplers import generator_sampler
from wsdcast.verification.kernels import ranked
from wsdcast.warmstart.crps import almost_fair_crps, direct_sample
from wsdcast.warmstart.few_steps import draw_any_steps, mean_flow_loss, shortcut_loss
from wsdcast.warmstart.flow import draw, joint_loss, sample, training_loss
from wsdcast.warmstart.moments import MomentsModel, negative_log_likelihood
from wsdcast.warmstart.paths import STRAIGHT, BlurNoise, Path
from wsdcast.warmstart.prior import InformedPrior, frozen_prior
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.stochastic import sde1, sde2
from wsdcast.warmstart.times import uniform

POINTS = 5
PRIOR = InformedPrior(torch.zeros(2, 2, POINTS), torch.ones(2, 2, POINTS))
DATA = torch.linspace(-1, 2, 2 * 2 * POINTS).reshape(2, 2, POINTS)
DRAWS = draw((2, 2, POINTS), torch.Generator().manual_seed(0))


def network_of(*shape: int):
    """A network whose output is 0, of a given shape."""
    return lambda *inputs: torch.zeros(shape)


def few_steps_loss(loss, outputs: tuple[int, ...] = (2, 2, 5), noise: Tensor = DATA) -> Tensor:
    """The loss of steps alone, without flow matching, of a network whose output is 0."""
    networks = [network_of(*outputs)] * (2 if loss is shortcut_loss else 1)
    steps = draw_any_steps(2, torch.Generator().manual_seed(0))
    return loss(*networks, PRIOR, DATA, DATA, DRAWS._replace(noise=noise), steps, 0)


def on_ring(x: Tensor, factor) -> Tensor:
    """A spectral transform of points that are on no grid (:data:`wsdcast.warmstart.paths.Multiply`)."""
    values, waves = torch.linalg.eigh(2 * torch.eye(POINTS) - torch.eye(POINTS).roll(1, 0) - torch.eye(POINTS).roll(-1, 0))
    return (x @ waves * factor(values)[:, None]) @ waves.T


@pytest.mark.parametrize("path", [STRAIGHT, BlurNoise(0.5, on_ring)], ids=["straight", "blur-noise"])
def test_the_loss_weighs_channels_of_points_on_no_grid(path: Path):
    """With as many samples as channels, weights of the wrong dimension would weigh the samples, without an error."""
    weights = torch.tensor([0.5, 1.5])
    loss = training_loss(network_of(2, path.heads * 2, POINTS), PRIOR, DATA, DATA, DRAWS, path, channel_weights=weights[:, None])
    targets = path.point(DRAWS.noise, DATA, DRAWS.t)[1].unflatten(1, (path.heads, 2))
    by_hand = sum(weights[channel] * targets[:, :, channel].square().sum() for channel in range(2)) / DATA.numel()
    torch.testing.assert_close(loss, by_hand)


def test_the_moments_loss_weighs_channels_of_points_on_no_grid():
    weights = torch.tensor([0.5, 1.5])
    loss = negative_log_likelihood(lambda context: (PRIOR.mean, PRIOR.std), DATA, DATA, weights[:, None])
    by_hand = (weights[:, None] * (DATA.square() / 2 + 0.5 * math.log(2 * math.pi))).mean()
    torch.testing.assert_close(loss, by_hand)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: PRIOR.normalise(DATA[:, 0]), r"data: shape \(2, 5\) instead of \(2, 2, 5\)"),
        (lambda: PRIOR.sample(DATA[:, :1]), r"sample: shape \(2, 1, 5\)"),
        (lambda: negative_log_likelihood(lambda context: (PRIOR.mean, PRIOR.std), DATA, DATA[..., :1]), r"data: shape \(2, 2, 1\)"),
        (lambda: training_loss(network_of(2, 2, 5), PRIOR, DATA, DATA[:1], DRAWS), r"noise: shape \(2, 2, 5\) instead of \(1, 2, 5\)"),
        (lambda: training_loss(network_of(2, 5), PRIOR, DATA, DATA, DRAWS), r"output of the generator: shape \(2, 5\)"),
        (lambda: training_loss(network_of(2, 1, 5), PRIOR, DATA, DATA, DRAWS), r"output of the generator: shape \(2, 1, 5\)"),
        (
            lambda: joint_loss(network_of(2, 2, 5), MomentsModel(network_of(2, 4, 5), 2), InformedPrior, DATA, DATA[:, :1], DRAWS),
            r"data: shape \(2, 1, 5\)",
        ),
        (lambda: MomentsModel(network_of(2, 6, 5), 2)(DATA), r"moments network: shape \(2, 6, 5\) instead of \(2, 4, 5\)"),
        (lambda: MomentsModel(network_of(2, 2, 5), 2)(DATA), r"moments network: shape \(2, 2, 5\) instead of \(2, 4, 5\)"),
        (lambda: MomentsModel(network_of(2, 4, 5), 2, std="channel")(DATA), r"moments network: shape \(2, 4, 5\) instead of \(2, 2, 5\)"),
        (lambda: few_steps_loss(mean_flow_loss, noise=DATA[:, :1]), r"noise: shape \(2, 1, 5\) instead of \(2, 2, 5\)"),
        (lambda: few_steps_loss(mean_flow_loss, outputs=(2, 1, 5)), r"output of the network: shape \(2, 1, 5\)"),
        (lambda: few_steps_loss(shortcut_loss, noise=DATA[:1]), r"noise: shape \(1, 2, 5\)"),
        (lambda: few_steps_loss(shortcut_loss, outputs=(2, 1, 5)), r"output of the network: shape \(2, 1, 5\)"),
        (lambda: direct_sample(network_of(2, 2, 5), PRIOR, DATA, DATA[:1]), r"noise: shape \(1, 2, 5\) instead of \(2, 2, 5\)"),
        (lambda: almost_fair_crps(DATA[:, None], DATA[0], 1.0), r"truth: shape \(2, 5\) instead of \(1, 2, 5\)"),
        (lambda: ranked(np.zeros((4, 3, 2)), np.zeros((2, 3))), r"the truth has the shape \(2, 3\), and a member \(3, 2\)"),
        (lambda: ranked(np.zeros((6, 6, 1)), np.zeros(6)), r"the truth has the shape \(6,\), and a member \(6, 1\)"),
    ],
)
def test_a_wrong_shape_is_named_and_not_broadcast(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 2, 1), (2,), (1, 1)])
@pytest.mark.parametrize(
    "loss",
    [
        lambda weights: training_loss(network_of(2, 2, POINTS), PRIOR, DATA, DATA, DRAWS, channel_weights=weights),
        lambda weights: negative_log_likelihood(lambda context: (PRIOR.mean, PRIOR.std), DATA, DATA, weights),
    ],
)
def test_weights_of_a_wrong_shape_are_named_and_not_broadcast(loss, shape):
    """With a dimension more, (2, 1, 1), they would weigh the two samples."""
    with pytest.raises(ValueError, match=re.escape(f"weights of the channels: shape {shape} instead of (2, 1)")):
        loss(torch.ones(shape))


@pytest.mark.parametrize(("channels", "outputs"), [(2, (2, 5)), (2, (2, 1, 5)), (1, (2, 2, 5))])
def test_a_sample_of_a_wrong_shape_is_named_and_not_broadcast(channels, outputs):
    prior_of = frozen_prior(lambda context: (PRIOR.mean, PRIOR.std))
    with pytest.raises(ValueError, match="noise: shape" if channels == 1 else "velocity of the generator: shape"):
        sample(network_of(*outputs), prior_of, DATA, DATA[:, :channels], uniform(1), midpoint)


@pytest.mark.parametrize(
    ("fields", "solve", "named"),
    [
        (1, sde1, r"state of the solver: shape \(2, 1, 5\) instead of \(2, 2, 5\)"),
        (3, sde2, r"state of the solver: shape \(2, 3, 5\) instead of \(2, 2, 5\)"),
        (0.5, sde2, "noise: shape"),
        (1.5, sde2, "noise: 3 channels instead of a multiple of 2"),
        (2, midpoint, r"state of the solver: shape \(2, 4, 5\) instead of \(2, 2, 5\)"),
    ],
)
def test_noise_for_another_number_of_steps_is_named(fields, solve, named):
    """A stochastic solver of two steps takes two fields of noise for each sample, any other solver takes one."""
    prior_of = frozen_prior(lambda context: (PRIOR.mean, PRIOR.std))
    with pytest.raises(ValueError, match=named):
        sample(network_of(2, 2, 5), prior_of, DATA, torch.ones(2, int(2 * fields), 5), uniform(2), solve)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3,), (3, POINTS), (3, 4, 6), (3, 2, 3, 4)], ids=["no space", "points", "image", "volume"])
def test_a_sample_has_the_shape_and_precision_of_the_data(shape, dtype):
    """The velocity to N(0, 0.5^2) in normalised space takes noise to half of it, whatever the shape; a batch may have one sample."""
    random = torch.Generator().manual_seed(0)
    context, noise = torch.randn(2, 1, *shape, generator=random, dtype=dtype)
    prior_of = frozen_prior(lambda context: (context, torch.full_like(context, 0.1)))

    def generator(x: Tensor, t: Tensor, warmth: Tensor) -> Tensor:
        return (t * 0.25 - (1 - t)) / ((1 - t) ** 2 + t**2 * 0.25) * x[:, : shape[0]]

    drawn = generator_sampler(generator, prior_of, 200, 1.0, uniform(100), midpoint)(context, noise)
    assert drawn.dtype == dtype
    torch.testing.assert_close(drawn, context + 0.1 * 0.5 * noise, atol=1e-4, rtol=0)
