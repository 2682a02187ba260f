"""What a step of training needs of its samples, put together on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from wsdcast.runs.recipes import TrainingTimes
from wsdcast.training.loop import BatchOf
from wsdcast.warmstart.flow import Draws, draw
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.warmstart.times import draw_logit_normal, draw_uniform


class Samples(Protocol):
    """Samples that are what they are, such as :class:`wsdcast.weather.samples.Samples`; where contexts are drawn anew each time there is a
    :data:`BatchOf` instead."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a target, (channel, row, column)."""

    def __len__(self) -> int: ...

    def context(self, chosen: Tensor) -> Tensor:
        """C of some of them (batch,), (batch, channel, row, column)."""

    def target(self, chosen: Tensor) -> Tensor:
        """What follows, (batch, channel, row, column)."""


class Pairs(NamedTuple):
    """Contexts and what follows them, (batch, channel, row, column)."""

    context: Tensor
    target: Tensor


class FlowBatch(NamedTuple):
    """The same with what Algorithm 1 draws, and the prior unless that is trained at the same time."""

    context: Tensor
    target: Tensor
    draws: Draws
    prior: InformedPrior | None


def pairs_of(samples: Samples) -> BatchOf[Pairs]:
    """Batches for the moments model."""
    return lambda chosen, mine: Pairs(samples.context(chosen[mine]), samples.target(chosen[mine]))


def flow_batches_of(
    pairs: BatchOf[Pairs],
    shape: tuple[int, ...],
    random: torch.Generator,
    prior_of: Callable[[Tensor, Tensor], InformedPrior] | None,
    times: TrainingTimes,
) -> BatchOf[FlowBatch]:
    """Batches for the generator.

    Args:
        pairs: contexts and targets.
        shape: of a target.
        random: source of warmth, time and noise.
        prior_of: from indices of samples and their contexts to their prior.
        times: how flow times are drawn.
    """
    draw_times = partial(draw_logit_normal, mean=times.mean, scale=times.scale) if times.kind == "logit-normal" else draw_uniform

    def batch_of(chosen: Tensor, mine: slice) -> FlowBatch:
        draws = draw((chosen.numel(), *shape), random, draw_times).of(mine)
        context, target = pairs(chosen, mine)
        return FlowBatch(context, target, draws, prior_of(chosen[mine], context) if prior_of else None)

    return batch_of
