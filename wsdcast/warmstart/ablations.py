"""The priors that the warm start is compared with. Each leaves out, or replaces, one part of the method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wsdcast.warmstart.prior import InformedPrior, Moments


def plain_blending(std: Tensor, w: Tensor) -> Tensor:
    """Return w std + (1 - w): Eq. 4 without its maximum."""
    return w * std + (1 - w)


def no_blending(std: Tensor, w: Tensor) -> Tensor:
    """Return std whatever the warmth: no warmth blending (section 5.2 and Fig. 5 of the paper)."""
    return std


@dataclass(frozen=True)
class PriorWithFeatures(InformedPrior):
    """A prior whose generator reads given features instead of the mean and standard deviation of the prior itself.

    Attributes:
        given_features: the features, (batch, channels, ...). Warmth does not change them.
    """

    given_features: Tensor | None = None

    def features(self) -> Tensor:
        """Return the given features."""
        assert self.given_features is not None
        return self.given_features


def mean_only(mean: Tensor, std: Tensor) -> InformedPrior:
    """Return N(mean, 1), which makes the method residual diffusion (section 5.2 and Fig. 5)."""
    return InformedPrior(mean, torch.ones_like(std))


def features_only(mean: Tensor, std: Tensor) -> InformedPrior:
    """Return N(0, 1) with the predicted moments as features of the generator (section 5.2 and Fig. 5).

    This is the control experiment: it separates what the moments are worth as inputs from what they are worth as a warm start.
    """
    return PriorWithFeatures(torch.zeros_like(mean), torch.ones_like(std), given_features=InformedPrior(mean, std).features())


unblended = partial(InformedPrior, blend=no_blending)
plain_blend = partial(InformedPrior, blend=plain_blending)


def standard_moments(channels: int) -> Moments:
    """Return a moments model that predicts mean 0 and std 1 for every context: standard flow matching (section 2.5).

    Blending does not change this prior.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        mean = context.new_zeros(context.shape[0], channels, *context.shape[2:])
        return mean, torch.ones_like(mean)

    return moments


def fixed_moments(mean: Tensor, std: Tensor) -> Moments:
    """Return a moments model that predicts the same moments for every context (appendix C).

    With the mean and standard deviation of the data at each point it is the prior of PriorGrad (Lee et al. 2022).

    Args:
        mean, std: (channel, ...), on the device of the contexts.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(value.expand(context.shape[0], *value.shape) for value in (mean, std))  # type: ignore[return-value]

    return moments
