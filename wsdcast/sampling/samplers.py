"""Samplers: functions from a context and noise to a sample of the next state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsdcast.runs import devices
from wsdcast.warmstart.crps import direct_sample
from wsdcast.warmstart.evaluations import Counted
from wsdcast.warmstart.flow import sample
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import PriorOf
from wsdcast.warmstart.solvers import Solver, Velocity, midpoint

Sampler = Callable[[Tensor, Tensor], Tensor]
"""A function ``sampler(context, noise)`` that returns the next state. All are (batch, channel, ...). The noise has the channels of the
state; for a stochastic solver it has them once for each step of the solver."""


def generator_sampler(
    generator: torch.nn.Module,
    prior_of: PriorOf,
    nfe: int,
    warmth: float,
    times: Tensor,
    solve: Solver = midpoint,
    path: Path = STRAIGHT,
    step: float | None = None,
) -> Sampler:
    """Return the sampler of Algorithm 2: exactly ``nfe`` evaluations of the generator, and one of the moments model.

    The sampler raises RuntimeError if the solver takes another number of evaluations.

    Args:
        generator: p'_theta.
        prior_of: returns the prior that generation starts from.
        nfe: number of evaluations that ``solve`` takes for ``times``.
        warmth: w of Eq. 4.
        times: flow times, (steps + 1,).
        solve: the solver.
        path: the path that the generator was trained on.
        step: the length of the solver's steps, for a generator that knows it.
    """

    def counted_solve(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
        counted = Counted(velocity)
        state = solve(counted, noise, times)
        if counted.calls != nfe:
            raise RuntimeError(f"a solver that claims {nfe} evaluations took {counted.calls}")
        return state

    return lambda context, noise: sample(generator, prior_of, context, noise, times, counted_solve, warmth, path, step)


def direct_sampler(generator: torch.nn.Module, prior_of: PriorOf, noise_fields: Callable[[Tensor], Tensor] | None = None) -> Sampler:
    """Return the sampler of a network that was trained on the CRPS: one evaluation (:func:`wsdcast.warmstart.crps.direct_sample`)."""
    return lambda context, noise: direct_sample(generator, prior_of(context), context, noise, noise_fields)


def moments_sampler(prior_of: PriorOf) -> Sampler:
    """Return the sampler of the prior alone, a baseline: its noise is independent at every point."""
    return lambda context, noise: prior_of(context).sample(noise)


def past_errors_sampler(prior_of: PriorOf, errors: Tensor) -> Sampler:
    """Return the sampler of the prior with noise made from its past errors, a baseline whose noise has spatial structure.

    The noise is the sum of all errors, each times a normal number and 1 / sqrt(errors). It is Gaussian, with mean 0 and with the mean
    product of the errors at two points as their covariance. The normal numbers are the first of the sampler's noise.

    Args:
        prior_of: returns the prior.
        errors: (target - mean) / std of past samples, (error, channel, ...). There are no more errors than a sample has numbers.
    """
    count = len(errors)
    scaled = errors / count**0.5

    def sampler(context: Tensor, noise: Tensor) -> Tensor:
        with devices.without_autocast(noise):
            structured = torch.tensordot(noise.flatten(1)[:, :count], scaled, dims=1)
        return prior_of(context).sample(structured)

    return sampler
