"""The autoregression, which makes a forecast from two states, and the noise of the ensemble members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.sampling.samplers import Sampler


def forecast(sampler: Sampler, now: Tensor, before: Tensor, noises: Iterable[Tensor], forcings: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run the autoregression with steps of 6 h. Each state becomes the state now of the next context.

    Args:
        sampler: makes the next state.
        now, before: the state at the initial time and the state 6 h before, each (batch, channel, latitude, longitude).
        noises: the noise of each step, of the same shape.
        forcings: the forcings of each step's context, (batch, forcing, latitude, longitude). The first are those at the initial time.

    Yields:
        One state (batch, channel, latitude, longitude) for each step.
    """
    for noise, step_forcings in zip(noises, forcings, strict=True):
        state = sampler(torch.cat([now, before, step_forcings], dim=1), noise)
        yield state
        now, before = state, now


def member_noise(seed: int, starts: NDArray[np.datetime64], members: int, steps: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield standard normal noise (start x member, *shape) for each step.

    The noise of member m of initial time s at step k depends on (seed, s, m, k) alone. The first 50 of 100 members are therefore the same
    as the members of an ensemble of 50.
    """
    seconds = starts.astype("datetime64[s]").astype(np.int64).tolist()
    for step in range(steps):
        noise = np.empty((len(seconds) * members, *shape), dtype=np.float32)
        for item, (second, member) in zip(noise, product(seconds, range(members)), strict=True):
            # A seed must not be negative, but the seconds of a time before 1970 are. The remainder makes them positive.
            np.random.default_rng([seed, second % 2**63, member, step]).standard_normal(out=item, dtype=np.float32)
        yield torch.from_numpy(noise)
