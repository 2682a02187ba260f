"""Multistep DPM-Solver++ for straight paths (Lu et al. 2022), and DPM-Solver-v3 (Zheng et al. 2023) with statistics of the model.

With signal a = t, noise s = 1 - t and half log signal-to-noise ratio l = log(a / s), the data estimate D = x + (1 - t) v gives
d(x / s) / dl = exp(l) D, so a step from t to u is exactly

    x_u = s_u / s_t x_t + a_u int_0^h exp(r - h) D(l_t + r) dr,    h = l_u - l_t.

D is replaced by the polynomial through its last values, and the integral of that is exact. In this form of ratios a step of first order is
finite at both ends; only the history cannot reach across them, so the first two steps and the last are of first order.

Published implementations of the third order drop a factor of 2 before the second derivative and converge at order 2; integrating the
polynomial itself does not (``test_order_of_every_solver``). The paper's runs used DPM-Solver-v3 in the case l = 1, s = b = 0 of
its statistics, which is :func:`dpm_solver` of order 3.
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
    """DPM-Solver++ of order 2 or 3, one evaluation a step. Order 1 would be Euler's method.

    Args:
        order: 2 or 3.
        velocity, noise, times: as for any solver; times from 0 to 1.
        watch: called with each state.
    """
    x = noise
    watch(x)
    history: list[tuple[float, Tensor]] = []
    for start, end in pairwise(times.tolist()):
        estimate = x + (1 - start) * velocity(x, x.new_full((), start))
        history = [(_log_snr(start), estimate), *history][:order]
        usable = [(ratio, data) for ratio, data in history if math.isfinite(ratio)] if end < 1 and start > 0 else history[:1]
        weights = _weights([ratio for ratio, _ in usable], start, end)
        x = (1 - end) / (1 - start) * x + combine(weights, [data for _, data in usable])
        watch(x)
    return x


dpm2, dpm3 = partial(dpm_solver, 2), partial(dpm_solver, 3)


def _log_snr(t: float) -> float:
    return math.log(t / (1 - t)) if 0 < t < 1 else math.copysign(math.inf, t - 0.5)


def _weights(known: Sequence[float], start: float, end: float) -> list[float]:
    """Weights of data estimates at ``known`` log ratios, the newest first: the integral above of the polynomial through them."""
    if len(known) == 1:
        return [end - start * (1 - end) / (1 - start)]
    length = _log_snr(end) - known[0]
    # Integrals of exp(r - h) r^k / k!, each from the one before by parts.
    integrals = [-math.expm1(-length)]
    for power in range(1, len(known)):
        integrals.append(length**power / math.factorial(power) - integrals[-1])
    powers = np.arange(len(known))
    factorials = np.array([math.factorial(power) for power in powers])
    taylor = (np.array(known) - known[0])[None, :] ** powers[:, None] / factorials[:, None]
    return list(end * np.linalg.solve(taylor, np.array(integrals)))


@dataclass(frozen=True)
class SolverStatistics:
    """What DPM-Solver-v3 knows of a model: coefficients at some log signal-to-noise ratios, linear between them and constant beyond.

    Attributes:
        log_snr: (level,), increasing.
        l, s, b: (level, channel, ...), in the notation of Zheng et al. (2023). With l = 1 and s = b = 0 the solver is DPM-Solver++.
    """

    log_snr: Tensor
    l: Tensor  # noqa: E741
    s: Tensor
    b: Tensor

    def at(self, ratios: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """l, s and b at some ratios (n,), each (n, channel, ...)."""
        inside = ratios.clamp(self.log_snr[0], self.log_snr[-1])
        right = torch.searchsorted(self.log_snr, inside).clamp(1, self.log_snr.numel() - 1)
        share = (inside - self.log_snr[right - 1]) / (self.log_snr[right] - self.log_snr[right - 1])
        share = share.reshape(-1, *(1,) * (self.l.dim() - 1))
        l, s, b = (torch.lerp(values[right - 1], values[right], share) for values in (self.l, self.s, self.b))  # noqa: E741
        return l, s, b


NODES = 17
"""Points of a step at which the coefficients are looked up, an odd number."""


def dpm_solver_v3(
    statistics: SolverStatistics, order: int, velocity: Velocity, noise: Tensor, times: Tensor, *, watch: Watch = unwatched
) -> Tensor:
    """DPM-Solver-v3 without its corrector, of order 1, 2 or 3, one evaluation a step.

    With y = x / a and f = (s_noise noise estimate - l x) / a the flow is dy/dr = -l y - f in the log ratio r, and along it f' is
    s f + b but for a remainder that the statistics have made small. Relative to the start of a step, L = int l, E = int s and
    B = int exp(-E) b, the function g = exp(-E) f - B hardly changes; it is replaced by the polynomial through its last values
    (Zheng et al. 2023, section 3). First and last step are of DPM-Solver++'s first order: there the ratio is infinite.

    Args:
        statistics: of this model, on the device of the noise.
        order: 1, 2 or 3.
        velocity, noise, times: as for any solver; times from 0 to 1.
        watch: called with each state.
    """
    x = noise
    watch(x)
    history: list[tuple[float, Tensor, Tensor]] = []  # time, state and noise estimate, newest first
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
    """One step from the newest point of the history."""
    start, x, _ = history[0]
    corners = [_log_snr(t) for t, _, _ in reversed(history)] + [_log_snr(end)]
    # Made where the state is: a copy from the host could not be recorded in a CUDA graph.
    pieces = [torch.linspace(*piece, NODES, dtype=torch.float64, device=x.device)[:-1] for piece in pairwise(corners)]
    ratios = torch.cat([*pieces, x.new_full((1,), corners[-1], dtype=torch.float64)]).to(x.dtype)
    now = ratios.numel() - NODES  # where the step starts
    l, s, b = statistics.at(ratios)  # noqa: E741

    def integral(values: Tensor) -> Tensor:
        running = torch.cat([torch.zeros_like(values[:1]), torch.cumulative_trapezoid(values, ratios, dim=0)])
        return running - running[now]

    large_l, large_e = integral(l), integral(s)
    large_b = integral(torch.exp(-large_e) * b)
    kernel = torch.exp(large_l + large_e)[now:]
    alternating = x.new_full((NODES,), 2.0)  # 1, 4, 2, 4, ..., 4, 1
    alternating[1::2].fill_(4)
    alternating[:: NODES - 1].fill_(1)
    simpson = alternating * (ratios[-1] - ratios[now]) / (3 * (NODES - 1))
    total = torch.tensordot(simpson, kernel * large_b[now:], dims=1)
    known = [now - (NODES - 1) * age for age in range(len(history))]
    for age, (t, state, noise_estimate) in enumerate(history):
        at = known[age]
        f = ((1 - t) * noise_estimate - l[at] * state) / t
        basis = torch.ones_like(simpson)  # Lagrange's polynomial, 1 at this point of the history and 0 at the others
        for other in known:
            if other != at:
                basis = basis * (ratios[now:] - ratios[other]) / (ratios[at] - ratios[other])
        total = total + torch.tensordot(simpson * basis, kernel, dims=1) * (torch.exp(-large_e[at]) * f - large_b[at])
    return end * torch.exp(-large_l[-1]) * (x / start - total)
