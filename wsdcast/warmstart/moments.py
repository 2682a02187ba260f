"""The moments model h_phi, which predicts mean and standard deviation of the target of a context, and its loss (Eq. 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import Moments

MINIMUM_STD = 0.01
"""Lower bound of the predicted standard deviation (appendix B), in units of the data's standard deviation."""

MAXIMUM_STD = 1.0
"""Upper bound, which is not in the paper: a forecast is never less certain than the climatology. Without this bound an unusual state in a
rollout gets a large standard deviation, which makes the next state more unusual (docs/results/gfs.md)."""


class MomentsModel(nn.Module):
    """A model ``context -> (mean, std)``, or ``(mean, std, factors)`` if it also predicts correlations.

    The mean is the first ``channels`` channels of the context plus the output of the network. A weather context is (state now, state
    before), so an untrained network, whose output is zero, predicts persistence of the state now.

    Args:
        network: maps (batch, context channels, ...) to (batch, (2 + rank) channels, ...).
        channels: channels of the target.
        rank: number of predicted patterns of correlation (:class:`CorrelatedPrior`).
        maximum_std: upper bound of the predicted standard deviation; infinite: none, as in the paper.
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
        # The result has the precision of the context, even if the network computes in bfloat16.
        mean, raw_std, *raw_factors = self.network(context).to(context.dtype).split(self.channels, dim=1)
        mean = mean + context[:, : self.channels]
        calibration = self.calibration.reshape(-1, *(1,) * (mean.dim() - 2))
        # The shift makes training start from a std of 0.2 instead of 0.7, which is closer to the uncertainty of a step of 6 h.
        std = F.softplus(raw_std - 1.5).clamp(MINIMUM_STD, self.maximum_std) * calibration
        if not self.rank:
            return mean, std
        # The scale makes the length of a pattern about 1 on any grid. The square of the length is the standard deviation along it.
        return mean, std, torch.stack(raw_factors, dim=1) * (calibration / mean[0].numel()).sqrt()


def negative_log_likelihood(moments: Moments, context: Tensor, target: Tensor) -> Tensor:
    """Eq. 5 per predicted value, in nats, mean over the batch."""
    log_prob = informed_prior(*moments(context)).log_prob(target)
    return -log_prob.mean() / target[0].numel()
