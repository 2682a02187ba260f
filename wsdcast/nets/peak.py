"""The memory that a network needs, measured without allocating it."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _group_norm(x: torch.Tensor, weight: Any, bias: Any, batch: int, channels: int, points: int, groups: int, epsilon: float) -> Any:
    """Return what ``native_group_norm`` returns: the normalised tensor, and the mean and 1 / std of each group."""
    return torch.empty_like(x), x.new_empty(batch, groups), x.new_empty(batch, groups)


def _group_norm_backward(gradient: torch.Tensor, x: torch.Tensor, *others: Any) -> Any:
    """Return what ``native_group_norm_backward`` returns: the gradients of tensor, weight and bias, None where not asked for."""
    channels = x.shape[1:2]
    return tuple(x.new_empty(shape) if asked else None for shape, asked in zip((x.shape, channels, channels), others[-1], strict=True))


_RESULTS: dict[Any, Any] = {
    torch.ops.aten.native_group_norm.default: _group_norm,
    torch.ops.aten.native_group_norm_backward.default: _group_norm_backward,
}
"""Functions in place of operations. On the device ``meta`` torch makes many small ones of each, which took half of the time."""


class _Peak(TorchDispatchMode):
    """Counts the bytes of the storages that operations allocate, until they are freed.

    Args:
        existing: tensors that are not counted. An operation may return a view of their storage.
    """

    def __init__(self, existing: list[torch.Tensor]) -> None:
        super().__init__()
        self.current = self.largest = 0
        self.seen = weakref.WeakSet[Any](tensor.untyped_storage() for tensor in existing)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _RESULTS.get(function, function)(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                size = storage.nbytes()
                self.current += size
                self.largest = max(self.largest, self.current)
                weakref.finalize(storage, self._freed, size)
        return result

    def _freed(self, size: int) -> None:
        self.current -= size


def peak_memory(network: nn.Module, *shapes: tuple[int, ...], training: bool) -> int:
    """Return the bytes that one evaluation of a network needs in addition to its weights and inputs, in float32.

    The network is evaluated on torch's device ``meta``, where tensors have a shape but no values.

    Args:
        network: the network, on any device.
        shapes: the shapes of its inputs.
        training: whether to include the backward pass and the activations that it needs.
    """
    abstract = copy.deepcopy(network).to("meta").train(training).requires_grad_(training)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    existing = [*abstract.parameters(), *abstract.buffers(), *inputs]
    # Detecting anomalies, which a user may have switched on, reads values.
    with torch.set_grad_enabled(training), torch.autograd.set_detect_anomaly(False), _Peak(existing) as peak:
        outputs = [output for output in tree_leaves(abstract(*inputs)) if isinstance(output, torch.Tensor)]
        if training:
            sum(output.sum() for output in outputs).backward()  # type: ignore[union-attr]
    return peak.largest


def training_memory(network: nn.Module, batch: int, bfloat16: bool, *shapes: tuple[int, ...]) -> float:
    """Return a lower bound of the bytes that training needs.

    These are the weights, their EMA, the gradients, the two moments of AdamW, and the activations of a batch. With ``bfloat16`` the
    activations are half as large. The shapes are those of the inputs for one sample.
    """
    weights = sum(parameter.nbytes for parameter in network.parameters())
    activations = peak_memory(network, *shapes, training=True) - weights  # the peak includes the gradients
    return 5 * weights + activations * batch / (2 if bfloat16 else 1)
