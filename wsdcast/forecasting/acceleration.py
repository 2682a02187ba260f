"""What makes networks fast on a GPU: bfloat16, compiled kernels, and one CUDA graph for the whole of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsdcast import models
from wsdcast.forecasting.ensemble import Sampler


def accelerated(sampler: Sampler, networks: list[nn.Module], deterministic: bool) -> Sampler:
    """The same sampler, on a GPU as fast as it gets; on a CPU as it is.

    Args:
        sampler: always called with batches of one size.
        networks: that it evaluates; they are compiled in place.
        deterministic: in float32, without compiled kernels, by algorithms that always round alike.
    """
    if models.device().type != "cuda":
        return sampler
    if deterministic:
        # float32 proper: not the shorter TensorFloat-32 that convolutions take by default.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
        return sampler
    torch.backends.cudnn.benchmark = True
    for network in networks:
        network.compile()
    return as_graph(in_bfloat16(sampler))


def in_bfloat16(sampler: Sampler) -> Sampler:
    """The same sampler with convolutions and matrix products in bfloat16; states, prior and solver stay float32."""

    def halved(context: Tensor, noise: Tensor) -> Tensor:
        # Without a cache of converted weights: in a graph it would point to memory that is gone.
        with torch.autocast(context.device.type, torch.bfloat16, cache_enabled=False):
            return sampler(context, noise)

    return halved


def as_graph(sampler: Sampler) -> Sampler:
    """The same sampler as one CUDA graph: hundreds of kernels, among them all evaluations of both networks, started by one call."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    graph = torch.cuda.CUDAGraph()

    def replay(context: Tensor, noise: Tensor) -> Tensor:
        if not outputs:
            inputs.extend((context.clone(), noise.clone()))
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(3):  # compiles, and chooses algorithms, before anything is recorded
                    sampler(*inputs)
            torch.cuda.current_stream().wait_stream(beside)
            with torch.cuda.graph(graph):
                outputs.append(sampler(*inputs))
        for mine, given in zip(inputs, (context, noise), strict=True):
            mine.copy_(given)
        graph.replay()
        return outputs[0].clone()

    return replay
