"""Acceleration of samplers on a GPU: bfloat16, compiled kernels, and one CUDA graph for a whole call of the sampler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wsdcast.runs import devices
from wsdcast.runs.devices import compiled
from wsdcast.runs.progress import note_once
from wsdcast.sampling.samplers import Sampler

ONE_KERNEL_FOR_NEIGHBOURS = {"realize_reads_threshold": 32, "realize_opcount_threshold": 1000}
"""Options of torch's compiler: how much a kernel may read and compute for one value before the value is stored.

By default the normalised features are stored in float32, and a second kernel reads them at the neighbours of each point. With these options
one kernel does both. The kernels of pipelines/era5.yaml then move 40 % fewer bytes, without the convolutions (docs/results/gpu.md).
"""


def accelerated(sampler: Sampler, networks: Iterable[object], *, recorded: bool = True, deterministic: bool = False) -> Sampler:
    """Return the sampler, accelerated on a GPU and unchanged on a CPU.

    Args:
        sampler: makes the next state from context and noise.
        networks: the networks that it evaluates. Modules among them are compiled in place.
        recorded: whether a CUDA graph can record the sampler. For that all its work must be on the GPU, and no decision of the host may
            depend on values there.
        deterministic: on a GPU, do not accelerate, but compute in float32 with deterministic algorithms.
    """
    if devices.device().type != "cuda":
        return sampler
    if deterministic:
        return exactly(sampler)
    torch.backends.cudnn.benchmark = True
    for network in networks:
        if isinstance(network, nn.Module):
            compiled(network, ONE_KERNEL_FOR_NEIGHBOURS)
    if torch.cuda.is_bf16_supported(including_emulation=False):  # GPUs before A100 imitate it, which takes longer than float32
        sampler = in_bfloat16(sampler)
    if not recorded:
        note_once("this sampler runs without a CUDA graph, because its solver makes decisions on the host or it calls a user's model")
        return sampler
    return as_graph(sampler)


def in_bfloat16(sampler: Sampler) -> Sampler:
    """Return the sampler with convolutions and matrix products in bfloat16. States, prior and solver stay float32."""

    def autocast(context: Tensor, noise: Tensor) -> Tensor:
        # The cache of converted weights is off, because a CUDA graph would keep pointers into it after it is freed.
        with torch.autocast(context.device.type, torch.bfloat16, cache_enabled=False):
            return sampler(context, noise)

    return autocast


def exactly(sampler: Sampler) -> Sampler:
    """Return the sampler in full float32, without TensorFloat-32, and with deterministic algorithms. Each call restores torch's flags.

    cuBLAS is deterministic only with ``CUBLAS_WORKSPACE_CONFIG``, which importing :mod:`wsdcast` sets.
    """

    def deterministic(context: Tensor, noise: Tensor) -> Tensor:
        with deterministic_algorithms():
            return sampler(context, noise)

    return deterministic


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Set torch's flags within the block so that results have the same bits every time, in full float32.

    Precisions are set by ``fp32_precision`` alone. torch refuses to read the older flags, such as ``allow_tf32``, where a user has set the
    newer ones.
    """
    backends: Any = torch.backends  # torch annotates only some of these flags
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    deterministic, warns_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn = cudnn.benchmark, cudnn.deterministic
    # What is "none" reads as the one above it. So those above are set first, and each is read as it is set itself.
    above = [backends, cudnn]
    single = [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    precisions = list[tuple[Any, str]]()
    try:
        for flags, precision in [(flags, "none") for flags in above] + [(flags, "ieee") for flags in single]:
            precisions.append((flags, flags.fp32_precision))
            flags.fp32_precision = precision
        cudnn.benchmark, cudnn.deterministic = False, True
        torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warns_only)
        cudnn.benchmark, cudnn.deterministic = of_cudnn
        for flags, precision in precisions:
            flags.fp32_precision = precision


def as_graph(sampler: Sampler) -> Sampler:
    """Return the sampler as a CUDA graph, recorded once for each shape of its inputs.

    One launch then starts hundreds of kernels, with all evaluations of both networks.
    """
    recordings: dict[tuple[torch.Size, torch.Size], tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor], Tensor]] = {}

    def record(context: Tensor, noise: Tensor) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor], Tensor]:
        inputs, graph, side_stream = (context.clone(), noise.clone()), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(3):  # warm up: kernels are compiled and algorithms chosen before the recording
                sampler(*inputs)
        torch.cuda.current_stream().wait_stream(side_stream)
        with torch.cuda.graph(graph):
            output = sampler(*inputs)
        return graph, inputs, output

    def replay(context: Tensor, noise: Tensor) -> Tensor:
        shapes = context.shape, noise.shape
        if shapes not in recordings:
            recordings[shapes] = record(context, noise)
        graph, inputs, output = recordings[shapes]
        for recorded, value in zip(inputs, (context, noise), strict=True):
            recorded.copy_(value)
        graph.replay()
        return output.clone()

    return replay
