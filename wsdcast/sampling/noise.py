"""The noise that generation starts from. Every sample has its own seed, so its noise does not depend on the other samples of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def seeded_noise(seeds: Iterable[Sequence[int]], shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise float32 (sample, *shape), on the CPU.

    Args:
        seeds: the seed of each sample: several integers, none negative, which are hashed together (``numpy.random.SeedSequence``).
        shape: shape of one sample.
    """
    seeds = list(seeds)
    noise = np.empty((len(seeds), *shape), dtype=np.float32)
    for sample, seed in zip(noise, seeds, strict=True):
        np.random.default_rng(seed).standard_normal(out=sample, dtype=np.float32)
    return torch.from_numpy(noise)
