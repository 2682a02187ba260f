"""Batches of training, made on the device: contexts and targets, and for the generator what Algorithm 1 draws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from wsdcast.runs.recipes import TrainingTimes
from wsdcast.training.loop import BatchOf
from wsdcast.warmstart.crps import MEMBERS
from wsdcast.warmstart.flow import Draws, draw
from wsdcast.warmstart.prior import InformedPrior
from wsdcast.warmstart.times import draw_logit_normal, draw_uniform


class Samples(Protocol):
    """Samples that are the same at every visit, such as :class:`wsdcast.weather.samples.Samples`.

    Samples whose contexts are drawn anew at every visit are a :data:`BatchOf` instead.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a target, (channel, row, column)."""

    def __len__(self) -> int: ...

    def context(self, indices: Tensor, /) -> Tensor:
        """The contexts C at ``indices`` (batch,): (batch, channel, row, column)."""

    def target(self, indices: Tensor, /) -> Tensor:
        """The targets at ``indices`` (batch,): (batch, channel, row, column)."""


class Pairs(NamedTuple):
    """A batch of contexts and their targets, each (batch, channel, row, column)."""

    context: Tensor
    target: Tensor


class FlowBatch(NamedTuple):
    """A batch for the generator: contexts, targets, what Algorithm 1 draws, and the prior (None if the moments network is trained too)."""

    context: Tensor
    target: Tensor
    draws: Draws
    prior: InformedPrior | None


class EnsembleBatch(NamedTuple):
    """A batch for the CRPS of ensembles: contexts, targets, noise of each member (member, batch, channel, row, column), and the prior."""

    context: Tensor
    target: Tensor
    noise: Tensor
    prior: InformedPrior


def pairs_of(samples: Samples) -> BatchOf[Pairs]:
    """Return the function that makes batches for the moments network."""
    return lambda indices, local: Pairs(samples.context(indices[local]), samples.target(indices[local]))


def flow_batches_of(
    pairs: BatchOf[Pairs],
    shape: tuple[int, ...],
    random: torch.Generator,
    prior_of: Callable[[Tensor, Tensor], InformedPrior] | None,
    times: TrainingTimes,
) -> BatchOf[FlowBatch]:
    """Return the function that makes batches for the generator.

    Args:
        pairs: makes contexts and targets.
        shape: shape of a target, (channel, row, column).
        random: random generator for warmth, flow time and noise.
        prior_of: ``prior_of(indices, context)`` returns the prior of samples; None if the moments network is trained too.
        times: distribution of the flow times.
    """
    draw_times = partial(draw_logit_normal, mean=times.mean, scale=times.scale) if times.kind == "logit-normal" else draw_uniform

    def batch_of(indices: Tensor, local: slice) -> FlowBatch:
        draws = draw((indices.numel(), *shape), random, draw_times).of(local)
        context, target = pairs(indices, local)
        return FlowBatch(context, target, draws, prior_of(indices[local], context) if prior_of else None)

    return batch_of


def ensemble_batches_of(
    pairs: BatchOf[Pairs], shape: tuple[int, ...], random: torch.Generator, prior_of: Callable[[Tensor, Tensor], InformedPrior]
) -> BatchOf[EnsembleBatch]:
    """Return the function that makes batches of two members; the arguments are those of :func:`flow_batches_of`."""

    def batch_of(indices: Tensor, local: slice) -> EnsembleBatch:
        noise = torch.randn((MEMBERS, indices.numel(), *shape), generator=random, device=random.device)[:, local]
        context, target = pairs(indices, local)
        return EnsembleBatch(context, target, noise, prior_of(indices[local], context))

    return batch_of
