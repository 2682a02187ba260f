"""The training loop that all networks share (appendix B: AdamW, clipped gradients, averaged weights)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsdcast.runs.errors import UserError
from wsdcast.training.state import Network, Training, place

Batch = TypeVar("Batch")

BatchOf = Callable[[Tensor, slice], Batch]
"""From indices of the samples of all processes (batch,) and which of them are this process's to what the loss needs of the latter.

What is random in it is drawn for all of them, so that it does not depend on how many processes there are.
"""


class Settings(Protocol):
    """How a network is trained; a recipe's sections are of this kind."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""

    @property
    def batch(self) -> int:
        """Samples of one process at a time."""

    @property
    def accumulate(self) -> int:
        """Batches whose gradients are summed up before a step."""

    @property
    def learning_rate(self) -> float:
        """Highest learning rate."""

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises from zero."""

    @property
    def schedule(self) -> Literal["constant", "cosine", "half-cosine"]:
        """Rate afterwards: constant, falling to zero as a cosine, or the one for half of the steps and then the other."""

    @property
    def gradient_clip(self) -> float:
        """Largest norm of the gradient."""

    @property
    def ema_decay(self) -> float:
        """Decay of the averaged weights per step, at most (1 + n) / (10 + n) after n steps."""

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Of the forward and backward passes; weights and optimiser are always fp32."""


@dataclass(frozen=True)
class Unread:
    """One optimiser step, of which the host knows the numbers of the device only when they are read (:func:`read`).

    Attributes:
        number: which it was, from 0.
        samples: indices of its samples, of all processes, (sample,).
        loss: mean over this process's samples.
        rate: learning rate.
        gradient: norm of the gradient before clipping.
        begin: when it began, seconds of :func:`time.perf_counter`.
        waited: seconds that went into putting its batches together.
    """

    number: int
    samples: Tensor
    loss: Tensor
    rate: float
    gradient: Tensor
    begin: float
    waited: float


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        number: which it was, from 0.
        loss: mean over its samples.
        rate: learning rate.
        gradient: norm of the gradient before clipping.
        waiting: share of the time that went into putting the batch together; of all steps that were read at once.
    """

    number: int
    loss: float
    rate: float
    gradient: float
    waiting: float


def fit(
    training: Training[Network],
    batch_of: BatchOf[Batch],
    loss_of: Callable[[Network, Batch], Tensor],
    samples: int,
    settings: Settings,
    seed: int,
) -> Generator[Unread]:
    """Train to the last step; a generator that yields after each, so that the caller shows progress, keeps checkpoints and may stop.

    The gradient of a step is that of the mean loss over its samples, however they are divided into batches. If there are fewer samples than
    ``batch`` times ``accumulate``, a step has all of them. Where torch's process group is initialised, each process takes its own share of
    every step's samples, and gradients are averaged: two processes do what one with twice the batch does.

    The host never waits for the device, so it does not see a loss that is not finite either: whoever takes the steps reads them
    (:func:`read`) before the weights are kept or used.

    Args:
        training: goes on from its step.
        batch_of: puts a batch together.
        loss_of: mean loss of a batch.
        samples: how many there are; each epoch visits all in random order, an incomplete last step left out.
        settings: how.
        seed: of the order.
    """
    rank, processes = place()
    size = min(settings.batch * settings.accumulate, max(1, samples // processes))
    parameters = [parameter for parameter in training.model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    loss_model = _LossModel(training.model, loss_of)
    shared = DistributedDataParallel(loss_model) if processes > 1 else None
    for chosen in islice(_steps(samples, size * processes, seed), training.step, settings.steps):
        rate = settings.learning_rate * _schedule(settings, training.step)
        for group in training.optimiser.param_groups:
            group["lr"] = rate
        training.optimiser.zero_grad()
        total, begin, waited = torch.zeros((), device=device), time.perf_counter(), 0.0
        parts = chosen.split(settings.batch * processes)
        for part in parts:
            share = part.numel() // processes
            before = time.perf_counter()
            batch = batch_of(part, slice(rank * share, (rank + 1) * share))
            waited += time.perf_counter() - before
            # Gradients are averaged over the processes once, when the last part's are there.
            with shared.no_sync() if shared and part is not parts[-1] else nullcontext():
                with torch.autocast(device.type, torch.bfloat16) if settings.precision == "bf16" else nullcontext():
                    # The mean over the samples of the step, of which the last part may have fewer.
                    loss = (shared or loss_model)(batch) / (size / share)
                loss.backward()
            total += loss.detach()
        gradient = nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        training.optimiser.step()
        decay = min(settings.ema_decay, (1 + training.step) / (10 + training.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(training.averaged.parameters()), list(training.model.parameters()), 1 - decay)
        training.step += 1
        yield Unread(training.step - 1, chosen, total, rate, gradient, begin, waited)


def read(steps: Sequence[Unread]) -> list[Step]:
    """Wait until the device has done some steps that follow each other, and read their numbers, of all processes together.

    All processes read the same steps.

    Raises:
        UserError: if a loss is not finite, naming the step and its samples; the weights are lost.
    """
    losses = torch.stack([step.loss for step in steps])
    _, processes = place()
    if processes > 1:
        torch.distributed.all_reduce(losses)
        losses /= processes
    numbers = torch.stack([losses, torch.stack([step.gradient for step in steps])]).tolist()
    waiting = sum(step.waited for step in steps) / (time.perf_counter() - steps[0].begin)
    for step, loss in zip(steps, numbers[0], strict=True):
        if not math.isfinite(loss):
            which = ", ".join(str(index) for index in step.samples[:8].tolist()) + (", ..." if step.samples.numel() > 8 else "")
            raise UserError(f"the loss is {loss} at training step {step.number}, with samples {which}; a lower learning rate may help")
    return [Step(step.number, loss, step.rate, norm, waiting) for step, loss, norm in zip(steps, *numbers, strict=True)]


class _LossModel(nn.Module):
    """The loss as one forward pass of one module, whichever networks it is made of: what DistributedDataParallel asks for."""

    def __init__(self, model: Network, loss_of: Callable[[Network, Batch], Tensor]) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: Any) -> Tensor:
        """The mean loss of a batch."""
        return self.loss_of(self.model, batch)


def _schedule(settings: Settings, step: int) -> float:
    """Share of the highest rate at a step."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    falling = {"constant": 0.0, "half-cosine": max(0.0, 2 * share - 1), "cosine": share}[settings.schedule]
    return 0.5 * (1 + math.cos(math.pi * falling))


def _steps(samples: int, size: int, seed: int) -> Iterator[Tensor]:
    """Samples of each step, a function of the seed alone, so that a training that goes on takes up the order where it was."""
    random = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=random)
        yield from order[: samples // size * size].split(size)
