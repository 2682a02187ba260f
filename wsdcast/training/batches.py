"""What a step of training needs of its samples, put together from the record on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from wsdcast.context import Samples
from wsdcast.warmstart.flow import Draws, draw
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.warmstart.training import BatchOf


class Pairs(NamedTuple):
    """Contexts and what follows them, (batch, channel, latitude, longitude)."""

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
    samples: Samples, random: torch.Generator, prior_of: Callable[[Tensor, Tensor], InformedPrior] | None
) -> BatchOf[FlowBatch]:
    """Batches for the generator.

    Args:
        samples: the samples.
        random: source of warmth, time and noise.
        prior_of: from indices of samples and their contexts to their prior.
    """

    def batch_of(chosen: Tensor, mine: slice) -> FlowBatch:
        draws, some = draw((chosen.numel(), *samples.shape), random).of(mine), chosen[mine]
        context = samples.context(some)
        return FlowBatch(context, samples.target(some), draws, prior_of(some, context) if prior_of else None)

    return batch_of
