"""How much memory a network takes, found without taking it."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Peak(TorchDispatchMode):
    """Adds up the storages that operations make, and takes off those that are freed."""

    def __init__(self, there: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet[Any](tensor.untyped_storage() for tensor in there)  # of which an operation may return a view

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                size = storage.nbytes()
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, size)
        return result

    def _freed(self, size: int) -> None:
        self.now -= size


def peak_memory(network: nn.Module, *shapes: tuple[int, ...], training: bool) -> int:
    """Bytes that one evaluation of a network needs beside its weights and inputs, in float32.

    The network is evaluated on torch's device ``meta``, where tensors have shapes and no content.

    Args:
        network: on any device.
        shapes: of its inputs.
        training: whether what the backward pass needs is kept, and that pass is done.
    """
    abstract = copy.deepcopy(network).to("meta").train(training).requires_grad_(training)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    there = [*abstract.parameters(), *abstract.buffers(), *inputs]
    with torch.set_grad_enabled(training), _Peak(there) as peak:
        outputs = [output for output in tree_leaves(abstract(*inputs)) if isinstance(output, torch.Tensor)]
        if training:
            sum(output.sum() for output in outputs).backward()  # type: ignore[union-attr]
    return peak.most


def training_memory(network: nn.Module, batch: int, bfloat16: bool, *shapes: tuple[int, ...]) -> float:
    """Bytes that training needs at least: weights, their average, gradients and two moments of AdamW, and the activations of a batch.

    Args:
        network: before training.
        batch: samples at a time.
        bfloat16: whether activations are kept in it, at half the size.
        shapes: of the inputs of one sample.
    """
    weights = sum(parameter.nbytes for parameter in network.parameters())
    activations = peak_memory(network, *shapes, training=True) - weights  # which has the gradients too
    return 5 * weights + activations * batch / (2 if bfloat16 else 1)
