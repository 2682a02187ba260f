"""The times of SGMSE (Richter et al. 2023) against the process as it is published, on Gaussian data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsdcast.runs.errors import UserError
from wsdcast.warmstart.evaluations import SOLVERS, grid, require_possible
from wsdcast.warmstart.flow import sample
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.warmstart.solvers import midpoint
from wsdcast.warmstart.stochastic import sde1, sde2
from wsdcast.warmstart.times import sgmse

THETA, LOW, HIGH = 1.5, 0.05, 0.5
PREDICTED, SCALE = 2.0, 0.6  # mean and standard deviation of the prior
MEAN, STD = 2.3, 0.4  # of the data


def published(s: float) -> tuple[float, float]:
    """Share of the data and noise level at time s, by integrating dx = theta (mean - x) ds + g dw in small steps."""
    share, variance, count = 1.0, 0.0, 200_000
    step = s / count
    for number in range(count):
        middle = (number + 0.5) * step
        diffusion = LOW * (HIGH / LOW) ** middle * math.sqrt(2 * math.log(HIGH / LOW))
        share *= 1 - step * THETA + (step * THETA) ** 2 / 2
        variance += step * (diffusion**2 - 2 * THETA * variance)
    return share, math.sqrt(variance)


def test_signal_and_noise_are_those_of_the_process():
    times = sgmse(4)
    assert times.shape == (5,)
    assert times[-1] == 1
    for s, t in zip(np.linspace(1, 0.03, 4), times.tolist(), strict=False):
        share, noise = published(s)
        assert (1 - t) / t == pytest.approx(noise / share, rel=1e-4)
    assert times[0].item() == pytest.approx(0.3645, abs=1e-4)
    assert (sgmse(30).diff() > 0).all()
    torch.testing.assert_close(sgmse(1), torch.stack([times[0], times[-1]]))


class Exact(nn.Module):
    """The velocity of Gaussian data on the straight path in the normalised space of the prior."""

    def forward(self, inputs: Tensor, t: Tensor, warmth: Tensor) -> Tensor:
        x, t = inputs[:, :1], t.to(inputs).clamp(max=1 - 1e-12)
        mean, std = (MEAN - PREDICTED) / SCALE, STD / SCALE
        data = mean + std**2 * t / (std**2 * t**2 + (1 - t) ** 2) * (x - t * mean)
        return (data - x) / (1 - t)


def sampled(noise: Tensor, times: Tensor, solve=midpoint) -> Tensor:
    """Samples for noise (batch, noise_count, 1), by Algorithm 2 with the exact velocity."""
    one = torch.ones(len(noise), 1, 1, dtype=torch.float64)
    prior = InformedPrior(PREDICTED * one, SCALE * one)
    return sample(Exact(), lambda _: prior, one, noise, times, solve)


def test_samples_are_those_of_the_published_probability_flow():
    """It moves quantiles of N(m + a (MEAN - m), a^2 STD^2 + b^2) to quantiles of the data; it starts from m + b z."""
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1, 1)
    share, noise = published(1.0)
    noise *= SCALE  # the published noise is in units of the standard deviation of the prior
    start = PREDICTED + noise * z
    at_start = PREDICTED + share * (MEAN - PREDICTED), math.hypot(share * STD, noise)
    expected = MEAN + STD * (start - at_start[0]) / at_start[1]
    torch.testing.assert_close(sampled(z, sgmse(400)), expected, atol=2e-4, rtol=0)
    # What is left of the data at the start is missing in it, so the spread is too small.
    assert (expected[-1] - expected[0]).item() / (4 * STD) == pytest.approx(noise / at_start[1], rel=1e-9)


def test_with_more_steps_every_solver_gets_there():
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1, 1)
    truth = sampled(z, sgmse(2000))
    for name, solve in SOLVERS.items():
        coarse, fine = ((sampled(z, sgmse(steps), solve) - truth).abs().max() for steps in (6, 48))
        assert fine < coarse / 2, name


@pytest.mark.parametrize("solve", [sde1, sde2])
def test_the_noise_of_later_steps_stays_as_it_is(solve):
    """Samples are linear in the noise; the variance that each draw adds is counted."""
    steps = 200
    noise = torch.cat([torch.zeros(1, steps), torch.eye(steps)]).double()[:, :, None]
    samples = sampled(noise, sgmse(steps), solve)
    shares = (samples[1:] - samples[0]).square()
    assert shares.sum().item() == pytest.approx(STD**2, rel=0.1)
    assert shares[0].item() < 0.2 * STD**2


def test_a_path_without_noise_has_no_such_start():
    with pytest.raises(UserError, match="grid_in_time sgmse: begins with noise, which the path blur does not have"):
        require_possible("midpoint", "sgmse", 4, "blur")
    require_possible("midpoint", "sgmse", 4, "blur-noise")
    torch.testing.assert_close(grid("sgmse", 5), sgmse(5))
