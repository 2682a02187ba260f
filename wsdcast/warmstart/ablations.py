"""The priors that the warm start is compared with. Each leaves out a part of the method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import InformedPrior, Moments


def plain_blending(std: Tensor, w: Tensor) -> Tensor:
    """Eq. 4 without its maximum, w std + (1 - w), an ablation."""
    return w * std + (1 - w)


def no_blending(std: Tensor, w: Tensor) -> Tensor:
    """The same std at every warmth, an ablation (Fig. 5 of the paper)."""
    return std


@dataclass(frozen=True)
class PriorWithFeatures(InformedPrior):
    """A prior whose features are given, instead of its own moments.

    Attributes:
        given: the features, (batch, feature channel, ...). Warmth does not change them.
    """

    given: Tensor | None = None

    def features(self) -> Tensor:
        """The given features."""
        assert self.given is not None
        return self.given


def mean_only(mean: Tensor, std: Tensor, *factors: Tensor) -> InformedPrior:
    """N(mean, 1): residual diffusion, an ablation (Fig. 5)."""
    return InformedPrior(mean, torch.ones_like(std))


def features_only(mean: Tensor, std: Tensor, *factors: Tensor) -> InformedPrior:
    """N(0, 1) with the moments as inputs of the generator. This control separates their use as features from their use as a start."""
    return PriorWithFeatures(torch.zeros_like(mean), torch.ones_like(std), given=informed_prior(mean, std, *factors).features())


unblended = partial(informed_prior, blend=no_blending)
plain_blend = partial(informed_prior, blend=plain_blending)


def standard_moments(channels: int) -> Moments:
    """Mean 0 and std 1 for every context: standard flow matching (section 2.5). Blending does not change it."""

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        mean = context.new_zeros(context.shape[0], channels, *context.shape[2:])
        return mean, torch.ones_like(mean)

    return moments


def fixed_moments(mean: Tensor, std: Tensor) -> Moments:
    """The same mean and std for every context (appendix C; PriorGrad, Lee et al. 2022).

    Args:
        mean, std: of the data at each point, (channel, ...), on the device of the contexts.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(value.expand(context.shape[0], *value.shape) for value in (mean, std))  # type: ignore[return-value]

    return moments
