"""The informed prior of *Warm Starts Accelerate Conditional Diffusion*, section 2, Eqs. 2 to 4."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Blend = Callable[[Tensor, Tensor], Tensor]
"""``blend(std, w)`` returns the std that normalises, of the shape of std (batch, channel, ...). The warmth w broadcasts against std."""


def warmth_blending(std: Tensor, w: Tensor) -> Tensor:
    """Eq. 4: w max(std, 1 - w) + (1 - w)."""
    return w * torch.maximum(std, 1 - w) + (1 - w)


@dataclass(frozen=True)
class InformedPrior:
    """The Gaussian N(mean, diag(std^2)) from which generation starts.

    The other modules use its methods only, so another covariance needs no change there.

    Attributes:
        mean: (batch, channel, ...), in the units of the data.
        std: the same shape, positive.
        blend: how warmth changes std.
    """

    mean: Tensor
    std: Tensor
    blend: Blend = warmth_blending

    def normalise(self, x: Tensor) -> Tensor:
        """Eq. 2: (x - mean) / std, from data to normalised space."""
        return (x - self.mean) / self.std

    def denormalise(self, x: Tensor) -> Tensor:
        """Eq. 3: x std + mean, from normalised space to data."""
        return x * self.std + self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Turn standard normal noise into a draw from the prior, of the same shape."""
        return self.denormalise(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Natural logarithm of the density of each sample, (batch,)."""
        density = -0.5 * self.normalise(x) ** 2 - self.std.log() - 0.5 * math.log(2 * math.pi)
        return density.flatten(1).sum(dim=1)

    def blended(self, warmth: Tensor) -> InformedPrior:
        """The prior at another warmth. Only std changes: w = 0 gives N(mean, 1), which is mean-only diffusion, not standard diffusion.

        Args:
            warmth: w in [0, 1], (batch,) or (1,). By Eq. 4, w = 1 keeps std and w = 0 makes it 1.
        """
        return replace(self, std=self.blend(self.std, per_sample(warmth, self.std)))

    def marginal_std(self) -> Tensor:
        """The standard deviation of each variable at each point, of the shape of the mean."""
        return self.std

    def features(self) -> Tensor:
        """The inputs by which the generator knows the prior: mean and logarithm of std, (batch, 2 channel, ...)."""
        return torch.cat([self.mean, self.std.log()], dim=1)


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """One value per sample, (batch,) or (1,), reshaped to broadcast against x (batch, ...)."""
    return values.reshape(-1, *(1,) * (x.dim() - 1))


Moments = Callable[[Tensor], tuple[Tensor, ...]]
"""h_phi: from a context (batch, channel, ...) to the mean and std of the target. A correlated prior also gets factors."""

MakePrior = Callable[..., InformedPrior]
"""From predicted moments to the prior: :class:`InformedPrior`, or a function of :mod:`wsdcast.warmstart.ablations`."""

PriorOf = Callable[[Tensor], InformedPrior]
"""From a context (batch, channel, ...) to the prior of its target."""


def warm_start(moments: Moments, make_prior: MakePrior = InformedPrior) -> PriorOf:
    """The function from a context to its prior, for any model ``moments(context) -> (mean, std)``. It takes no gradients (section 2.4)."""

    def prior_of(context: Tensor) -> InformedPrior:
        with torch.no_grad():
            return make_prior(*moments(context))

    return prior_of
