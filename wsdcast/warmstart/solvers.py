"""Solvers of the ordinary differential equation dx/dt = velocity(x, t), from noise at t = 0 to data at t = 1.

Each solver is one function, ``solve(velocity, noise, times) -> sample``. There are two kinds:

- A one-step method is a Runge-Kutta method. It evaluates the velocity once or several times in each step and forgets these values.
- A multistep method keeps earlier evaluations, so a step costs one new evaluation. Adams-Bashforth (in this module) integrates the
  polynomial in t through the last velocities. DPM-Solver++ (:mod:`wsdcast.warmstart.dpm`) integrates the polynomial in the log
  signal-to-noise ratio through the last estimates of the data.

:mod:`wsdcast.warmstart.evaluations` counts the function evaluations (NFE) of each solver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Maps the state, (batch, ...), and the time, a scalar tensor, to the velocity, of the shape of the state."""

Solver = Callable[[Velocity, Tensor, Tensor], Tensor]
"""Maps the velocity, the state at the first time, and increasing times, (steps + 1,), to the state at the last time."""


class Tableau(NamedTuple):
    """The Butcher tableau of an explicit Runge-Kutta method.

    Attributes:
        nodes: the stages, as fractions of a step.
        matrix: for each stage, the weights of the earlier slopes that lead to it.
        weights: the weights of all slopes in the step.
    """

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


EULER = Tableau((0,), ((),), (1,))
MIDPOINT = Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1))
HEUN2 = Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2))
HEUN3 = Tableau((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4))
THREE_EIGHTHS = Tableau((0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8))


def runge_kutta(tableau: Tableau, velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Solve with the one-step method of a tableau. A step costs one evaluation for each node."""
    x = noise
    for start, end in pairwise(times.tolist()):
        x = _step(tableau, velocity, x, start, end, velocity(x, x.new_full((), start)))
    return x


def euler(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Euler's method: first order, one evaluation per step. On straight paths it is the same as DDIM (Gao et al. 2024)."""
    return runge_kutta(EULER, velocity, noise, times)


def midpoint(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """The midpoint method: second order, two evaluations per step, none of them at t = 1."""
    return runge_kutta(MIDPOINT, velocity, noise, times)


def heun2(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Heun's second-order method: two evaluations per step. The last one is at t = 1, where a generator is least reliable."""
    return runge_kutta(HEUN2, velocity, noise, times)


def heun3(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Heun's third-order method: three evaluations per step."""
    return runge_kutta(HEUN3, velocity, noise, times)


def rk4(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Kutta's 3/8 rule: fourth order, four evaluations per step. torchdiffeq has the same method under this name."""
    return runge_kutta(THREE_EIGHTHS, velocity, noise, times)


def adams_bashforth(order: int, velocity: Velocity, noise: Tensor, times: Tensor, momentum: float = 1.0) -> Tensor:
    """Solve with the Adams-Bashforth method of order 2 to 4 on any grid. A step costs one evaluation once there is a full history.

    Each step adds the integral over the step of the polynomial in t through the last ``order`` velocities, or through as many as there are.
    The first ``order`` - 2 steps are Runge-Kutta steps of order ``order`` - 1, the lowest that does not reduce the order of the whole:
    none for order 2, one midpoint step for order 3, and two steps of Heun's third-order method for order 4.

    With ``momentum`` b < 1 it is the generalised heavy ball of Wizadwongsa et al. (2023), which is more stable with large steps. Its order
    is 2 whatever ``order`` and b: the average begins with the first velocity, so its first differences are too small. It keeps a running
    average of the velocity,

        m_n = (1 - b) m_{n-1} + b velocity(x_n),    so    velocity(x_n) = m_n + (1 - b) / b (m_n - m_{n-1}),

    and integrates the polynomial through the last ``order`` averages plus (1 - b) / b times that through the last ``order`` - 1
    differences.

    Args:
        order: 2, 3 or 4.
        velocity, noise, times: as for any solver.
        momentum: b in (0, 1]; 1 is plain Adams-Bashforth.
    """
    x = noise
    start_up = {2: EULER, 3: MIDPOINT, 4: HEUN3}[order]
    # Newest first: the times of the last evaluations, the averages m_n there, and the differences m_n - m_{n-1}.
    past_times: list[float] = []
    averages: list[Tensor] = []
    differences: list[Tensor] = []
    for step, (start, end) in enumerate(pairwise(times.tolist())):
        slope = velocity(x, x.new_full((), start))
        average = slope if not averages else (1 - momentum) * averages[0] + momentum * slope
        differences = [average - averages[0] if averages else 0 * average, *differences][: order - 1]
        averages, past_times = [average, *averages][:order], [start, *past_times][:order]
        if step < order - 2:
            x = _step(start_up, velocity, x, start, end, slope)
        else:
            x = x + combine(_quadrature(past_times[: len(averages)], start, end), averages)
            if momentum < 1:
                x = x + (1 - momentum) / momentum * combine(_quadrature(past_times[: len(differences)], start, end), differences)
    return x


def trajectory(solve: Solver, velocity: Velocity, noise: Tensor, times: Tensor) -> list[Tensor]:
    """Return the state of any solver at each of the times, (steps + 1) tensors (batch, ...).

    A solver evaluates the velocity where each step begins. Some evaluate it at the end of the step before too, but earlier.
    """
    states: dict[float, Tensor] = {}

    def watched(x: Tensor, t: Tensor) -> Tensor:
        states[t.item()] = x
        return velocity(x, t)

    last = solve(watched, noise, times)
    return [*(states[t] for t in times[:-1].to(noise).tolist()), last]


def _step(tableau: Tableau, velocity: Velocity, x: Tensor, start: float, end: float, slope: Tensor) -> Tensor:
    """Return the state after one Runge-Kutta step from x, where ``slope`` is the velocity at x."""
    slopes = [slope]
    for node, row in zip(tableau.nodes[1:], tableau.matrix[1:], strict=True):
        stage = x + (end - start) * combine(row, slopes)
        slopes.append(velocity(stage, x.new_full((), start + node * (end - start))))
    return x + (end - start) * combine(tableau.weights, slopes)


def _quadrature(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Return weights of values at ``nodes`` that give the integral from ``start`` to ``end`` of the polynomial through the values."""
    length = end - start
    powers = np.arange(len(nodes))
    scaled = (np.array(nodes) - start) / length
    return list(length * np.linalg.solve(scaled[None, :] ** powers[:, None], 1 / (powers + 1)))


def combine(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of the values. Values of weight 0 are skipped, except the first."""
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        if weight:
            total = total + weight * value
    return total
