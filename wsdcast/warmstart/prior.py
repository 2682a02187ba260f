"""The informed prior of section 2 of Warm Starts Accelerate Conditional Diffusion, Eqs. 2 to 4."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Blend = Callable[[Tensor, Tensor], Tensor]
"""From std (batch, channel, ...) and warmth that broadcasts against it to the std of the same shape that normalises."""


def warmth_blending(std: Tensor, w: Tensor) -> Tensor:
    """Eq. 4."""
    return w * torch.maximum(std, 1 - w) + (1 - w)


@dataclass(frozen=True)
class InformedPrior:
    """The Gaussian N(mean, diag(std^2)) from which generation starts.

    The rest of the method knows only the methods below, nothing of what is inside.

    Attributes:
        mean: (batch, channel, ...), in the units of the data.
        std: the same shape, positive.
        blend: how warmth changes std.
    """

    mean: Tensor
    std: Tensor
    blend: Blend = warmth_blending

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
        """The prior at some warmth. The mean stays, also at w = 0, which is mean-only diffusion and not the standard one.

        Args:
            warmth: w in [0, 1], of shape (batch,) or (1,); by Eq. 4, 1 keeps the prior and 0 gives unit std.
        """
        return replace(self, std=self.blend(self.std, beside(self.std, warmth)))

    def marginal_std(self) -> Tensor:
        """The standard deviation of each number by itself, of the shape of the mean."""
        return self.std

    def features(self) -> Tensor:
        """What the generator is told of the prior: mean and logarithm of std, (batch, 2 channel, ...)."""
        return torch.cat([self.mean, self.std.log()], dim=1)


def beside(x: Tensor, warmth: Tensor) -> Tensor:
    """Warmth (batch,) in a shape that broadcasts against x (batch, ...)."""
    return warmth.reshape(-1, *(1,) * (x.dim() - 1))


Moments = Callable[[Tensor], tuple[Tensor, ...]]
"""h_phi: from a context (batch, channel, ...) to mean and std of what follows it, and the factors of a correlated prior if it has them."""

Start = Callable[..., InformedPrior]
"""From predicted moments to the prior from which generation starts; those of :mod:`wsdcast.warmstart.ablations` beside the method's own."""

PriorOf = Callable[[Tensor], InformedPrior]
"""From a context (batch, channel, ...) to the prior of what follows it."""


def warm_start(moments: Moments, start: Start = InformedPrior) -> PriorOf:
    """The prior from any model ``moments(context) -> (mean, std)``, here without gradients, as in section 2.4."""

    def prior_of(context: Tensor) -> InformedPrior:
        with torch.no_grad():
            return start(*moments(context))

    return prior_of
