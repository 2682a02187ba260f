"""Stochastic solvers against closed forms: Gaussian data, the Brownian bridge, the Foellmer process of Chen et al. (2024)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from wsdcast.runs.errors import UserError
from wsdcast.warmstart import stochastic
from wsdcast.warmstart import times as grids
from wsdcast.warmstart.evaluations import Counted, count_noise, evaluations, require_possible, solver, steps_for
from wsdcast.warmstart.solvers import trajectory
from wsdcast.warmstart.stochastic import sde1, sde2

MEAN, STD = 0.7, 0.4


def exact(x, t):
    """Velocity of the straight path from N(0, 1) to N(MEAN, STD^2)."""
    data = MEAN + STD**2 * t / (STD**2 * t**2 + (1 - t) ** 2) * (x - t * MEAN)
    return (data - x) / (1 - t)


def moments(solve, velocity, times):
    """Mean and variance of the result, without sampling: the result is linear in the noise of the start and of each step."""
    draws = times.numel() - 1
    mean = solve(velocity, torch.zeros(1, draws).double(), times)
    shares = solve(velocity, torch.eye(draws).double(), times) - mean  # one unit of noise for each sample of a batch
    return mean.item(), shares.square().sum().item()


def one_step(data, x, t, u):
    """Mean and variance of a step from t to u at state x whose data estimate is ``data``."""
    times, velocity = torch.tensor([t, u, 1.0], dtype=torch.float64), lambda state, time: (data - state) / (1 - time)
    results = []
    for draw in (0.0, 1.0):
        results.append(trajectory(sde1, velocity, torch.tensor([[x, draw]], dtype=torch.float64), times)[1].item())
    # The first noise of two steps is the state itself, the second is that of the first step.
    return results[0], (results[1] - results[0]) ** 2


@pytest.mark.parametrize("solve", [sde1, sde2])
@pytest.mark.parametrize("grid", [grids.uniform, grids.log_snr, grids.quadratic])
@pytest.mark.parametrize("steps", [2, 5, 12])
def test_the_mean_of_gaussian_data_is_exact(solve, grid, steps):
    assert moments(solve, exact, grid(steps))[0] == pytest.approx(MEAN, abs=1e-12)


@pytest.mark.parametrize(("solve", "order"), [(sde1, 1), (sde2, 2)])
def test_the_variance_of_gaussian_data_converges(solve, order):
    coarse, fine = (abs(moments(solve, exact, grids.uniform(steps))[1] - STD**2) for steps in (256, 512))
    assert fine < coarse / 2 ** (order - 0.4)
    assert fine < 0.02 * STD**2


@pytest.mark.parametrize("solve", [sde1, sde2])
def test_data_without_variance_are_reached_exactly(solve):
    noise = torch.randn(2, 5 * 3, 4, generator=torch.Generator().manual_seed(0))
    sample = solve(lambda x, t: (1.5 - x) / (1 - t), noise, grids.uniform(5))
    torch.testing.assert_close(sample, torch.full((2, 3, 4), 1.5))


@pytest.mark.parametrize("solve", [sde1, sde2])
def test_every_step_but_the_last_has_its_own_noise(solve):
    noise = torch.randn(1, 4 * 2, 3, generator=torch.Generator().manual_seed(0))
    sample = solve(exact, noise, grids.uniform(4))
    for draw in range(4):
        other = noise.clone()
        other[:, 2 * draw : 2 * draw + 2] += 1
        changed = (solve(exact, other, grids.uniform(4)) - sample).abs().max()
        # The first step draws a new state. The initial noise acts only through the data estimate, which is constant at t = 0.
        assert (changed > 1e-3) == (draw > 0)


@pytest.mark.parametrize(("solve", "order"), [(sde1, 1), (sde2, 2)])
def test_steps_are_those_written_out(solve, order):
    """Only the third of these four steps has an estimate before it at a finite log ratio and a finite one at its end."""
    noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times, ratio = [0.0, 0.3, 0.6, 0.8, 1.0], lambda t: math.log(t / (1 - t))

    def data(x, t):
        return torch.as_tensor(3 * t).sin() + 0.2 * x

    x, before = noise[:, :1], torch.zeros(())
    for step, (t, u) in enumerate(pairwise(times)):
        now = estimate = data(x, t)
        if (step, order) == (2, 2):
            estimate = now + (now - before) * (ratio(u) - ratio(t)) / (ratio(t) - ratio(times[1])) / 2
        q = ((1 - u) * t / ((1 - t) * u)) ** 2
        r = q * u / t if t else 0.0
        x, before = r * x + (u - r * t) * estimate, now
        if u < 1:
            x = x + (1 - u) * math.sqrt(1 - q) * noise[:, step + 1 : step + 2]
    torch.testing.assert_close(solve(lambda x, t: (data(x, t) - x) / (1 - t), noise, torch.tensor(times, dtype=torch.float64)), x)


def bridge_to_straight(tau):
    """Time of the straight path at which its signal-to-noise ratio is that of tau y + sqrt(tau (1 - tau)) z."""
    ratio = math.sqrt(tau / (1 - tau))
    return ratio / (1 + ratio)


@pytest.mark.parametrize(("tau", "after"), [(0.1, 0.3), (0.5, 0.6), (0.3, 0.95)])
def test_a_step_is_that_of_the_brownian_bridge_in_other_units(tau, after):
    data, x = 0.8, 0.3  # x: state of the bridge
    t, u = bridge_to_straight(tau), bridge_to_straight(after)
    mean, variance = one_step(data, x * t / tau, t, u)  # same share of the data in both units
    assert mean * after / u == pytest.approx(x + (after - tau) / (1 - tau) * (data - x), abs=1e-12)
    assert variance * (after / u) ** 2 == pytest.approx((after - tau) * (1 - after) / (1 - tau), abs=1e-12)


@pytest.mark.parametrize("tau", [0.2, 0.5, 0.8])
def test_the_interpolant_of_chen_et_al_has_their_foellmer_diffusion(tau):
    """For alpha = 1 - t, beta = t^2, sigma = 1 - t it is g^2 = (3 - t)(1 - t) (Chen et al. 2024); beta = t gives 1 - t^2 alike."""
    for beta, expected in ((lambda s: s**2, (3 - tau) * (1 - tau)), (lambda s: s, 1 - tau**2)):

        def straight(s, beta=beta):
            ratio = beta(s) / ((1 - s) * math.sqrt(s))
            return ratio / (1 + ratio)

        step = 1e-6
        t, u = straight(tau), straight(tau + step)
        _, variance = one_step(0.0, 0.0, t, u)
        assert variance * (beta(tau + step) / u) ** 2 / step == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", stochastic.SOLVERS)
def test_a_step_costs_one_evaluation_and_shows_its_state(name):
    for steps in (1, 3, 6):
        counted = Counted(exact)
        noise = torch.randn(2, count_noise(name, steps), 3, generator=torch.Generator().manual_seed(0)).double()
        states = trajectory(solver(name), counted, noise, grids.uniform(steps))
        assert counted.calls == evaluations(name, steps) == steps_for(name, steps) == steps
        assert len(states) == steps + 1
        assert torch.equal(states[0], noise[:, :1])
        assert torch.equal(states[-1], solver(name)(exact, noise, grids.uniform(steps)))


@pytest.mark.parametrize("path", ["blur-noise", "blur"])
@pytest.mark.parametrize("name", stochastic.SOLVERS)
def test_other_paths_are_refused(name, path):
    with pytest.raises(UserError, match=f"solver {name}: works on the straight path only, not on the path {path}"):
        require_possible(name, "uniform", 4, path)
    require_possible(name, "uniform", 4)
