"""The state of a training: weights, averaged weights, optimiser and random generators, and how it is stored and restored."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.distributed
from torch import Tensor

from wsdcast.nets.weights import Model
from wsdcast.runs import processes

Value = TypeVar("Value")


@dataclass
class Training(Generic[Model]):
    """All that changes during training.

    Attributes:
        model: the network, trained in place.
        averaged: the network with averaged weights (exponential moving average, EMA), which is used after training.
        optimiser: AdamW.
        random: random generator for what the loss draws.
        step: number of steps that are done.
    """

    model: Model
    averaged: Model
    optimiser: torch.optim.Optimizer
    random: torch.Generator
    step: int = 0

    @classmethod
    def of(cls, model: Model, random: torch.Generator) -> Training[Model]:
        """The state before the first step.

        From here on each process draws its own dropout masks. Those of the first process are the ones it would draw alone.
        """
        if rank := processes.number():
            torch.manual_seed(torch.initial_seed() + 104_729 * rank)
        optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), fused=True)
        return cls(model.train(), copy.deepcopy(model).eval().requires_grad_(False), optimiser, random)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as tensors by name. On a CPU, a training that is restored from them gives the same bits.

        All processes must call this. The first process gets the state, the others an empty dictionary. Processes differ only in the random
        states of their dropout, and those of all processes are included.
        """
        dropout_states = _gather(_dropout_state())
        if not processes.is_first():
            return {}
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        state |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        state |= {"random.loss": self.random.get_state(), "step": torch.tensor(self.step)}
        for process, dropout_state in enumerate(dropout_states):
            state |= {_key(name, process): value for name, value in dropout_state.items()}
        return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the state that :meth:`tensors` returned.

        Random states cannot be restored on another kind of device, nor for a process that did not exist when the state was stored. Such
        generators get a new seed, made of their first seed and the step, so that they do not repeat earlier draws.
        """
        rank = processes.number()
        for part, network in (("model", self.model), ("averaged", self.averaged)):
            network.load_state_dict({name: state[f"{part}.{name}"] for name in network.state_dict()})
        parameters, optimiser_state = list(self.model.parameters()), dict[int, dict[str, Tensor]]()
        for key, value in state.items():
            part, *path = key.split(".")
            if part == "optimiser":
                number, name = int(path[0]), path[1]
                parameter = parameters[number]
                # The fused optimiser needs its state in the memory layout of the parameter.
                laid_out = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                optimiser_state.setdefault(number, {})[name] = laid_out
        self.optimiser.load_state_dict({"state": optimiser_state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.step = int(state["step"])
        if (key := _key("random.dropout", rank)) in state:
            torch.set_rng_state(state[key])
        else:
            torch.manual_seed(torch.initial_seed() + self.step)
        if state["random.loss"].numel() == self.random.get_state().numel():
            self.random.set_state(state["random.loss"])
        else:
            self.random.manual_seed(self.random.initial_seed() + self.step)
        if torch.cuda.is_available():
            if (key := _key("random.cuda", rank)) in state:
                torch.cuda.set_rng_state(state[key])
            else:
                torch.cuda.manual_seed(torch.cuda.initial_seed() + self.step)


def _dropout_state() -> dict[str, Tensor]:
    """States of the random generators that this process draws its dropout from."""
    states = {"random.dropout": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def _key(name: str, rank: int) -> str:
    """The key of a process's random state. The first process has the key of a training in one process."""
    return f"{name}.{rank}" if rank else name


def _gather(value: Value) -> list[Value]:
    """Return the values of all processes, in every process."""
    values = [value] * processes.count()
    if processes.count() > 1:
        torch.distributed.all_gather_object(values, value)
    return values
