"""A solver of one's own: Ralston's method of third order, beside the midpoint rule at equal cost.

    python examples/new_solver.py

A solver is one function, ``solve(velocity, noise, times) -> sample``, and :func:`wsdcast.warmstart.flow.sample` takes any. To choose it in
recipes, add its name to ``wsdcast/runs/names.py`` and ``wsdcast/warmstart/evaluations.py``.

Prints the largest error of samples on flows whose solution is known: to one Gaussian, which midpoint happens to solve to the third
order too, and to two, where it does not; and the order, from the last two rows.
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
    """Third order with the smallest bound of its error (Ralston 1962), three evaluations a step."""
    x = noise
    for start, end in pairwise(times.tolist()):
        step = end - start
        first = velocity(x, x.new_full((), start))
        second = velocity(x + step * first / 2, x.new_full((), start + step / 2))
        third = velocity(x + step * second * 3 / 4, x.new_full((), start + step * 3 / 4))
        x = x + step * (2 * first + 3 * second + 4 * third) / 9
    return x


def velocity_to(means: Tensor) -> Velocity:
    """The exact velocity, E[data - noise | x], to equal shares of Gaussians with these means (mixture,) and standard deviation STD."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t, away = t.double(), x[..., None] - t * means
        variance = (1 - t) ** 2 + (t * STD) ** 2
        share = (-(away**2) / (2 * variance)).softmax(dim=-1)
        return (share * (means + (t * STD**2 - (1 - t)) / variance * away)).sum(dim=-1)

    return velocity


def exact(noise: Tensor, means: Tensor) -> Tensor:
    """Where that flow takes noise: in one dimension paths do not cross, so quantiles go to quantiles; found by bisection."""
    low, high = torch.full_like(noise, -10), torch.full_like(noise, 10)
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.ndtr((middle[:, None] - means) / STD).mean(dim=-1) < torch.special.ndtr(noise)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def error(solve: Solver, evaluations: int, means: Tensor) -> float:
    """Largest error of a solver with so many evaluations, which are counted."""
    steps = evaluations // {midpoint: 2, ralston3: 3}[solve]
    counted = Counted(velocity_to(means))
    found = solve(counted, NOISE, uniform(steps).double())
    assert counted.calls == evaluations
    return (found - exact(NOISE, means)).abs().max().item()


def main() -> dict[str, list[float]]:
    """Print the table; returns its columns."""
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
