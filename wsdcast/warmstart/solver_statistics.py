"""Estimates of the empirical model statistics of DPM-Solver-v3, from samples of the training data (Zheng et al. 2023, section 3.3).

The notation is that of :mod:`wsdcast.warmstart.dpm`: sigma = 1 - t, lambda = log(t / sigma), epsilon is the model's estimate of the noise,
and f = (sigma epsilon - l x) / alpha. Expectations are over the data and the noise at one lambda, for each number of a sample separately:

    l = E[sigma diag(d epsilon / dx)]
    s = (E[f f'] - E[f] E[f']) / (E[f^2] - E[f]^2),    b = E[f'] - s E[f],    f' = df / d lambda along the flow

With this l the function f depends least on x. With these s and b the mean square of the remainder f' - s f - b is smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from wsdcast.warmstart.dpm import SolverStatistics
from wsdcast.warmstart.paths import interpolate
from wsdcast.warmstart.solvers import Velocity

Batches = Callable[[], Iterator[tuple[Velocity, Tensor]]]
"""A function that yields the same batches at every call. A batch is the model's velocity for it, and the data in normalised space,
(batch, channel, ...)."""

DIFFERENCE_STEP = 0.05
"""The step of the central differences: in units of sigma for derivatives with respect to x, and in lambda for those along the flow."""

RIDGE = 1e-3
"""The share of the mean square of f that is added to its variance. Where f hardly varies, s would otherwise be mostly noise."""


def estimate_statistics(
    batches: Batches,
    log_snr: Tensor,
    random: torch.Generator,
    average: Callable[[Tensor], Tensor] = lambda field: field,
) -> SolverStatistics:
    """Return estimates of the coefficients l, s and b of a model.

    For each sample and each lambda, l takes two evaluations of the model, and s and b take three. Derivatives are central differences, so
    the model need not be differentiable.

    Args:
        batches: gives the data and the model.
        log_snr: the values of lambda, (level,), increasing and finite.
        random: the source of noise, on the CPU.
        average: applied to the expectations (channel, ...) before they are divided. It can average over directions in which they cannot
            differ.
    """
    device = next(iter(batches()))[1].device
    levels = log_snr.to(device)
    l = torch.stack([_expected(batches, random, lambda *arguments: _jacobian_diagonal(*arguments), level, average)[0] for level in levels])  # noqa: E741
    l_alone = SolverStatistics(levels, l, torch.zeros_like(l), torch.zeros_like(l))
    s, b = [], []
    for level in levels:
        f, df, f_df, f_f = _expected(batches, random, lambda *arguments: _along_the_flow(l_alone, *arguments), level, average)
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
    """Return the expectations of the fields that ``fields_of(velocity, x, level, signs)`` gives, each averaged with ``average``.

    ``level`` is lambda, x are noised data (batch, channel, ...), and ``signs`` are random signs of the same shape.
    """
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
    """Return epsilon = x - t v."""
    t = level.sigmoid()
    return x - t * velocity(x, t)


def _jacobian_diagonal(velocity: Velocity, x: Tensor, level: Tensor, signs: Tensor) -> tuple[Tensor]:
    """Return Hutchinson's estimate of sigma diag(d epsilon / dx), which uses random signs."""
    size = DIFFERENCE_STEP * (1 - level.sigmoid())
    ahead, behind = (_noise_estimate(velocity, x + step * signs, level) for step in (size, -size))
    return ((ahead - behind) / (2 * DIFFERENCE_STEP) * signs,)


def _along_the_flow(l_alone: SolverStatistics, velocity: Velocity, x: Tensor, level: Tensor, signs: Tensor) -> tuple[Tensor, ...]:
    """Return f, f', f f' and f^2."""
    t = level.sigmoid()
    rate = (1 - t) * (x - _noise_estimate(velocity, x, level))  # dx / d lambda

    def f(step: float) -> Tensor:
        moved = level + step
        state, (l, _, _) = x + step * rate, l_alone.at(moved[None])  # noqa: E741
        return ((1 - moved.sigmoid()) * _noise_estimate(velocity, state, moved) - l[0] * state) / moved.sigmoid()

    ahead, behind = f(DIFFERENCE_STEP), f(-DIFFERENCE_STEP)
    value, derivative = (ahead + behind) / 2, (ahead - behind) / (2 * DIFFERENCE_STEP)
    return value, derivative, value * derivative, value * value
