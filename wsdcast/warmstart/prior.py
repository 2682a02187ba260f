"""The informed prior of section 2 of Warm Starts Accelerate Conditional Diffusion: Eqs. 2 to 4."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InformedPrior:
    """The Gaussian N(mean, diag(std^2)) from which generation starts.

    The rest of the method knows only the methods below, nothing of what is inside.

    Attributes:
        mean: (batch, channel, ...), in the units of the data.
        std: the same shape, positive.
    """

    mean: Tensor
    std: Tensor

    def normalise(self, x: Tensor) -> Tensor:
        """Data to normalised space, Eq. 2."""
        return (x - self.mean) / self.std

    def denormalise(self, x: Tensor) -> Tensor:
        """Normalised space to data, Eq. 3."""
        return x * self.std + self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """The draw from the prior that standard normal ``noise`` stands for."""
        return self.denormalise(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Natural logarithm of the density of each sample, (batch,)."""
        density = -0.5 * self.normalise(x) ** 2 - self.std.log() - 0.5 * math.log(2 * math.pi)
        return density.flatten(1).sum(dim=1)

    def blended(self, warmth: Tensor) -> InformedPrior:
        """Warmth blending, Eq. 4: std becomes w max(std, 1 - w) + (1 - w). The mean stays.

        Args:
            warmth: w in [0, 1], of shape (batch,) or (1,); 1 keeps the prior, 0 gives unit std.
        """
        w = warmth.reshape(-1, *(1,) * (self.std.dim() - 1))
        return InformedPrior(self.mean, w * torch.maximum(self.std, 1 - w) + (1 - w))

    def features(self) -> Tensor:
        """What the generator is told of the prior: mean and logarithm of std, (batch, 2 channel, ...)."""
        return torch.cat([self.mean, self.std.log()], dim=1)


PriorOf = Callable[[Tensor], InformedPrior]
"""From a context (batch, channel, ...) to the prior of what follows it."""


def warm_start(moments: Callable[[Tensor], tuple[Tensor, Tensor]]) -> PriorOf:
    """The prior predicted by any model ``moments(context) -> (mean, std)``, here without gradients, as in section 2.4."""

    def prior_of(context: Tensor) -> InformedPrior:
        with torch.no_grad():
            return InformedPrior(*moments(context))

    return prior_of


def standard(channels: int) -> PriorOf:
    """N(0, 1) whatever the context: standard flow matching as the special case of section 2.5. Blending leaves it as it is."""

    def prior_of(context: Tensor) -> InformedPrior:
        mean = context.new_zeros(context.shape[0], channels, *context.shape[2:])
        return InformedPrior(mean, torch.ones_like(mean))

    return prior_of
