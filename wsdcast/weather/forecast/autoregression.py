"""The autoregression: from two states to a forecast, and the noise of its members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.sampling.samplers import Sampler


def forecast(sampler: Sampler, now: Tensor, before: Tensor, noises: Iterable[Tensor], beside: Iterable[Tensor]) -> Iterator[Tensor]:
    """The whole autoregression: one state (batch, channel, latitude, longitude) for each noise, 6 h apart.

    Args:
        sampler: makes the next state.
        now, before: the state at the start and that 6 h before, each as above.
        noises: one for each step, as above.
        beside: what the context has beside the wind, from the start on, one for each step.
    """
    for noise, around in zip(noises, beside, strict=True):
        state = sampler(torch.cat([now, before, around], dim=1), noise)
        yield state
        now, before = state, now


def member_noise(seed: int, starts: NDArray[np.datetime64], members: int, steps: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Standard normal noise (start x member, *shape) for each step.

    That of member m of start s at step k depends on (seed, s, m, k) alone, so the first 50 of 100 members are the 50.
    """
    seconds = starts.astype("datetime64[s]").astype(np.int64).tolist()
    for step in range(steps):
        noise = np.empty((len(seconds) * members, *shape), dtype=np.float32)
        for item, (second, member) in zip(noise, product(seconds, range(members)), strict=True):
            # Seeds must not be negative; times before 1970 are.
            np.random.default_rng([seed, second % 2**63, member, step]).standard_normal(out=item, dtype=np.float32)
        yield torch.from_numpy(noise)
