"""Empirical statistics of a model for DPM-Solver-v3 (Zheng et al. 2023, section 3.3), from samples of the data that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from wsdcast.warmstart.dpm import SolverStatistics
from wsdcast.warmstart.flow import interpolate
from wsdcast.warmstart.solvers import Velocity

Batches = Callable[[], Iterator[tuple[Velocity, Tensor]]]
"""Yields, each time it is called, batches of data in normalised space (batch, channel, ...), each with the model's velocity for them."""

STEP = 0.05
"""Of the differences that stand for derivatives: in the state as a share of its noise, and in the log signal-to-noise ratio."""


RIDGE = 1e-3
"""Share of the mean square of f that is added to its variance."""


def estimate_statistics(
    batches: Batches,
    log_snr: Tensor,
    random: torch.Generator,
    average: Callable[[Tensor], Tensor] = lambda field: field,
) -> SolverStatistics:
    """Coefficients l, s and b of a model: three evaluations for each sample and level, and two more for l.

    l = E[s_noise diag(d noise estimate / dx)], with which the nonlinear part f of the flow depends least on x; s and b make the
    remainder of df/dr = s f + b along the flow least in mean square. Derivatives are central differences, so that any model will do.

    Args:
        batches: the data.
        log_snr: at which ratios, (level,), increasing, finite.
        random: source of noise, on the CPU.
        average: applied to expected fields (channel, ...) before they are divided, for directions in which they cannot differ.
    """
    device = next(iter(batches()))[1].device
    levels = log_snr.to(device)
    l = torch.stack([_expected(batches, random, lambda *at: _slope(*at), level, average)[0] for level in levels])  # noqa: E741
    first = SolverStatistics(levels, l, torch.zeros_like(l), torch.zeros_like(l))
    s, b = [], []
    for level in levels:
        f, df, f_df, f_f = _expected(batches, random, lambda *at: _along_the_flow(first, *at), level, average)
        # A ridge: where f hardly varies, its slope would be made of noise.
        s.append((f_df - f * df) / (f_f - f * f + RIDGE * f_f).clamp(min=1e-12))
        b.append(df - s[-1] * f)
    return SolverStatistics(levels, l, torch.stack(s), torch.stack(b))


def _expected(
    batches: Batches,
    random: torch.Generator,
    fields_of: Callable[..., tuple[Tensor, ...]],
    level: Tensor,
    average: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Means over all samples of some fields at one level."""
    totals, samples = None, 0
    for velocity, data in batches():
        noise, signs = torch.randn(data.shape, generator=random), torch.randint(0, 2, data.shape, generator=random) * 2.0 - 1
        x, _ = interpolate(noise.to(data), data, level.sigmoid().expand(data.shape[0]))
        sums = [field.sum(dim=0) for field in fields_of(velocity, x, level, signs.to(data))]
        totals = sums if totals is None else [total + part for total, part in zip(totals, sums, strict=True)]
        samples += data.shape[0]
    assert totals is not None
    return [average(total / samples) for total in totals]


def _noise_estimate(velocity: Velocity, x: Tensor, level: Tensor) -> Tensor:
    t = level.sigmoid()
    return x - t * velocity(x, t)


def _slope(velocity: Velocity, x: Tensor, level: Tensor, signs: Tensor) -> tuple[Tensor]:
    """An estimate of the diagonal of the Jacobian with random signs (Hutchinson)."""
    size = STEP * (1 - level.sigmoid())
    ahead, behind = (_noise_estimate(velocity, x + step * signs, level) for step in (size, -size))
    return ((ahead - behind) / (2 * STEP) * signs,)


def _along_the_flow(first: SolverStatistics, velocity: Velocity, x: Tensor, level: Tensor, signs: Tensor) -> tuple[Tensor, ...]:
    """f, its derivative along the flow, and their products."""
    t = level.sigmoid()
    rate = (1 - t) * (x - _noise_estimate(velocity, x, level))

    def f(step: float) -> Tensor:
        at = level + step
        state, (l, _, _) = x + step * rate, first.at(at[None])  # noqa: E741
        return ((1 - at.sigmoid()) * _noise_estimate(velocity, state, at) - l[0] * state) / at.sigmoid()

    ahead, behind = f(STEP), f(-STEP)
    value, derivative = (ahead + behind) / 2, (ahead - behind) / (2 * STEP)
    return value, derivative, value * derivative, value * value
