"""The training loop that all networks share (appendix B: AdamW, clipped gradients, averaged weights)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Literal, Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from wsdcast.errors import UserError

Network = TypeVar("Network", bound=nn.Module)

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
    def rate(self) -> float:
        """Highest learning rate."""

    @property
    def warm_up(self) -> int:
        """Steps in which the rate rises from zero."""

    @property
    def schedule(self) -> Literal["constant", "cosine", "half-cosine"]:
        """Rate afterwards: constant, falling to zero as a cosine, or the one for half of the steps and then the other."""

    @property
    def clip(self) -> float:
        """Largest norm of the gradient."""

    @property
    def average(self) -> float:
        """Decay of the averaged weights per step, at most (1 + n) / (10 + n) after n steps."""

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Of the forward and backward passes; weights and optimiser are always fp32."""


@dataclass
class Training(Generic[Network]):
    """All that changes in training.

    Attributes:
        model: trained in place.
        averaged: its exponential moving average, the one to use afterwards.
        optimiser: AdamW.
        random: source of what the loss draws.
        step: how many steps are done.
    """

    model: Network
    averaged: Network
    optimiser: torch.optim.Optimizer
    random: torch.Generator
    step: int = 0

    @classmethod
    def of(cls, model: Network, random: torch.Generator) -> Training[Network]:
        """The beginning, from untrained weights."""
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), fused=True)
        return cls(model.train(), copy.deepcopy(model).eval().requires_grad_(False), optimiser, random)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, to be kept: a training that is given it back goes on bit for bit on a CPU."""
        kept = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        kept |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            kept |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
        kept |= {"random.loss": self.random.get_state(), "random.dropout": torch.get_rng_state(), "step": torch.tensor(self.step)}
        if torch.cuda.is_available():
            kept["random.cuda"] = torch.cuda.get_rng_state()
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in kept.items()}

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go back to where :meth:`tensors` was called.

        On another kind of device the state of a random generator means nothing. There the generators are seeded anew, by their first seed
        and the step, so that nothing that was drawn before is drawn again.
        """
        for part, network in (("model", self.model), ("averaged", self.averaged)):
            network.load_state_dict({name: kept[f"{part}.{name}"] for name in network.state_dict()})
        parameters, state = list(self.model.parameters()), dict[int, dict[str, Tensor]]()
        for key, value in kept.items():
            part, *rest = key.split(".")
            if part == "optimiser":
                number, name = int(rest[0]), rest[1]
                like = parameters[number]
                # In the memory layout of its parameter: the fused optimiser goes through both as they lie.
                laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                state.setdefault(number, {})[name] = laid_out
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.step = int(kept["step"])
        torch.set_rng_state(kept["random.dropout"])
        if kept["random.loss"].numel() == self.random.get_state().numel():
            self.random.set_state(kept["random.loss"])
        else:
            self.random.manual_seed(self.random.initial_seed() + self.step)
        if torch.cuda.is_available():
            if "random.cuda" in kept:
                torch.cuda.set_rng_state(kept["random.cuda"])
            else:
                torch.cuda.manual_seed(torch.cuda.initial_seed() + self.step)


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        number: which it was, from 0.
        loss: mean over its samples.
        rate: learning rate.
        gradient: norm of the gradient before clipping.
        waiting: share of the time that went into putting the batch together.
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
) -> Iterator[Step]:
    """Train to the last step; a generator that yields after each, so that the caller shows progress, keeps checkpoints and may stop.

    The gradient of a step is that of the mean loss over its samples, however they are divided into batches. If there are fewer samples than
    ``batch`` times ``accumulate``, a step has all of them. Where torch's process group is initialised, each process takes its own share of
    every step's samples, and gradients are averaged: two processes do what one with twice the batch does.

    Args:
        training: goes on from its step.
        batch_of: puts a batch together.
        loss_of: mean loss of a batch.
        samples: how many there are; each epoch visits all in random order, an incomplete last step left out.
        settings: how.
        seed: of the order.

    Raises:
        UserError: if the loss is not finite, naming the step and its samples.
    """
    rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if _distributed() else (0, 1)
    size = min(settings.batch * settings.accumulate, max(1, samples // processes))
    parameters = [parameter for parameter in training.model.parameters() if parameter.requires_grad]
    device = parameters[0].device.type
    for chosen in islice(_steps(samples, size * processes, seed), training.step, settings.steps):
        rate = settings.rate * _schedule(settings, training.step)
        for group in training.optimiser.param_groups:
            group["lr"] = rate
        training.optimiser.zero_grad()
        total, begin, waited = torch.zeros((), device=parameters[0].device), time.perf_counter(), 0.0
        for part in chosen.split(settings.batch * processes):
            share = part.numel() // processes
            mine = slice(rank * share, (rank + 1) * share)
            before = time.perf_counter()
            batch = batch_of(part, mine)
            waited += time.perf_counter() - before
            with torch.autocast(device, torch.bfloat16) if settings.precision == "bf16" else nullcontext():
                # The mean over the samples of the step, of which the last part may have fewer.
                loss = loss_of(training.model, batch) / (size / share)
            loss.backward()
            total += loss.detach()
        _average_over_processes(parameters, total)
        if not torch.isfinite(total):
            which = ", ".join(str(index) for index in chosen[:8].tolist()) + (", ..." if chosen.numel() > 8 else "")
            raise UserError(f"the loss is {total.item()} at training step {training.step}, with samples {which}; a lower rate may help")
        gradient = nn.utils.clip_grad_norm_(parameters, settings.clip)
        training.optimiser.step()
        decay = min(settings.average, (1 + training.step) / (10 + training.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(training.averaged.parameters()), list(training.model.parameters()), 1 - decay)
        training.step += 1
        waiting = waited / (time.perf_counter() - begin)
        yield Step(training.step - 1, total.item(), rate, gradient.item(), waiting)


def _schedule(settings: Settings, step: int) -> float:
    """Share of the highest rate at a step."""
    if step < settings.warm_up:
        return (step + 1) / (settings.warm_up + 1)
    share = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    falling = {"constant": 0.0, "half-cosine": max(0.0, 2 * share - 1), "cosine": share}[settings.schedule]
    return 0.5 * (1 + math.cos(math.pi * falling))


def _steps(samples: int, size: int, seed: int) -> Iterator[Tensor]:
    """Samples of each step, a function of the seed alone, so that a training that goes on takes up the order where it was."""
    random = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=random)
        yield from order[: samples // size * size].split(size)


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _average_over_processes(parameters: list[nn.Parameter], loss: Tensor) -> None:
    """Average gradients and loss over all processes, in one message."""
    if not _distributed():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    message = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    torch.distributed.all_reduce(message)
    message /= torch.distributed.get_world_size()
    loss.copy_(message[0])
    for gradient, mean in zip(gradients, message[1:].split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.reshape(gradient.shape))
