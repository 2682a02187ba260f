"""Flow times from 0 (noise) to 1 (data): the grids on which solvers step, and the distributions from which training draws times.

The paper compares the first four grids (appendix B.1). A grid has the shape (steps + 1,) and double precision, and it begins at exactly 0
and ends at exactly 1; :func:`sgmse` begins later.

On a straight path the signal is t and the noise 1 - t, so half the log signal-to-noise ratio is log(t / (1 - t)). It is infinite at both
ends. The grids :func:`log_snr` and :func:`edm` therefore cover a finite range of it, with one step from t = 0 into the range and one step
out of it to t = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""Maps the number of times to draw, and a random generator, to times, (count,), on the device of the generator."""


def draw_uniform(count: int, random: torch.Generator) -> Tensor:
    """Draw times uniformly from [0, 1)."""
    return torch.rand(count, generator=random, device=random.device)


def draw_logit_normal(count: int, random: torch.Generator, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Draw times for which log(t / (1 - t)) is normal, with this mean and standard deviation (Esser et al. 2024)."""
    return (mean + scale * torch.randn(count, generator=random, device=random.device)).sigmoid()


def uniform(steps: int) -> Tensor:
    """Return equal steps in t."""
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)


def quadratic(steps: int) -> Tensor:
    """Return times whose noise level 1 - t is the square of a uniform grid: the steps are shorter near the data."""
    return 1 - (1 - uniform(steps)) ** 2


def log_snr(steps: int, ends: tuple[float, float] = (-3.0, 3.0)) -> Tensor:
    """Return equal steps in log(t / (1 - t)) from ``ends[0]`` to ``ends[1]``, with one more step at either side.

    The paper's code uses the range +-6.9, which spends most steps where the state hardly changes. The steps at either side do not get
    shorter with more steps, so the error of a solver does not vanish (docs/method.md); many steps need a wider range.
    """
    inner = torch.linspace(*ends, steps - 1, dtype=torch.float64) if steps > 2 else torch.full((steps - 1,), sum(ends) / 2).double()
    return torch.cat([torch.zeros(1).double(), inner.sigmoid(), torch.ones(1).double()])


def edm(steps: int) -> Tensor:
    """Return the grid of Karras et al. (2022), Eq. 5, in which (1 - t) / t to the power of 1/7 has equal steps from 80 to 0.002.

    A last step to 0 follows, which is t = 1. The first value is infinite instead of 80, because the grid begins at t = 0.
    """
    sigma = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps, dtype=torch.float64) ** 7
    return torch.cat([torch.zeros(1).double(), 1 / (1 + sigma[1:]), torch.ones(1).double()])


def sgmse(steps: int, pull: float = 1.5, ends: tuple[float, float] = (0.05, 0.5), last: float = 0.03) -> Tensor:
    """Return the times of SGMSE (Richter et al. 2023), whose process pulls the data y towards the predicted mean m while noise grows.

    At its time s in [0, 1] the state is N(m + a (y - m), b^2), with a = exp(-pull s) and

        b^2 = ends[0]^2 ((ends[1] / ends[0])^(2 s) - a^2) log(ends[1] / ends[0]) / (pull + log(ends[1] / ends[0])).

    In normalised space it is a y' + b z, which is the straight path at t = a / (a + b) in units of a + b. The steps in s are equal, from 1
    to ``last``, and a step to 0 follows, which is t = 1. At s = 1 the share a of the data is not 0 yet. Generation begins there all the
    same, with noise alone, (1 - t) z: the grid begins at t = 0.36.

    Args:
        steps: number of steps.
        pull: called theta; published: 1.5.
        ends: of the noise, sigma_min and sigma_max, in units of the prior's standard deviation; published: 0.05 and 0.5.
        last: the last s but 0; published: 0.03.
    """
    s = torch.linspace(1, last, steps, dtype=torch.float64)
    ratio = ends[1] / ends[0]
    data = torch.exp(-pull * s)
    noise = ends[0] * ((ratio ** (2 * s) - data**2) * math.log(ratio) / (pull + math.log(ratio))).sqrt()
    return torch.cat([data / (data + noise), torch.ones(1).double()])
