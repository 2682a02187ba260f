"""The training loop of all networks: AdamW, a learning rate schedule, gradient clipping and averaged weights (appendix B of the paper)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsdcast.nets.weights import Model
from wsdcast.runs import processes
from wsdcast.runs.errors import UserError
from wsdcast.runs.recipes import Optimisation
from wsdcast.training.state import Training

Batch = TypeVar("Batch")

BatchOf = Callable[[Tensor, slice], Batch]
"""A function ``batch_of(indices, local)`` that returns one process's batch.

``indices`` (sample,) are those of all processes, and ``indices[local]`` are those of this process. Random numbers are drawn for all
``indices``, so they do not depend on the number of processes.
"""


@dataclass(frozen=True)
class Plan(Generic[Model, Batch]):
    """The plan of a training. Its state is a :class:`wsdcast.training.state.Training`.

    Attributes:
        batch_of: makes a batch.
        loss_of: mean loss of a batch.
        samples: number of samples. An epoch visits them in random order, without an incomplete last step.
        settings: how to train.
        seed: seed of the order of samples.
        validate: returns scores of the averaged network by name. None if there is nothing to validate on.
    """

    batch_of: BatchOf[Batch]
    loss_of: Callable[[Model, Batch], Tensor]
    samples: int
    settings: Optimisation
    seed: int
    validate: Callable[[Model], dict[str, float]] | None = None


@dataclass(frozen=True)
class PendingStep:
    """One optimiser step whose loss and gradient norm are still on the device. :func:`read` waits for them.

    Attributes:
        number: number of the step, from 0.
        samples: indices of the step's samples of all processes, (sample,).
        loss: mean loss over this process's samples, on the device.
        rate: learning rate.
        gradient: norm of the gradient before clipping, on the device.
        started: when the step began, in seconds of :func:`time.perf_counter`.
        batch_seconds: time spent on making its batches, in seconds.
    """

    number: int
    samples: Tensor
    loss: Tensor
    rate: float
    gradient: Tensor
    started: float
    batch_seconds: float


@dataclass(frozen=True)
class Step:
    """One optimiser step. The names of the attributes are the columns of the table of losses.

    Attributes:
        number: number of the step, from 0.
        loss: mean loss over its samples.
        rate: learning rate.
        gradient: norm of the gradient before clipping.
        waiting: share of the time that was spent on making batches, over all steps that were read together.
    """

    number: int
    loss: float
    rate: float
    gradient: float
    waiting: float


def fit(training: Training[Model], plan: Plan[Model, Batch]) -> Generator[PendingStep]:
    """Train to the last step, and yield after each step. The caller validates, shows progress, writes checkpoints, and may stop early.

    A step follows the gradient of the mean loss over its samples, however they are divided into batches. If there are fewer samples than
    ``batch`` times ``accumulate``, a step has all of them. If torch's process group is initialised, each process takes its own share of
    the samples of every step, and gradients are averaged: two processes do the same as one process with twice the batch size.

    The host never waits for the device, so this loop does not notice a loss or a gradient that is not finite. The caller must :func:`read`
    the steps before it stores or uses the weights.

    Args:
        training: the state of the training; the loop goes on from its step.
        plan: what the network learns from, and how.

    Raises:
        UserError: if there are fewer samples than processes.
    """
    settings, samples = plan.settings, plan.samples
    require_samples(samples)
    rank, world_size = processes.number(), processes.count()
    step_size = samples_per_step(settings, samples) // world_size  # samples of one process in one step
    parameters = [parameter for parameter in training.model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    loss_model = _LossModel(training.model, plan.loss_of)
    distributed = DistributedDataParallel(loss_model) if world_size > 1 else None
    for indices in islice(_step_indices(samples, step_size * world_size, plan.seed), training.step, settings.steps):
        learning_rate = settings.learning_rate * _schedule(settings, training.step)
        for group in training.optimiser.param_groups:
            group["lr"] = learning_rate
        training.optimiser.zero_grad()
        step_loss, started, batch_seconds = torch.zeros((), device=device), time.perf_counter(), 0.0
        batches = indices.split(settings.batch * world_size)
        for batch_indices in batches:
            size = batch_indices.numel() // world_size
            before = time.perf_counter()
            batch = plan.batch_of(batch_indices, slice(rank * size, (rank + 1) * size))
            batch_seconds += time.perf_counter() - before
            # Processes average their gradients once per step, in the backward pass of the last batch.
            with distributed.no_sync() if distributed and batch_indices is not batches[-1] else nullcontext():
                with torch.autocast(device.type, torch.bfloat16) if settings.precision == "bf16" else nullcontext():
                    # The weight makes the sum over batches the mean over the step's samples: the last batch may be smaller.
                    loss = (distributed or loss_model)(batch) / (step_size / size)
                loss.backward()
            step_loss += loss.detach()
        gradient_norm = nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        training.optimiser.step()
        # In the first steps the average forgets faster, so that it does not keep the untrained weights.
        ema_decay = min(settings.ema_decay, (1 + training.step) / (10 + training.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(training.averaged.parameters()), list(training.model.parameters()), 1 - ema_decay)
        training.step += 1
        yield PendingStep(training.step - 1, indices, step_loss, learning_rate, gradient_norm, started, batch_seconds)


def require_samples(samples: int, where: str = "") -> None:
    """Raise a UserError unless every process has a training sample. ``where`` begins the message."""
    if samples < processes.count():
        raise UserError(f"{where}{samples} training samples" + (f" for {processes.count()} processes" if processes.count() > 1 else ""))


def samples_per_step(settings: Optimisation, samples: int) -> int:
    """Number of samples in an optimiser step of all processes together, where ``samples`` is the number of all training samples."""
    return min(settings.batch * settings.accumulate, samples // processes.count()) * processes.count()


def read(steps: Sequence[PendingStep]) -> list[Step]:
    """Wait until the device has finished consecutive steps, and return their losses (means over all processes) and gradient norms.

    All processes must read the same steps.

    Raises:
        UserError: if a loss or a gradient is not finite, with the step and its samples; the weights are lost.
    """
    losses = torch.stack([step.loss for step in steps])
    if processes.count() > 1:
        torch.distributed.all_reduce(losses)
        losses /= processes.count()
    # One copy to the host for all numbers.
    host_losses, host_norms = torch.stack([losses, torch.stack([step.gradient for step in steps])]).tolist()
    waiting = sum(step.batch_seconds for step in steps) / (time.perf_counter() - steps[0].started)
    for step, loss, norm in zip(steps, host_losses, host_norms, strict=True):
        if not math.isfinite(loss + norm):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
            which = ", ".join(str(index) for index in step.samples[:8].tolist()) + (", ..." if step.samples.numel() > 8 else "")
            raise UserError(f"{what} at training step {step.number}, with samples {which}; a lower learning rate may help")
    return [Step(step.number, loss, step.rate, norm, waiting) for step, loss, norm in zip(steps, host_losses, host_norms, strict=True)]


class _LossModel(nn.Module):
    """The loss as the forward pass of one module, because DistributedDataParallel wraps modules. A model may hold several networks."""

    def __init__(self, model: Model, loss_of: Callable[[Model, Batch], Tensor]) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: Any) -> Tensor:
        """The mean loss of a batch."""
        return self.loss_of(self.model, batch)


def _schedule(settings: Optimisation, step: int) -> float:
    """The learning rate at a step, as a share of the highest."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    phase = {"constant": 0.0, "half-cosine": max(0.0, 2 * progress - 1), "cosine": progress}[settings.schedule]
    return 0.5 * (1 + math.cos(math.pi * phase))


def _step_indices(samples: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield the indices (size,) of each step's samples, epoch after epoch.

    They depend on the seed alone, so a training that goes on from a checkpoint skips the steps that are done and continues in the same
    order.
    """
    random = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=random)
        yield from order[: samples // size * size].split(size)
