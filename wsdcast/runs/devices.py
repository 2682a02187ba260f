"""What differs on a GPU wherever networks run: copies that the host does not wait for, and compiled kernels."""

from __future__ import annotations

import ctypes
import sys

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


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the system.

    Returned, each is zeroed page by page when it is next asked for, several times in every layer: batches of 25 samples on two cores
    then took 2.4 ms a sample instead of 1.5. Other systems have no ``mallopt``, and nothing happens there.
    """
    trim_threshold, mmap_threshold = -1, -3
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None:
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def device() -> torch.device:
    """The GPU where torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
