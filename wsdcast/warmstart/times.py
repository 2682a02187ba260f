"""Flow times from 0 (noise) to 1 (data): grids for solvers, and distributions for training.

Grids are (steps + 1,), in double precision, from exactly 0 to exactly 1. The paper compares these four (appendix B.1). The half log
signal-to-noise ratio of a straight path, log(t / (1 - t)), is infinite at both ends. The grids ``log_snr`` and ``edm`` therefore cover a
finite range of it, and add one step from the noise into the range and one from the range to the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""``draw_times(count, random)`` returns times (count,) on the device of the random generator."""


def draw_uniform(count: int, random: torch.Generator) -> Tensor:
    """Times uniformly distributed between 0 and 1."""
    return torch.rand(count, generator=random, device=random.device)


def draw_logit_normal(count: int, random: torch.Generator, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Times whose log(t / (1 - t)) is normal (Esser et al. 2024)."""
    return (mean + scale * torch.randn(count, generator=random, device=random.device)).sigmoid()


def uniform(steps: int) -> Tensor:
    """Equal steps."""
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)


def quadratic(steps: int) -> Tensor:
    """Noise level 1 - t as the square of equal steps: short steps near the data."""
    return 1 - (1 - uniform(steps)) ** 2


def log_snr(steps: int, ends: tuple[float, float] = (-3.0, 3.0)) -> Tensor:
    """Equal steps in log(t / (1 - t)) from ``ends[0]`` to ``ends[1]``, plus one step on either side.

    The paper's code uses the range +-6.9, which spends most steps where the state hardly changes.
    """
    inner = torch.linspace(*ends, steps - 1, dtype=torch.float64) if steps > 2 else torch.full((steps - 1,), sum(ends) / 2).double()
    return torch.cat([torch.zeros(1).double(), inner.sigmoid(), torch.ones(1).double()])


def edm(steps: int) -> Tensor:
    """Karras et al. (2022), Eq. 5: noise levels (1 - t) / t from 80 to 0.002 by a power of 7, then 0. Here the first is infinite."""
    sigma = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps, dtype=torch.float64) ** 7
    return torch.cat([torch.zeros(1).double(), 1 / (1 + sigma[1:]), torch.ones(1).double()])
