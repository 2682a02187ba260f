"""Multistep DPM-Solver++ (Lu et al. 2022) and DPM-Solver-v3 (Zheng et al. 2023), both for straight paths.

On a straight path the signal is alpha = t and the noise sigma = 1 - t. Let lambda = log(alpha / sigma) be half the log signal-to-noise
ratio, and let D = x + (1 - t) v be the estimate of the data. The flow is then d(x / sigma) / d lambda = exp(lambda) D, and a step from t
to u is exactly

    x_u = sigma_u / sigma_t x_t + alpha_u int_0^h exp(r - h) D(lambda_t + r) dr,    h = lambda_u - lambda_t.

DPM-Solver++ replaces D by the polynomial in lambda through its last values and integrates that polynomial exactly.

lambda is infinite at t = 0 and t = 1. A first-order step is finite there, because it contains only the ratios above. A step of higher order
cannot use a value of D at t = 0 or end at t = 1. So the first two steps and the last step are at most of first order, second order is first
possible in the third step, and so on.

Published implementations of the third order drop a factor of 2 before the second derivative and converge at order 2. Integrating the
polynomial itself converges at order 3 (``test_order_of_every_solver``). The paper's runs used DPM-Solver-v3 with l = 1 and s = b = 0, which
is the same as :func:`dpm_solver` of order 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from wsdcast.warmstart.solvers import Velocity, Watch, combine, unwatched


def dpm_solver(order: int, velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched) -> Tensor:
    """Solve with DPM-Solver++ of order 2 or 3, one evaluation per step. Order 1 would be Euler's method.

    Args:
        order: 2 or 3.
        velocity, noise, times: as for any solver; times from 0 to 1.
        watch: called with each state.
    """
    x = noise
    watch(x)
    history: list[tuple[float, Tensor]] = []  # lambda and the estimate of the data, newest first
    for start, end in pairwise(times.tolist()):
        estimate = x + (1 - start) * velocity(x, x.new_full((), start))
        history = [(_log_snr(start), estimate), *history][:order]
        usable = [entry for entry in history if math.isfinite(entry[0])] if end < 1 and start > 0 else history[:1]
        weights = _weights([log_snr for log_snr, _ in usable], start, end)
        x = (1 - end) / (1 - start) * x + combine(weights, [data for _, data in usable])
        watch(x)
    return x


dpm2, dpm3 = partial(dpm_solver, 2), partial(dpm_solver, 3)


def _log_snr(t: float) -> float:
    """Return lambda at time t, infinite at 0 and 1."""
    return math.log(t / (1 - t)) if 0 < t < 1 else math.copysign(math.inf, t - 0.5)


def _weights(log_snrs: Sequence[float], start: float, end: float) -> list[float]:
    """Return the weights of the data estimates in a step from time ``start`` to ``end``.

    Their weighted sum is the second term of the step above, with D replaced by the polynomial through the estimates.

    Args:
        log_snrs: lambda at each estimate, the newest, at ``start``, first. A single value may be infinite; it is not used.
        start, end: flow times.
    """
    if len(log_snrs) == 1:
        return [end - start * (1 - end) / (1 - start)]
    length = _log_snr(end) - log_snrs[0]  # h
    # Integrals of exp(r - h) r^k / k! from 0 to h, each from the one before it by integration by parts.
    integrals = [-math.expm1(-length)]
    for power in range(1, len(log_snrs)):
        integrals.append(length**power / math.factorial(power) - integrals[-1])
    powers = np.arange(len(log_snrs))
    factorials = np.array([math.factorial(power) for power in powers])
    taylor = (np.array(log_snrs) - log_snrs[0])[None, :] ** powers[:, None] / factorials[:, None]
    return list(end * np.linalg.solve(taylor, np.array(integrals)))


@dataclass(frozen=True)
class SolverStatistics:
    """The empirical model statistics of DPM-Solver-v3: three coefficients that depend on lambda.

    They are interpolated linearly in lambda, and constant outside the range of ``log_snr``.
    :func:`~wsdcast.warmstart.solver_statistics.estimate_statistics` estimates them.

    Attributes:
        log_snr: the values of lambda at which the coefficients are given, (level,), increasing.
        l, s, b: the coefficients, (level, channel, ...), in the notation of Zheng et al. (2023). With l = 1 and s = b = 0 the solver is
            DPM-Solver++.
    """

    log_snr: Tensor
    l: Tensor  # noqa: E741
    s: Tensor
    b: Tensor

    def at(self, log_snrs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return l, s and b at values of lambda (n,), each (n, channel, ...)."""
        inside = log_snrs.clamp(self.log_snr[0], self.log_snr[-1])
        right = torch.searchsorted(self.log_snr, inside).clamp(1, self.log_snr.numel() - 1)
        share = (inside - self.log_snr[right - 1]) / (self.log_snr[right] - self.log_snr[right - 1])
        share = share.reshape(-1, *(1,) * (self.l.dim() - 1))
        l, s, b = (torch.lerp(values[right - 1], values[right], share) for values in (self.l, self.s, self.b))  # noqa: E741
        return l, s, b


QUADRATURE_NODES = 17
"""Points at which a step of DPM-Solver-v3 evaluates its integrands, both ends included. Simpson's rule needs an odd number."""


def dpm_solver_v3(
    statistics: SolverStatistics, order: int, velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched
) -> Tensor:
    """Solve with DPM-Solver-v3 without its corrector, of order 1, 2 or 3, one evaluation per step (Zheng et al. 2023, section 3).

    Let epsilon = x - t v be the estimate of the noise, y = x / alpha, and f = (sigma epsilon - l x) / alpha. The flow in lambda is then

        dy / d lambda = -l y - f,    df / d lambda = s f + b + remainder,

    with coefficients l, s and b that make the remainder small. With the integrals from the beginning of the step

        L = int l,    S = int s,    B = int exp(-S) b,    I = int exp(L + S) (g + B),    g = exp(-S) f - B,

    the end of the step is y_end = exp(-L) (y - I). The function g hardly changes along the flow. In I it is replaced by the polynomial in
    lambda through its last values.

    The first step from t = 0 and the last step to t = 1 are first-order steps of DPM-Solver++, because lambda is infinite there.

    Args:
        statistics: the coefficients for this model, on the device of the noise.
        order: 1, 2 or 3.
        velocity, noise, times: as for any solver; times from 0 to 1.
        watch: called with each state.
    """
    x = noise
    watch(x)
    history: list[tuple[float, Tensor, Tensor]] = []  # time, state and estimate of the noise, newest first
    for start, end in pairwise(times.tolist()):
        slope = velocity(x, x.new_full((), start))
        if start == 0 or end == 1:
            x = (1 - end) / (1 - start) * x + _weights([0.0], start, end)[0] * (x + (1 - start) * slope)
        else:
            history = [(start, x, x - start * slope), *history][:order]
            x = _v3_step(statistics, history, end)
        watch(x)
    return x


def _v3_step(statistics: SolverStatistics, history: list[tuple[float, Tensor, Tensor]], end: float) -> Tensor:
    """Return the state at time ``end``, one step after the newest entry of the history.

    Args:
        statistics: as in :func:`dpm_solver_v3`.
        history: times, states and noise estimates, newest first; at most as many as the order.
        end: flow time below 1.
    """
    start, x, _ = history[0]
    corners = [_log_snr(t) for t, _, _ in reversed(history)] + [_log_snr(end)]
    # The nodes cover the steps of the history and this step. Tensors are made on the device of the state, because a copy from the host
    # could not be recorded in a CUDA graph.
    pieces = [torch.linspace(*piece, QUADRATURE_NODES, dtype=torch.float64, device=x.device)[:-1] for piece in pairwise(corners)]
    log_snrs = torch.cat([*pieces, x.new_full((1,), corners[-1], dtype=torch.float64)]).to(x.dtype)
    now = log_snrs.numel() - QUADRATURE_NODES  # index of the beginning of this step
    l, s, b = statistics.at(log_snrs)  # noqa: E741

    def integral(values: Tensor) -> Tensor:
        running = torch.cat([torch.zeros_like(values[:1]), torch.cumulative_trapezoid(values, log_snrs, dim=0)])
        return running - running[now]

    integral_l, integral_s = integral(l), integral(s)  # L and S
    integral_b = integral(torch.exp(-integral_s) * b)  # B
    kernel = torch.exp(integral_l + integral_s)[now:]
    alternating = x.new_full((QUADRATURE_NODES,), 2.0)  # 1, 4, 2, 4, ..., 4, 1
    alternating[1::2].fill_(4)
    alternating[:: QUADRATURE_NODES - 1].fill_(1)
    simpson = alternating * (log_snrs[-1] - log_snrs[now]) / (3 * (QUADRATURE_NODES - 1))
    total = torch.tensordot(simpson, kernel * integral_b[now:], dims=1)  # becomes I
    indices = [now - (QUADRATURE_NODES - 1) * age for age in range(len(history))]  # of the history in log_snrs
    for index, (t, state, noise_estimate) in zip(indices, history, strict=True):
        f = ((1 - t) * noise_estimate - l[index] * state) / t
        basis = torch.ones_like(simpson)  # the Lagrange polynomial that is 1 at this entry of the history and 0 at the others
        for other in indices:
            if other != index:
                basis = basis * (log_snrs[now:] - log_snrs[other]) / (log_snrs[index] - log_snrs[other])
        total = total + torch.tensordot(simpson * basis, kernel, dims=1) * (torch.exp(-integral_s[index]) * f - integral_b[index])
    return end * torch.exp(-integral_l[-1]) * (x / start - total)
