"""The device that networks run on: its choice, copies to it, compiled kernels, freed memory on a CPU, and torch's settings."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

MOST_SHAPES = 64
"""The most input shapes for which one process compiles a network. A study needs many: it has many grids, batch sizes and precisions."""


def compiled(network: nn.Module, options: Mapping[str, int] | None = None) -> None:
    """Compile a network in place; a second call does nothing.

    Each input shape gets its own kernels, because kernels for dynamic shapes fail on a second grid.

    Args:
        network: the network.
        options: settings of torch's compiler (``torch._inductor.config``) that are not its defaults.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)
    if network._compiled_call_impl is None:
        network.compile(dynamic=False, options=dict(options) if options else None)


def eagerly() -> AbstractContextManager[object]:
    """A context in which networks run without the kernels of :func:`compiled`, for a few evaluations in another precision or batch size.

    New kernels would be made for these, which takes longer than the evaluations. If torch's compiler is not imported yet, no network has
    kernels, and importing it would take a second.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. A copy to a GPU goes through pinned memory, so the host does not wait for it."""
    to_gpu = device.type == "cuda" and tensor.device.type == "cpu"
    return tensor.pin_memory().to(device, non_blocking=True) if to_gpu else tensor.to(device)


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the system.

    The system zeroes a returned block page by page when it is allocated again, which happens several times in every layer. This made
    batches of 25 samples on two cores take 2.4 ms a sample instead of 1.5. On systems without ``mallopt`` this function does nothing.
    """
    trim_threshold, mmap_threshold = -1, -3
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None:
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


@contextmanager
def own_torch_settings() -> Iterator[None]:
    """A block, or a decorated function, that has torch's own default settings, and leaves those of the caller and the random numbers alone.

    Settings of a notebook, such as float64 as the default type, would change networks or end in an error. And making and training networks
    draws from torch's own generators and seeds them, so that the numbers that a notebook draws next would depend on what was done here.
    """
    gpus, seed = [torch.cuda.current_device()] if torch.cuda.is_initialized() else [], torch.initial_seed()
    kind, searches = torch.get_default_dtype(), torch.backends.cudnn.benchmark
    # In a context with a device all functions of torch are a little slower.
    on_cpu = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad(), on_cpu:
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(kind)
            torch.backends.cudnn.benchmark = searches
            if not gpus and torch.cuda.is_initialized():
                torch.cuda.manual_seed(seed)  # as torch seeds a GPU when it is first used


def device() -> torch.device:
    """The GPU if torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the device of ``x`` keep the precision of their inputs, also inside of autocast."""
    kind = x.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if enabled else nullcontext()
