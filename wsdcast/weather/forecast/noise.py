"""The noise of the ensemble members."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.sampling.noise import seeded_noise


def member_noise(seed: int, initial_times: NDArray[np.datetime64], members: int, steps: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield standard normal noise (start x member, *shape) for each step.

    The noise of member m of initial time s at step k depends on (seed, s, m, k) alone. The first 50 of 100 members are therefore the same
    as the members of an ensemble of 50.
    """
    # A seed must not be negative, but the seconds of a time before 1970 are. The remainder makes them positive.
    seconds = [second % 2**63 for second in initial_times.astype("datetime64[s]").astype(np.int64).tolist()]
    for step in range(steps):
        yield seeded_noise(([seed, second, member, step] for second, member in product(seconds, range(members))), shape)
