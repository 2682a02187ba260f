"""The memory that a network needs, computed without allocating it."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Peak(TorchDispatchMode):
    """Counts the bytes of the storages that operations allocate and free.

    Args:
        existing: tensors that are not counted. An operation may return a view of one.
    """

    def __init__(self, existing: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet[Any](tensor.untyped_storage() for tensor in existing)

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
    """The bytes that one evaluation of a network needs in float32, without its weights and inputs.

    The network is evaluated on torch's device ``meta``, where tensors have shapes and no content.

    Args:
        network: on any device.
        shapes: shapes of its inputs.
        training: whether to keep the activations and to run the backward pass.
    """
    abstract = copy.deepcopy(network).to("meta").train(training).requires_grad_(training)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    existing = [*abstract.parameters(), *abstract.buffers(), *inputs]
    with torch.set_grad_enabled(training), _Peak(existing) as peak:
        outputs = [output for output in tree_leaves(abstract(*inputs)) if isinstance(output, torch.Tensor)]
        if training:
            sum(output.sum() for output in outputs).backward()  # type: ignore[union-attr]
    return peak.most


def training_memory(network: nn.Module, batch: int, bfloat16: bool, *shapes: tuple[int, ...]) -> float:
    """A lower bound of the bytes that training needs: weights, EMA, gradients, the two moments of AdamW, and activations of a batch.

    Args:
        network: an untrained network.
        batch: samples per batch.
        bfloat16: whether activations are bfloat16, which halves them.
        shapes: shapes of the inputs of one sample.
    """
    weights = sum(parameter.nbytes for parameter in network.parameters())
    activations = peak_memory(network, *shapes, training=True) - weights  # the peak includes the gradients
    return 5 * weights + activations * batch / (2 if bfloat16 else 1)
