"""Tests of solvers and time grids against closed forms, torchdiffeq, and the number of evaluations they claim."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from wsdcast.runs.errors import UserError
from wsdcast.runs.names import TORCHDIFFEQ, GridName, SolverName
from wsdcast.warmstart import stochastic, times
from wsdcast.warmstart.dpm import _weights, dpm_solver
from wsdcast.warmstart.evaluations import ALL_SOLVERS, GRIDS, SOLVERS, Counted, evaluations, grid, solver, steps_for
from wsdcast.warmstart.solvers import adams_bashforth, euler, midpoint, trajectory
from wsdcast.weather.recipe import Rollout

MEAN, STD = 0.8, 0.3
FROM_0 = [name for name in GRIDS if name != "sgmse"]
"""The times of SGMSE begin later: test_sgmse.py."""


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """Return the exact velocity for data N(MEAN, STD^2): E[data - noise | x]."""
    t = t.to(x)
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def exact(x: Tensor) -> Tensor:
    """Return the sample to which the exact flow takes noise ``x``."""
    return MEAN + STD * x


def noise() -> Tensor:
    return torch.linspace(-2, 2, 9, dtype=torch.float64)


def error(solve, grid: Tensor, truth: Tensor | None = None) -> float:
    return (solve(velocity, noise(), grid) - (exact(noise()) if truth is None else truth)).abs().max().item()


def order(solve, grid_of, steps: int) -> float:
    """Return the order of convergence, measured by halving the steps."""
    truth = END * MEAN + noise() * ((1 - END) ** 2 + (END * STD) ** 2) ** 0.5
    coarse, fine = (error(solve, END / grid[-1] * grid, truth) for grid in (grid_of(steps), grid_of(2 * steps)))
    return math.log2(coarse / fine)


END = 0.7
"""Flow time at which orders are measured. At the end of this flow some errors of lowest order cancel."""


def log_ratios(steps: int) -> Tensor:
    """Return times with equal steps in the log ratio. The first is so low that the error of the first-order step to it is negligible."""
    return torch.cat([torch.zeros(1).double(), torch.linspace(-16, math.log(END / (1 - END)), steps, dtype=torch.float64).sigmoid()])


@pytest.mark.parametrize(
    ("name", "expected", "grid_of"),
    [
        ("euler", 1, times.uniform),
        ("midpoint", 3, times.uniform),  # on this flow one order better than in general; see the next test
        ("heun2", 2, times.uniform),
        ("heun3", 3, times.uniform),
        ("rk4", 4, times.uniform),
        ("ab2", 2, times.uniform),
        ("ab3", 3, times.uniform),
        ("ab4", 4, times.uniform),
        ("ab3", 3, times.quadratic),  # a grid of unequal steps
        ("ab4", 4, times.quadratic),
        ("dpm2", 2, log_ratios),
        ("dpm3", 3, log_ratios),
    ],
)
def test_order_of_every_solver(name, expected, grid_of):
    """The flow to a Gaussian has a closed form. A third-order DPM-Solver without the factor 2 would have order 2."""
    assert order(SOLVERS[name], grid_of, 400 if name.startswith("dpm") else 80) == pytest.approx(expected, abs=0.15)


def order_on_another_equation(solve, steps: int) -> float:
    """Return the order on dx/dt = x cos(t), whose solution is exp(sin t)."""

    def error(steps: int) -> float:
        x = solve(lambda x, t: x * torch.cos(t), torch.ones(1, dtype=torch.float64), times.uniform(steps))
        return abs(x.item() - math.exp(math.sin(1.0)))

    return math.log2(error(steps) / error(2 * steps))


@pytest.mark.parametrize(
    ("name", "expected"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4), ("ab2", 2), ("ab4", 4)]
)
def test_order_on_another_equation(name, expected):
    assert order_on_another_equation(SOLVERS[name], 128) == pytest.approx(expected, abs=0.15)


def test_the_ends_limit_dpm_solver():
    """From noise to data it is of order 2, and with fixed ends of the log-snr grid the error of an Euler step at either end stays."""
    coarse, fine = (error(SOLVERS["dpm3"], times.uniform(steps)) for steps in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.05)
    for end, left in ((3.0, 8.2e-3), (4.0, 1.1e-3), (5.0, 1.5e-4)):
        grid_ = times.log_snr(400, (-end, end))
        (first, last), start = grid_[[1, -2]], noise()
        std_first, std_last = (((1 - t) ** 2 + (t * STD) ** 2) ** 0.5 for t in (first, last))
        state = start + first * velocity(start, grid_[0])
        state = last * MEAN + std_last / std_first * (state - first * MEAN)  # the exact flow between the ends
        state = state + (1 - last) * velocity(state, last)
        torch.testing.assert_close(SOLVERS["dpm3"](velocity, start, grid_), state, rtol=0, atol=2e-5)
        assert (state - exact(start)).abs().max().item() == pytest.approx(left, rel=0.03)


@pytest.mark.parametrize("momentum", [0.4, 0.8])
@pytest.mark.parametrize("name", ["ab2", "ab3", "ab4"])
def test_the_heavy_ball_is_of_second_order(name, momentum):
    """Its authors give k - 1 + momentum."""
    assert order_on_another_equation(solver(name, momentum), 400) == pytest.approx(2, abs=0.1)


def test_third_order_integrates_a_quadratic_exactly():
    """For a data estimate quadratic in the log ratio, the third order is exact to rounding and the second order is not."""

    def ratio(t: float) -> float:
        return math.log(t / (1 - t))

    def estimate(r: float) -> float:
        return 1 + 0.3 * r - 0.2 * r**2

    def primitive(r: float) -> float:
        """Return the primitive of exp(r) times the estimate."""
        return math.exp(r) * (1 + 0.3 * (r - 1) - 0.2 * (r * r - 2 * r + 2))

    known, end = [0.5, 0.35, 0.15], 0.7
    truth = (1 - end) * (primitive(ratio(end)) - primitive(ratio(known[0])))
    for order, exactly in ((3, True), (2, False)):
        weights = _weights([ratio(t) for t in known[:order]], known[0], end)
        step = sum(weight * estimate(ratio(t)) for weight, t in zip(weights, known, strict=False))
        assert (abs(step - truth) < 1e-14) == exactly


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun2", "heun3", "rk4"])
@pytest.mark.parametrize("grid_of", [times.uniform, times.quadratic])
def test_same_as_torchdiffeq(name, grid_of):
    from torchdiffeq import odeint

    grid = grid_of(7)
    theirs = odeint(lambda t, x: velocity(x, t), noise(), grid, method=name)[-1]
    torch.testing.assert_close(SOLVERS[name](velocity, noise(), grid), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TORCHDIFFEQ)
def test_torchdiffeq_methods_can_be_used_by_their_name(name):
    assert max(error(solver(name), times.uniform(steps)) for steps in (10, 20, 40)) < 1e-3
    assert evaluations(name, 20) >= 20


def test_adams_bashforth_has_its_textbook_weights():
    """On equal steps the weights of order 3 are 23/12, -16/12 and 5/12."""
    evaluated = []

    def flow(x: Tensor, t: Tensor) -> Tensor:
        evaluated.append((t.item(), float(len(evaluated) + 1)))
        return torch.full_like(x, evaluated[-1][1])

    # The velocities are 1, 2, ... in the order of evaluation: 1 and 2 in the midpoint step, then 3, 4, 5.
    x = adams_bashforth(3, flow, torch.zeros(1).double(), times.uniform(4))
    h = 0.25
    by_hand = h * 2 + h * (1.5 * 3 - 0.5 * 1)
    # The order is limited by the history: 2 in the second step, with the velocities 1 and 3, and then 3.
    by_hand += h * (23 * 4 - 16 * 3 + 5 * 1) / 12 + h * (23 * 5 - 16 * 4 + 5 * 3) / 12
    assert x.item() == pytest.approx(by_hand)


@pytest.mark.parametrize("momentum", [0.3, 0.7, 1.0])
def test_momentum_is_the_generalised_heavy_ball(momentum):
    """The closed form of order 2 on equal steps is ((2 + b) v_n - (2 - b) v_n-1) / (2 b), with the averaged velocity v."""
    grid = times.uniform(12)
    x, averages = noise(), []
    for t in grid[:-1]:
        slope = velocity(x, t)
        averages.append(slope if not averages else (1 - momentum) * averages[-1] + momentum * slope)
        before = averages[-2] if len(averages) > 1 else averages[-1]
        step = ((2 + momentum) * averages[-1] - (2 - momentum) * before) / (2 * momentum)
        x = x + step / 12
    torch.testing.assert_close(adams_bashforth(2, velocity, noise(), grid, momentum), x)


def test_euler_is_the_first_order_dpm_solver_and_ddim():
    for grid_of in GRIDS.values():
        torch.testing.assert_close(euler(velocity, noise(), grid_of(6)), dpm_solver(1, velocity, noise(), grid_of(6)))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("grid_name", FROM_0)
def test_every_solver_is_finite_and_converges_on_every_grid(name, grid_name):
    """Samples are finite although the log ratio is infinite at both ends. Most solvers solve straight paths to a point exactly."""
    to_a_point = lambda x, t: (2.5 - x) / (1 - t) if t < 1 else 0 * x  # noqa: E731
    sample = SOLVERS[name](to_a_point, noise(), GRIDS[grid_name](8))
    assert torch.isfinite(sample).all()
    if name.startswith(("dpm", "euler", "midpoint", "ab2")):
        torch.testing.assert_close(sample, torch.full_like(sample, 2.5), rtol=1e-9, atol=1e-9)
    coarse, fine = (error(SOLVERS[name], GRIDS[grid_name](steps)) for steps in (6, 48))
    floor = 0.02 if grid_name == "log-snr" else 0  # its first and last steps stay the same with more steps
    assert fine < coarse / 2 + floor


@pytest.mark.parametrize("name", FROM_0)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_grids_increase_from_0_to_1(name, steps):
    grid_ = grid(name, steps)
    assert grid_.shape == (steps + 1,)
    assert (grid_[0], grid_[-1]) == (0, 1)
    assert (grid_.diff() > 0).all()


def test_time_grids_follow_their_formula():
    np.testing.assert_allclose(times.uniform(4), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(times.quadratic(4), [0, 7 / 16, 12 / 16, 15 / 16, 1])
    inner = times.log_snr(6, (-2, 4))[1:-1]
    np.testing.assert_allclose(torch.log(inner / (1 - inner)), [-2, -0.5, 1, 2.5, 4][:5], atol=1e-12)
    np.testing.assert_allclose(grid("log-snr", 6, (-2, 4))[1:-1], inner)
    sigma = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(1, 5)]
    np.testing.assert_allclose(times.edm(5)[1:-1], [1 / (1 + s) for s in sigma])


@pytest.mark.parametrize("ends", [(-15.0, 15.0), (-15.0, -14.98), (-0.006, 0.006), (14.98, 15.0)])
def test_times_differ_between_all_ends_that_a_recipe_may_have(ends):
    """Also between the narrowest ends, with more steps than anyone takes. What a network gets, in single precision, stays below 1."""
    allowed = Rollout(log_snr_ends=ends).log_snr_ends
    assert (grid("log-snr", 10_000, allowed).diff() > 0).all()
    assert 0 < grid("log-snr", 3, allowed)[1:-1].float().min() <= grid("log-snr", 3, allowed)[1:-1].float().max() < 1


def test_every_name_of_a_solver_or_grid_is_one():
    assert {"auto", *ALL_SOLVERS} == set(get_args(SolverName))
    assert set(GRIDS) == set(get_args(GridName))


@pytest.mark.parametrize("name", [name for name in ALL_SOLVERS if name not in stochastic.SOLVERS])
def test_a_trajectory_has_the_states_of_the_solver(name):
    """The state at each time is what the solver returns if it gets only the times up to that one."""
    solve, grid_ = solver(name), times.uniform(6)
    states = trajectory(solve, velocity, noise(), grid_)
    assert len(states) == len(grid_)
    assert torch.equal(states[0], noise())
    assert torch.equal(states[-1], solve(velocity, noise(), grid_))
    for number, state in enumerate(states[1:], start=1):
        torch.testing.assert_close(state, solve(velocity, noise(), grid_[: number + 1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in ALL_SOLVERS if name not in stochastic.SOLVERS])
def test_solvers_make_as_many_evaluations_as_they_claim(name):
    for steps in (1, 2, 3, 7):
        counted = Counted(velocity)
        solve = solver(name)
        solve(counted, noise(), times.uniform(steps))
        assert counted.calls == evaluations(name, steps)


@pytest.mark.parametrize(
    ("name", "nfe", "steps"),
    [("euler", 7, 7), ("midpoint", 10, 5), ("heun3", 9, 3), ("rk4", 8, 2), ("ab2", 5, 5), ("ab3", 5, 4), ("ab4", 10, 6), ("dpm3", 6, 6)],
)
def test_steps_are_found_for_a_number_of_evaluations(name, nfe, steps):
    assert steps_for(name, nfe) == steps


@pytest.mark.parametrize(
    ("name", "nfe", "nearest"),
    [
        ("midpoint", 1, "number is 2"),
        ("midpoint", 0, "number is 2"),
        ("midpoint", 5, "numbers are 4 and 6"),
        ("heun3", 10, "number is 9"),
        ("rk4", 3, "number is 4"),
        ("rk4", 6, "numbers are 4 and 8"),
        ("ab4", 4, "number is 3"),
    ],
)
def test_impossible_numbers_of_evaluations_are_refused(name, nfe, nearest):
    with pytest.raises(UserError, match=rf"nfe {nfe}: .* nearest possible {nearest}$"):
        steps_for(name, nfe)


def test_names_and_options_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="expected one of euler, "):
        solver("magic")
    with pytest.raises(UserError, match="expected one of uniform, "):
        grid("magic", 4)
    with pytest.raises(UserError, match="midpoint has no momentum"):
        solver("midpoint", momentum=0.5)


def test_midpoint_never_evaluates_at_the_data_end():
    evaluated = []
    midpoint(lambda x, t: evaluated.append(t.item()) or x, noise(), times.uniform(5))
    assert evaluated[0] == 0
    assert max(evaluated) < 1
