"""Stochastic solvers: the same generator, with new noise at every step instead of a flow.

Their ``noise`` is (batch, noise_count * channel, ...): the state at the first time, then the noise of each step but the last. With signal
a = t, noise level s = 1 - t and the data estimate D = x + (1 - t) v, a step from t to u draws x_u from the Gaussian path's
q(x_u | x_t, data = D)

    x_u = r x_t + (a_u - r a_t) D + s_u sqrt(1 - q) z,    q = (s_u a_t / (s_t a_u))^2,    r = q a_u / a_t,

the reverse process of Ho et al. (2020) in continuous time. Of the processes with the marginals of the path, it is the one whose end does
not depend on its start. For the stochastic interpolant between the predicted mean and the data it is the Foellmer process of Chen et al.
(2024), because every path x = alpha y + gamma z is the straight path in other units (docs/method.md).
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from wsdcast.warmstart.solvers import Solver, Velocity


def sde1(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """First order in distribution: the data estimate is held during a step. One evaluation a step."""
    return _solve(1, velocity, noise, times)


def sde2(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Second order: the data estimate is linear in the log signal-to-noise ratio through the last two, as in SDE-DPM-Solver++(2M).

    One evaluation a step (Lu et al. 2022, appendix). The first two steps and the last are of first order, as the ratio is infinite at
    both ends.
    """
    return _solve(2, velocity, noise, times)


SOLVERS: dict[str, Solver] = {"sde1": sde1, "sde2": sde2}


def _solve(order: int, velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    steps = times.numel() - 1
    if noise.shape[1] % steps:
        raise ValueError(f"noise: {noise.shape[1]} channels instead of a multiple of {steps}, the number of steps")
    x, *later = noise.chunk(steps, dim=1)
    before: tuple[float, Tensor] | None = None
    for step, (t, u) in enumerate(pairwise(times.tolist())):
        data = x + (1 - t) * velocity(x, x.new_full((), t))
        q = ((1 - u) * t / ((1 - t) * u)) ** 2  # exp(-2 h) for a step h of the log ratio
        ratio = math.log(t / (1 - t)) if t > 0 else -math.inf
        estimate = data
        if order == 2 and before is not None and u < 1 and math.isfinite(before[0]):
            length = math.log(u / (1 - u)) - ratio
            estimate = data + length / (2 * (ratio - before[0])) * (data - before[1])
        before = ratio, data
        # r = q u / t, written without a division by t, which may be 0.
        r = (1 - u) ** 2 * t / ((1 - t) ** 2 * u)
        x = r * x + (u - r * t) * estimate
        if u < 1:
            x = x + (1 - u) * math.sqrt(1 - q) * later[step]
    return x
