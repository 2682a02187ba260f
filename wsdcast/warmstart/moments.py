"""The warm-start model h_phi: mean and standard deviation of what follows a context, and its loss (Eq. 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import Moments

MINIMUM_STD = 0.01
"""Below it the predicted standard deviation is clipped (appendix B), in units of the data's own."""

MAXIMUM_STD = 1.0
"""Above it too, which is not in the paper: nothing is less certain than if nothing were known. Without this bound a strange state in a
rollout makes the standard deviation large, which makes the next state stranger (docs/results/gfs.md)."""


class MomentsModel(nn.Module):
    """A network turned into ``context -> (mean, std)``, or ``(mean, std, factors)`` if it is to predict correlations.

    The mean is the first ``channels`` channels of the context plus what the network adds. A weather context is
    (state now, state before), so an untrained network, whose output is zero, predicts persistence of the state now.

    Args:
        network: maps (batch, context channels, ...) to (batch, (2 + rank) channels, ...).
        channels: channels of the target.
        rank: how many patterns of correlation are predicted beside the moments (:class:`CorrelatedPrior`).
        maximum_std: above it the predicted standard deviation is clipped; infinite: nowhere, as in the paper.
    """

    def __init__(self, network: nn.Module, channels: int, rank: int = 0, maximum_std: float = MAXIMUM_STD) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.rank = rank
        self.maximum_std = maximum_std
        self.calibration: Tensor
        self.register_buffer("calibration", torch.ones(channels))

    def forward(self, context: Tensor) -> tuple[Tensor, ...]:
        """Mean and standard deviation, each (batch, channels, ...); with a rank also factors, (batch, rank, channels, ...)."""
        # In the precision of the context, also where the network computes in bfloat16.
        mean, raw_std, *raw_factors = self.network(context).to(context.dtype).split(self.channels, dim=1)
        mean = mean + context[:, : self.channels]
        calibration = self.calibration.reshape(-1, *(1,) * (mean.dim() - 2))
        # Shifted so that training starts from a std of 0.2, not 0.7: nearer to what a step of 6 h leaves uncertain.
        std = F.softplus(raw_std - 1.5).clamp(MINIMUM_STD, self.maximum_std) * calibration
        if not self.rank:
            return mean, std
        # A pattern's length, whose square is the standard deviation along it, is then about one whatever the grid.
        return mean, std, torch.stack(raw_factors, dim=1) * (calibration / mean[0].numel()).sqrt()


def negative_log_likelihood(moments: Moments, context: Tensor, target: Tensor) -> Tensor:
    """Eq. 5 per number predicted, in nats, averaged over the batch."""
    log_prob = informed_prior(*moments(context)).log_prob(target)
    return -log_prob.mean() / target[0].numel()
