"""The training loop that the moments model and the generator share (appendix B: AdamW, clipped gradients, averaged weights)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from wsdcast.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


def fit(
    model: Network,
    averaged: Network,
    loss_of: Callable[[Network, Tensor], Tensor],
    samples: int,
    *,
    steps: int,
    batch: int,
    rate: float,
    clip: float,
    average: float,
    random: torch.Generator,
) -> Iterator[float]:
    """Train ``model`` in place; a generator that yields the loss of each step, so that the caller shows progress and may stop.

    Args:
        model: trained in place.
        averaged: a copy of it, which gets the exponential moving average of its weights and is the one to use afterwards.
        loss_of: (model, indices of samples (batch,)) to loss.
        samples: how many there are; each epoch visits all in random order, the incomplete last batch left out.
        steps: optimiser steps.
        batch: samples per step.
        rate: learning rate, constant for the first half of the steps, then falling as a cosine to zero.
        clip: largest norm of the gradient.
        average: decay of the average per step, at most (1 + n) / (10 + n) after n steps.
        random: source of the order.

    Raises:
        UserError: if the loss is not finite, naming the step.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), fused=True)
    batches = _batches(samples, min(batch, samples), random)
    model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * _schedule(step / steps)
        loss = loss_of(model, next(batches))
        if not torch.isfinite(loss):
            raise UserError(f"the loss is {loss.item()} at training step {step}; a lower rate may help")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        decay = min(average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
        yield loss.item()


def _schedule(share: float) -> float:
    return 1.0 if share < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * share - 1)))


def _batches(samples: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(samples, generator=random)
        yield from order[: samples // batch * batch].split(batch)
