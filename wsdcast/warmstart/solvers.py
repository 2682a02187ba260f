"""Solvers of dx/dt = velocity(x, t): one function each, ``solve(velocity, noise, times) -> sample``.

One-step methods are Runge-Kutta methods. Multistep methods keep past evaluations, so a step costs one evaluation. Adams-Bashforth (here)
integrates the polynomial through the last velocities. DPM-Solver++ (:mod:`wsdcast.warmstart.dpm`) integrates the polynomial through the
last estimates of the data, in the log signal-to-noise ratio. :mod:`wsdcast.warmstart.evaluations` counts the evaluations of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From state (batch, ...) and time (a scalar tensor) to the velocity, of the shape of the state."""

Solver = Callable[[Velocity, Tensor, Tensor], Tensor]
"""``solve(velocity, noise, times)`` returns the state at the last of the increasing times (steps + 1,). The noise is the first state."""

Watch = Callable[[Tensor], None]
"""A function that a solver calls with the state at each time, including the first and the last."""


class Watched(Protocol):
    """A solver that shows its states to a :data:`Watch`."""

    def __call__(self, velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = ...) -> Tensor:
        """As a :data:`Solver`."""


def unwatched(state: Tensor) -> None:
    """Do nothing with a state."""


class Tableau(NamedTuple):
    """Butcher's tableau of an explicit Runge-Kutta method: nodes (shares of a step), matrix of the stages, weights of the slopes."""

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


EULER = Tableau((0,), ((),), (1,))
MIDPOINT = Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1))
HEUN2 = Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2))
HEUN3 = Tableau((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4))
THREE_EIGHTHS = Tableau((0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8))


def runge_kutta(tableau: Tableau, velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """A Runge-Kutta method. A step costs one evaluation for each node of the tableau."""
    x = noise
    watch(x)
    for start, end in pairwise(times.tolist()):
        x = _step(tableau, velocity, x, start, end, velocity(x, x.new_full((), start)))
        watch(x)
    return x


def euler(velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """First order; on straight paths the same as DDIM (Gao et al. 2024)."""
    return runge_kutta(EULER, velocity, noise, times, watch=watch)


def midpoint(velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """Second order, two evaluations a step, none at the data end (t = 1)."""
    return runge_kutta(MIDPOINT, velocity, noise, times, watch=watch)


def heun2(velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """Second order, two evaluations a step, the last at the data end, where a generator is least reliable."""
    return runge_kutta(HEUN2, velocity, noise, times, watch=watch)


def heun3(velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """Third order, three evaluations a step."""
    return runge_kutta(HEUN3, velocity, noise, times, watch=watch)


def rk4(velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """Fourth order, four evaluations a step: Kutta's 3/8 rule, as torchdiffeq's ``rk4``."""
    return runge_kutta(THREE_EIGHTHS, velocity, noise, times, watch=watch)


def adams_bashforth(
    order: int, velocity: Velocity, noise: Tensor, times: Tensor, momentum: float = 1.0, *, watch: Watch = unwatched
) -> Tensor:
    """Adams-Bashforth of order 2 to 4 on any grid. A step costs one evaluation, except the first steps.

    The first steps are Runge-Kutta steps, of the lowest order that keeps the order of the method: none for 2, one midpoint step for 3,
    two steps of Heun's third-order method for 4.

    With ``momentum`` b < 1 it is the generalised heavy ball of Wizadwongsa et al. (2023), of order ``order`` - 1 + b. It is more stable
    with large steps. It averages the velocity, v <- (1 - b) v + b velocity(x), and integrates v + (1 - b) / b (v - previous v), with
    one order less for the difference.

    Args:
        order: 2, 3 or 4.
        velocity, noise, times: as for any solver.
        momentum: b in (0, 1]; 1 is plain Adams-Bashforth.
        watch: called with each state.
    """
    x = noise
    watch(x)
    start_up = {2: EULER, 3: MIDPOINT, 4: HEUN3}[order]
    known: list[float] = []
    averages: list[Tensor] = []  # newest first, as the times in `known`
    changes: list[Tensor] = []
    for step, (start, end) in enumerate(pairwise(times.tolist())):
        slope = velocity(x, x.new_full((), start))
        average = slope if not averages else (1 - momentum) * averages[0] + momentum * slope
        changes = [average - averages[0] if averages else 0 * average, *changes][: order - 1]
        averages, known = [average, *averages][:order], [start, *known][:order]
        if step < order - 2:
            x = _step(start_up, velocity, x, start, end, slope)
        else:
            x = x + combine(_quadrature(known[: len(averages)], start, end), averages)
            if momentum < 1:
                x = x + (1 - momentum) / momentum * combine(_quadrature(known[: len(changes)], start, end), changes)
        watch(x)
    return x


ab2, ab3, ab4 = (partial(adams_bashforth, order) for order in (2, 3, 4))


def _step(tableau: Tableau, velocity: Velocity, x: Tensor, start: float, end: float, slope: Tensor) -> Tensor:
    """One Runge-Kutta step from ``start`` to ``end``, given its first slope."""
    slopes = [slope]
    for node, row in zip(tableau.nodes[1:], tableau.matrix[1:], strict=True):
        inner = x + (end - start) * combine(row, slopes)
        slopes.append(velocity(inner, x.new_full((), start + node * (end - start))))
    return x + (end - start) * combine(tableau.weights, slopes)


def _quadrature(known: Sequence[float], start: float, end: float) -> list[float]:
    """Weights of values at ``known`` times that integrate every polynomial through them from ``start`` to ``end``."""
    length = end - start
    powers = np.arange(len(known))
    at = (np.array(known) - start) / length
    return list(length * np.linalg.solve(at[None, :] ** powers[:, None], 1 / (powers + 1)))


def combine(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Weighted sum."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        if weight:
            total = total + weight * value
    return total
