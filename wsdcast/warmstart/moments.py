"""The warm-start model h_phi, which predicts the mean and standard deviation of what follows a context, and its loss (Eq. 5).

h_phi is trained as a Gaussian regression (section 2.4), by the negative log-likelihood

    L_phi = -log N(target; mean, std^2)               Eq. 5
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import Moments

MINIMUM_STD = 0.01
"""The lower bound of the predicted standard deviation (appendix B), in the units of the normalised data that the networks see."""

MAXIMUM_STD = 1.0
"""The upper bound, in the same units, in which the standard deviation of the data is 1 or less. The paper has no upper bound, but a
prediction that uses the context cannot be less certain than one that does not. Without the bound, an unusual state in a rollout raises the
predicted standard deviation, and the next state is then even more unusual (docs/results/gfs.md)."""


class MomentsModel(nn.Module):
    """h_phi: ``context -> (mean, std)``, or ``(mean, std, factors)`` if it also predicts correlations.

    The network predicts the difference of the mean from the first ``channels`` channels of the context. A weather context starts with
    the current state, so an untrained network, whose output is zero, predicts persistence.

    Args:
        network: maps (batch, context channels, ...) to (batch, (2 + rank) channels, ...).
        channels: channels of the target.
        rank: the number of predicted patterns of a :class:`~wsdcast.warmstart.correlated.CorrelatedPrior`; 0 for a diagonal prior.
        maximum_std: the upper bound of the predicted standard deviation; infinity for none, as in the paper.

    Attributes:
        calibration: a factor of std for each channel, (channels,), 1 unless cross-fitting has set it. It scales V V^T as well.
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
        """Return mean and standard deviation, each (batch, channels, ...), and factors, (batch, rank, channels, ...), if rank > 0."""
        # The result has the precision of the context even if the network computes in bfloat16.
        mean, raw_std, *raw_factors = self.network(context).to(context.dtype).split(self.channels, dim=1)
        mean = mean + context[:, : self.channels]
        calibration = self.calibration.reshape(-1, *(1,) * (mean.dim() - 2))
        # With the shift training starts from a std of 0.2 instead of 0.7, which is nearer to the uncertainty after a step of 6 h.
        std = F.softplus(raw_std - 1.5).clamp(MINIMUM_STD, self.maximum_std) * calibration
        if not self.rank:
            return mean, std
        # V V^T has the eigenvalue |v|^2 along a pattern v. This scale makes |v| about 1 on every grid.
        return mean, std, torch.stack(raw_factors, dim=1) * (calibration / mean[0].numel()).sqrt()


def negative_log_likelihood(moments: Moments, context: Tensor, target: Tensor) -> Tensor:
    """Return the loss of Eq. 5 per number predicted, in nats, averaged over the batch."""
    log_prob = informed_prior(*moments(context)).log_prob(target)
    return -log_prob.mean() / target[0].numel()
