"""What makes samplers fast on a GPU: bfloat16, compiled kernels, and one CUDA graph for the whole of a step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsdcast.runs import devices
from wsdcast.runs.devices import compiled
from wsdcast.runs.progress import note_once
from wsdcast.sampling.samplers import Sampler


def accelerated(sampler: Sampler, networks: Iterable[object], *, recorded: bool = True, deterministic: bool = False) -> Sampler:
    """The same sampler, on a GPU as fast as it gets; on a CPU as it is.

    Args:
        sampler: from context and noise to the next state.
        networks: that it evaluates; those that are modules are compiled in place.
        recorded: whether a CUDA graph can record the sampler: all its work is on the GPU, and the host decides nothing by what is there.
        deterministic: in float32, without compiled kernels, by algorithms that always round alike.
    """
    if devices.device().type != "cuda":
        return sampler
    if deterministic:
        return exactly(sampler)
    torch.backends.cudnn.benchmark = True
    for network in networks:
        if isinstance(network, nn.Module):
            compiled(network)
    if not recorded:
        note_once("this sampler is run without a CUDA graph: it decides on the host as it goes, or calls a model that is not ours")
        return in_bfloat16(sampler)
    return as_graph(in_bfloat16(sampler))


def in_bfloat16(sampler: Sampler) -> Sampler:
    """The same sampler with convolutions and matrix products in bfloat16; states, prior and solver stay float32."""

    def halved(context: Tensor, noise: Tensor) -> Tensor:
        # Without a cache of converted weights: in a graph it would point to memory that is gone.
        with torch.autocast(context.device.type, torch.bfloat16, cache_enabled=False):
            return sampler(context, noise)

    return halved


def exactly(sampler: Sampler) -> Sampler:
    """The same sampler in float32 proper, not the shorter TensorFloat-32, by algorithms that always round alike; flags are put back."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS promises nothing, and torch refuses it

    def exact(context: Tensor, noise: Tensor) -> Tensor:
        with deterministic_algorithms():
            return sampler(context, noise)

    return exact


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Torch's flags for the same bits every time, within the block alone."""
    before, matrices = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_float32_matmul_precision(matrices)


def as_graph(sampler: Sampler) -> Sampler:
    """The same sampler as one CUDA graph for each shape of input: hundreds of kernels, all evaluations of both networks among them, that
    one call starts."""
    recordings: dict[tuple[torch.Size, torch.Size], tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor], Tensor]] = {}

    def record(context: Tensor, noise: Tensor) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor], Tensor]:
        inputs, graph, beside = (context.clone(), noise.clone()), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):  # compiles, and chooses algorithms, before anything is recorded
                sampler(*inputs)
        torch.cuda.current_stream().wait_stream(beside)
        with torch.cuda.graph(graph):
            output = sampler(*inputs)
        return graph, inputs, output

    def replay(context: Tensor, noise: Tensor) -> Tensor:
        shapes = context.shape, noise.shape
        if shapes not in recordings:
            recordings[shapes] = record(context, noise)
        graph, inputs, output = recordings[shapes]
        for mine, given in zip(inputs, (context, noise), strict=True):
            mine.copy_(given)
        graph.replay()
        return output.clone()

    return replay
