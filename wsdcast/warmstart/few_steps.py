"""Generators of one or a few evaluations, trained from the flow: distillation, shortcut models and mean flows.

The generator of the flow predicts the velocity at one time, so a solver needs several short steps. The networks here predict the mean
velocity u over a whole step of length d, from time t to t + d:

    x_{t+d} = x_t + d u(x_t, t, d).

The steps are those of Euler's method with equal lengths. In training and in sampling the warmth is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsdcast.warmstart.flow import Draws, generator_input, start_of, training_loss, velocity_of
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import InformedPrior, of_shape, per_sample
from wsdcast.warmstart.solvers import Solver, euler
from wsdcast.warmstart.times import uniform

HALVINGS = 3
"""A shortcut model has steps of 1, 1/2, 1/4 and 1/8. Its shortest step learns from the flow itself."""


class StepDraws(NamedTuple):
    """The steps that a loss draws for each sample.

    Attributes:
        t: time at which the step begins, (batch,).
        d: length of the step, (batch,).
    """

    t: Tensor
    d: Tensor

    def of(self, samples: slice) -> StepDraws:
        """Return the draws of some samples of the batch."""
        return StepDraws(self.t[samples], self.d[samples])


def draw_halved_steps(count: int, random: torch.Generator) -> StepDraws:
    """Draw steps of length 1, 1/2, ..., 2^-:data:`HALVINGS` that begin at a multiple of their length (Frans et al. 2025, section 3.1)."""
    uniform_draws = torch.rand(2, count, generator=random, device=random.device)
    d = 0.5 ** (uniform_draws[0] * (HALVINGS + 1)).floor()
    return StepDraws((uniform_draws[1] / d).floor() * d, d)


def draw_any_steps(count: int, random: torch.Generator) -> StepDraws:
    """Draw two uniform times for each step; it begins at the earlier and ends at the later (Geng et al. 2025, section 4.3)."""
    first, second = torch.rand(2, count, generator=random, device=random.device)
    return StepDraws(torch.minimum(first, second), (first - second).abs())


def with_step(network: nn.Module, d: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the network as a generator of the flow, for steps of length d, (batch,) or (1,)."""
    return lambda x, t, warmth: network(x, t, warmth, d)


def distillation_loss(
    student: nn.Module,
    flow: nn.Module,
    prior: InformedPrior,
    context: Tensor,
    noise: Tensor,
    nfe: int,
    teacher_times: Tensor,
    solve: Solver,
    weights: Tensor | float = 1.0,
    path: Path = STRAIGHT,
) -> Tensor:
    """Return the mean squared difference between where the student ends and where the flow ends, from the same noise, in normalised space.

    It is progressive distillation (Salimans and Ho 2022) in a single stage: the path of a warm start is short, so that few evaluations of
    the flow are a good teacher.

    Args:
        student: a generator of ``nfe`` equal steps; it reads what the flow's generator reads.
        flow: the trained generator of the flow, frozen.
        prior: the prior of the contexts.
        context: C, (batch, channels, ...).
        noise: standard normal, (batch, channel, ...).
        nfe: evaluations of the student.
        teacher_times: flow times of the teacher's solver, (steps + 1,).
        solve: the teacher's solver.
        weights: weights of the points, with mean 1, in a shape that broadcasts against the noise.
        path: the path that the flow was trained on.
    """
    warmth = noise.new_ones(1)
    start = start_of(path, noise, prior, teacher_times)
    with torch.no_grad():
        end = solve(velocity_of(flow, prior, context, warmth, path), start, teacher_times)
    own_end = euler(velocity_of(student, prior, context, warmth, path), start, uniform(nfe))
    return (weights * (own_end - end).square()).mean()


def shortcut_loss(
    network: nn.Module,
    teacher: nn.Module,
    prior: InformedPrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    steps: StepDraws,
    flow_samples: int,
) -> Tensor:
    """Return the loss of a shortcut model (Frans et al. 2025, Eq. 5): flow matching, and one step must do what two of half its length do.

    Args:
        network: u, with the step's length as its last scalar; with length 0 it is a generator of the flow.
        teacher: the network with averaged weights, which makes the two half steps.
        prior: the prior of the contexts, not blended: at warmth 1 blending changes nothing.
        context: C, (batch, channels, ...).
        target: the data, (batch, channel, ...).
        draws: noise and times of flow matching.
        steps: from :func:`draw_halved_steps`.
        flow_samples: as many samples, the first of the batch, are for flow matching; the others learn from two half steps.

    Raises:
        ValueError: if noise or the network's output has not the shape of the target.
    """
    draws = draws._replace(warmth=torch.ones_like(draws.warmth), noise=of_shape("noise", draws.noise, target))
    zero, loss = draws.t.new_zeros(1), target.new_zeros(())
    if flow_samples:
        part = slice(flow_samples)
        loss = training_loss(with_step(network, zero), prior.of(part), context[part], target[part], draws.of(part)) * flow_samples
    if flow_samples < len(target):
        part = slice(flow_samples, None)
        prior, context, (warmth, _, noise), (t, d) = prior.of(part), context[part], draws.of(part), steps.of(part)
        x, _ = STRAIGHT.point(noise, prior.normalise(target[part]), t)
        half = d / 2
        # The flow itself makes the halves of the shortest step.
        length = torch.where(half < 0.5**HALVINGS, zero, half)
        with torch.no_grad():  # both halves in the precision of the state, even if the network computes in bfloat16
            begin = teacher(generator_input(x, context, prior), t, warmth, length).to(x.dtype)
            middle = x + per_sample(half, x) * begin
            end = teacher(generator_input(middle, context, prior), t + half, warmth, length).to(x.dtype)
        output = of_shape("output of the network", network(generator_input(x, context, prior), t, warmth, d), x)
        loss = loss + nn.functional.mse_loss(output, (begin + end) / 2) * (len(target) - flow_samples)
    return loss / len(target)


def mean_flow_loss(
    network: nn.Module,
    prior: InformedPrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    steps: StepDraws,
    flow_samples: int,
) -> Tensor:
    """Return the loss of a mean flow in its improved form (Geng et al. 2025; arXiv 2512.02012).

    Along the flow, d u is the integral of the velocity v from t to t + d. Its derivative with respect to t, with t + d fixed, gives
    v = u - d du/dt. The derivative du/dt is computed in forward mode, along (v, 1, -1) in (x, t, d), with the network's own v, and has no
    gradient.

    Args:
        network, prior, context, target, draws: as for :func:`shortcut_loss`.
        steps: from :func:`draw_any_steps`.
        flow_samples: for as many samples, the first of the batch, the step has length 0 and the loss is that of flow matching.

    Raises:
        ValueError: if noise or the network's output has not the shape of the target.
    """
    is_flow = torch.arange(len(target), device=target.device) < flow_samples
    t = torch.where(is_flow, draws.t, steps.t)
    d = torch.where(is_flow, 0.0, steps.d)
    warmth = torch.ones_like(t)
    x, velocity = STRAIGHT.point(of_shape("noise", draws.noise, target), prior.normalise(target), t)

    def mean_velocity(x: Tensor, t: Tensor, d: Tensor) -> Tensor:
        return of_shape("output of the network", network(generator_input(x, context, prior), t, warmth, d), x)

    with torch.no_grad():
        own_velocity = mean_velocity(x, t, torch.zeros_like(d))
    tangents = own_velocity, torch.ones_like(t), -torch.ones_like(d)
    output, derivative = torch.func.jvp(mean_velocity, (x, t, d), tangents)[:2]
    return nn.functional.mse_loss(output - per_sample(d, x) * derivative.detach(), velocity)
