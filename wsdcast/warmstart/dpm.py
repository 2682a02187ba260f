"""Multistep DPM-Solver++ (Lu et al. 2022) for straight paths.

On a straight path the signal is alpha = t and the noise sigma = 1 - t. Let lambda = log(alpha / sigma) be half the log signal-to-noise
ratio, and let D = x + (1 - t) v be the estimate of the data. The flow is then d(x / sigma) / d lambda = exp(lambda) D, and a step from t
to u is exactly

    x_u = sigma_u / sigma_t x_t + alpha_u int_0^h exp(r - h) D(lambda_t + r) dr,    h = lambda_u - lambda_t.

DPM-Solver++ replaces D by the polynomial in lambda through its last values and integrates that polynomial exactly.

lambda is infinite at t = 0 and t = 1. A first-order step is finite there, because it contains only the ratios above. A step of higher order
cannot use a value of D at t = 0 or end at t = 1. So the first two steps and the last step are at most of first order, second order is first
possible in the third step, and so on. From noise to data this limits the whole to order 2 (``test_the_ends_limit_dpm_solver``).

Published implementations of the third order drop a factor of 2 before the second derivative and converge at order 2. Integrating the
polynomial itself converges at order 3 between the ends (``test_order_of_every_solver``). The paper's runs used DPM-Solver-v3 (Zheng et
al. 2023) without statistics of the model, which is the same as :func:`dpm_solver` of order 3. Its statistics brought nothing
(docs/results/solvers.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from torch import Tensor

from wsdcast.warmstart.solvers import Velocity, combine


def dpm_solver(order: int, velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Solve with DPM-Solver++ of order 2 or 3, one evaluation per step. Order 1 would be Euler's method.

    Args:
        order: 2 or 3.
        velocity, noise, times: as for any solver; times from 0 to 1.
    """
    x = noise
    history: list[tuple[float, Tensor]] = []  # lambda and the estimate of the data, newest first
    for start, end in pairwise(times.tolist()):
        estimate = x + (1 - start) * velocity(x, x.new_full((), start))
        history = [(_half_log_snr(start), estimate), *history][:order]
        usable = [entry for entry in history if math.isfinite(entry[0])] if end < 1 and start > 0 else history[:1]
        weights = _weights([half_log_snr for half_log_snr, _ in usable], start, end)
        x = (1 - end) / (1 - start) * x + combine(weights, [data for _, data in usable])
    return x


dpm2, dpm3 = partial(dpm_solver, 2), partial(dpm_solver, 3)


def _half_log_snr(t: float) -> float:
    """Return lambda at time t, infinite at 0 and 1."""
    return math.log(t / (1 - t)) if 0 < t < 1 else math.copysign(math.inf, t - 0.5)


def _weights(half_log_snrs: Sequence[float], start: float, end: float) -> list[float]:
    """Return the weights of the data estimates in a step from time ``start`` to ``end``.

    Their weighted sum is the second term of the step above, with D replaced by the polynomial through the estimates.

    Args:
        half_log_snrs: lambda at each estimate, the newest, at ``start``, first. A single value may be infinite; it is not used.
        start, end: flow times.
    """
    if len(half_log_snrs) == 1:
        return [end - start * (1 - end) / (1 - start)]
    length = _half_log_snr(end) - half_log_snrs[0]  # h
    # Integrals of exp(r - h) r^k / k! from 0 to h, each from the one before it by integration by parts.
    integrals = [-math.expm1(-length)]
    for power in range(1, len(half_log_snrs)):
        integrals.append(length**power / math.factorial(power) - integrals[-1])
    powers = np.arange(len(half_log_snrs))
    factorials = np.array([math.factorial(power) for power in powers])
    taylor = (np.array(half_log_snrs) - half_log_snrs[0])[None, :] ** powers[:, None] / factorials[:, None]
    return list(end * np.linalg.solve(taylor, np.array(integrals)))
