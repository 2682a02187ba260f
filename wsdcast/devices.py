"""What differs on a GPU wherever networks run: copies that the host does not wait for, and compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPES = 64
"""Shapes of input for which a network may be compiled in one process: a study has many grids, batches and precisions."""


def compiled(network: nn.Module) -> None:
    """Have torch make kernels for a network, once, for each shape of input anew: kernels for any shape fail on a second grid."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    if network._compiled_call_impl is None:
        network.compile(dynamic=False)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. On the way to a GPU it goes through pinned memory, from which the GPU copies while the host goes on."""
    to_gpu = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if to_gpu else tensor.to(device)
