"""Batches of a sampler: their size, and how ensemble members are divided among them."""

from __future__ import annotations

import torch
from torch import Tensor

from wsdcast.sampling.samplers import Sampler
from wsdcast.sampling.threads import side_by_side


def in_batches(sampler: Sampler, size: int) -> Sampler:
    """Return the sampler for any number of members, which evaluates at most ``size`` members per batch.

    On a CPU all batches have ``size`` members, and the last batch is filled up with repetitions. Convolutions round differently in batches
    of another size, and a member's bits must not depend on the number of members. Batches run in parallel, each on one thread, so the bits
    do not depend on the number of threads either. The networks must therefore allow calls from several threads, as torch's modules do in
    inference. On a GPU members are divided evenly and nothing is computed twice; the sizes of batches differ by at most one.
    """

    def batched(context: Tensor, noise: Tensor) -> Tensor:
        members = noise.shape[0]
        if noise.device.type != "cpu":
            count = -(-members // size)
            pairs = zip(context.tensor_split(count), noise.tensor_split(count), strict=True)
            return torch.cat([sampler(*pair) for pair in pairs])
        slots = torch.arange(-(-members // size) * size, device=noise.device) % members
        parts = side_by_side(lambda batch: sampler(context[batch], noise[batch]), slots.split(size), noise.device)
        return torch.cat(parts)[:members]

    return batched


def batch_size(points: int, device: torch.device) -> int:
    """Return the largest number of members per evaluation for a grid of ``points``.

    On two cores, each with one batch, the planet's networks (2,048 points) took 16.2 ms for a sample of ten evaluations in batches of 13,
    14.7 ms in batches of 25, and no less in larger batches. The limit of 50 members is for small grids: most of a larger batch would be
    repetitions.
    """
    return max(1, min(50, 52_000 // points)) if device.type == "cpu" else max(2, 2_000_000 // points)


def at_once(size: int, device: torch.device) -> int:
    """Return the largest number of members evaluated at the same time: one batch of ``size`` per thread on a CPU, one batch on a GPU."""
    return size * torch.get_num_threads() if device.type == "cpu" else size
