"""Add a solver, Ralston's method of third order, and compare it with the midpoint rule at equal cost.

    python examples/new_solver.py

A solver is one function, ``solve(velocity, noise, times) -> sample``, and :func:`wsdcast.warmstart.flow.sample` accepts any. To use it in
recipes, follow CONTRIBUTING.md.

Prints the largest error of samples on two flows whose exact solution is known, and the order of convergence computed from the last two
rows. The flow to one Gaussian is a special case: the midpoint rule happens to have order three there. On the flow to two Gaussians it has
order two.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from wsdcast.warmstart.evaluations import Counted
from wsdcast.warmstart.solvers import Solver, Velocity, midpoint
from wsdcast.warmstart.times import uniform

EVALUATIONS = (6, 12, 24, 48, 96)
STD = 0.5
NOISE = torch.linspace(-2, 2, 101, dtype=torch.float64)


def ralston3(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Ralston's third-order method, which has the smallest error bound (Ralston 1962); three evaluations per step."""
    x = noise
    for start, end in pairwise(times.tolist()):
        step = end - start
        first = velocity(x, x.new_full((), start))
        second = velocity(x + step * first / 2, x.new_full((), start + step / 2))
        third = velocity(x + step * second * 3 / 4, x.new_full((), start + step * 3 / 4))
        x = x + step * (2 * first + 3 * second + 4 * third) / 9
    return x


def velocity_to(means: Tensor) -> Velocity:
    """Return the exact velocity, E[data - noise | x], to an equal mixture of Gaussians with ``means`` (mixture,) and std STD."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t, distance = t.double(), x[..., None] - t * means
        variance = (1 - t) ** 2 + (t * STD) ** 2
        share = (-(distance**2) / (2 * variance)).softmax(dim=-1)
        return (share * (means + (t * STD**2 - (1 - t)) / variance * distance)).sum(dim=-1)

    return velocity


def exact(noise: Tensor, means: Tensor) -> Tensor:
    """Return where the exact flow takes ``noise``. Paths do not cross in one dimension, so quantiles go to quantiles; by bisection."""
    low, high = torch.full_like(noise, -10), torch.full_like(noise, 10)
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle[:, None] - means) / STD).mean(dim=-1) < torch.special.ndtr(noise)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def error(solve: Solver, evaluations: int, means: Tensor) -> float:
    """Return the largest error of a solver with a number of evaluations. The evaluations are counted."""
    steps = evaluations // {midpoint: 2, ralston3: 3}[solve]
    counted = Counted(velocity_to(means))
    samples = solve(counted, NOISE, uniform(steps).double())
    assert counted.calls == evaluations
    return (samples - exact(NOISE, means)).abs().max().item()


def main() -> dict[str, list[float]]:
    """Print the table and return its columns."""
    flows = {"one Gaussian": torch.tensor([0.8]).double(), "two Gaussians": torch.tensor([-1.0, 1.0]).double()}
    columns = {
        f"{name}: {solve.__name__}": [error(solve, evaluations, means) for evaluations in EVALUATIONS]
        for name, means in flows.items()
        for solve in (midpoint, ralston3)
    }
    print(f"| evaluations | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for number, evaluations in enumerate(EVALUATIONS):
        print(f"| {evaluations} | {' | '.join(f'{errors[number]:.1e}' for errors in columns.values())} |")
    print(f"| order | {' | '.join(f'{math.log2(errors[-2] / errors[-1]):.2f}' for errors in columns.values())} |")
    return columns


if __name__ == "__main__":
    main()
