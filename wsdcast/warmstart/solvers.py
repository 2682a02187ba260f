"""Solvers of dx/dt = velocity(x, t): one function each, ``solve(velocity, noise, times) -> sample``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from wsdcast.errors import UserError

Velocity = Callable[[Tensor, Tensor], Tensor]
Solver = Callable[[Velocity, Tensor, Tensor], Tensor]

MIDPOINT_EVALUATIONS = 2
"""Calls of ``velocity`` per step of :func:`midpoint`."""


def midpoint(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """The explicit midpoint rule, second order, two evaluations a step, none at the data end (t = 1).

    Args:
        velocity: function of state (batch, ...) and time (a scalar tensor).
        noise: state at ``times[0]``.
        times: increasing, (steps + 1,).
    """
    x = noise
    for start, end in pairwise(times):
        half = (end - start) / 2
        x = x + (end - start) * velocity(x + half * velocity(x, start), start + half)
    return x


def steps_for(evaluations: int, per_step: int = MIDPOINT_EVALUATIONS) -> int:
    """How many steps make exactly ``evaluations`` function evaluations (NFE).

    Raises:
        UserError: if no whole number of steps does; it names the nearest that can be had.
    """
    if evaluations < 1 or evaluations % per_step:
        nearest = max(per_step, round(evaluations / per_step) * per_step)
        raise UserError(f"nfe {evaluations}: the midpoint solver takes {per_step} evaluations a step; the nearest it can do is {nearest}")
    return evaluations // per_step
