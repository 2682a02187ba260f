"""Grids of flow times from 0 (noise) to 1 (data), (steps + 1,), both ends exact, in double precision.

The paper compares these four (appendix B.1). The half log signal-to-noise ratio of a straight path is log(t / (1 - t)), infinite at both
ends, so the last two grids cover a finite range of it and take one step from noise into it and one out of it to the data.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(steps: int) -> Tensor:
    """Equal steps."""
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)


def quadratic(steps: int) -> Tensor:
    """Noise level 1 - t as the square of equal steps: short steps near the data."""
    return 1 - (1 - uniform(steps)) ** 2


def log_snr(steps: int, ends: tuple[float, float] = (-3.0, 3.0)) -> Tensor:
    """Equal steps in log(t / (1 - t)) from ``ends[0]`` to ``ends[1]``, and one step on either side.

    The range of +-6.9 in the paper's code spends most steps where the state hardly changes.
    """
    inner = torch.linspace(*ends, steps - 1, dtype=torch.float64) if steps > 2 else torch.full((steps - 1,), sum(ends) / 2).double()
    return torch.cat([torch.zeros(1).double(), inner.sigmoid(), torch.ones(1).double()])


def edm(steps: int) -> Tensor:
    """Karras et al. (2022), Eq. 5: noise levels (1 - t) / t from 80 to 0.002 by a power of 7, then 0; the first is infinite here."""
    sigma = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps, dtype=torch.float64) ** 7
    return torch.cat([torch.zeros(1).double(), 1 / (1 + sigma[1:]), torch.ones(1).double()])
