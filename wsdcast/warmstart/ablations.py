"""The priors that the warm start is compared with: what is left of the method when a part of it is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import InformedPrior, Moments


def plain_blending(std: Tensor, w: Tensor) -> Tensor:
    """Eq. 4 without its maximum, an ablation."""
    return w * std + (1 - w)


def no_blending(std: Tensor, w: Tensor) -> Tensor:
    """The prior as it is whatever the warmth, an ablation (Fig. 5 of the paper)."""
    return std


@dataclass(frozen=True)
class ToldPrior(InformedPrior):
    """A prior whose generator is told of other moments than those it starts from."""

    told: Tensor | None = None

    def features(self) -> Tensor:
        """The other moments, as they are at full warmth."""
        assert self.told is not None
        return self.told


def mean_only(mean: Tensor, std: Tensor, *factors: Tensor) -> InformedPrior:
    """N(mean, 1): residual diffusion, an ablation (Fig. 5)."""
    return InformedPrior(mean, torch.ones_like(std))


def features_only(mean: Tensor, std: Tensor, *factors: Tensor) -> InformedPrior:
    """N(0, 1) with the moments as inputs of the generator: the control that tells their use as features from their use as a start."""
    return ToldPrior(torch.zeros_like(mean), torch.ones_like(std), told=informed_prior(mean, std, *factors).features())


unblended = partial(informed_prior, blend=no_blending)
plain_blend = partial(informed_prior, blend=plain_blending)


def standard_moments(channels: int) -> Moments:
    """(0, 1) whatever the context: standard flow matching as the special case of section 2.5. Blending leaves it as it is."""

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        mean = context.new_zeros(context.shape[0], channels, *context.shape[2:])
        return mean, torch.ones_like(mean)

    return moments


def fixed_moments(mean: Tensor, std: Tensor) -> Moments:
    """Those of the data at each point, (channel, ...), whatever the context: appendix C, and PriorGrad's prior (Lee et al. 2022).

    Both are on the device of the contexts.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(value.expand(context.shape[0], *value.shape) for value in (mean, std))  # type: ignore[return-value]

    return moments
