"""What changes in training, and how it is kept: weights, their averages, the optimiser and the sources of randomness."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

Value = TypeVar("Value")


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
        """The beginning, from untrained weights. From here on each process draws dropout of its own, the first as if it were alone."""
        rank, _ = place()
        if rank:
            torch.manual_seed(torch.initial_seed() + 104_729 * rank)
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), fused=True)
        return cls(model.train(), copy.deepcopy(model).eval().requires_grad_(False), optimiser, random)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, to be kept: a training that is given it back goes on bit for bit on a CPU.

        Of several processes all call this, and the first one gets it. What differs between them is the state of their dropout, each of
        which is kept.
        """
        states = _from_all(_dropout())
        if place()[0]:
            return {}
        kept = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        kept |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            kept |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
        kept |= {"random.loss": self.random.get_state(), "step": torch.tensor(self.step)}
        for rank, of_rank in enumerate(states):
            kept |= {_name(part, rank): state for part, state in of_rank.items()}
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in kept.items()}

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go back to where :meth:`tensors` was called.

        On another kind of device the state of a random generator means nothing, and of a process that was not there before none is kept.
        There the generators are seeded anew, by their first seed and the step, so that nothing that was drawn before is drawn again.
        """
        rank, _ = place()
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
        if (name := _name("random.dropout", rank)) in kept:
            torch.set_rng_state(kept[name])
        else:
            torch.manual_seed(torch.initial_seed() + self.step)
        if kept["random.loss"].numel() == self.random.get_state().numel():
            self.random.set_state(kept["random.loss"])
        else:
            self.random.manual_seed(self.random.initial_seed() + self.step)
        if torch.cuda.is_available():
            if (name := _name("random.cuda", rank)) in kept:
                torch.cuda.set_rng_state(kept[name])
            else:
                torch.cuda.manual_seed(torch.cuda.initial_seed() + self.step)


def _dropout() -> dict[str, Tensor]:
    """States of the generators that this process draws its dropout from."""
    states = {"random.dropout": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _name(part: str, rank: int) -> str:
    """Under which the state of a process is kept; those of the first one are named as if it were alone."""
    return f"{part}.{rank}" if rank else part


def _from_all(value: Value) -> list[Value]:
    """What each process has, in all of them."""
    _, processes = place()
    values = [value] * processes
    if processes > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def place() -> tuple[int, int]:
    """Which process this is, from 0, of how many."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
