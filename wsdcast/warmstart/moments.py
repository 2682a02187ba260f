"""The warm-start model h_phi: mean and standard deviation of what follows a context, and its loss (Eq. 5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from wsdcast.warmstart.prior import InformedPrior

MINIMUM_STD = 0.01
"""Below it the predicted standard deviation is clipped (appendix B), in units of the data's own."""


class MomentsModel(nn.Module):
    """A network turned into ``context -> (mean, std)``.

    With ``residual`` the mean is the first ``channels`` channels of the context plus what the network adds. A weather context is
    (state now, state before), so an untrained network, whose output is zero, predicts persistence of the state now.

    Args:
        network: maps (batch, context channels, ...) to (batch, 2 channels, ...).
        channels: channels of the target.
        residual: whether the mean is added to the context's first channels.
    """

    def __init__(self, network: nn.Module, channels: int, residual: bool = True) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.residual = residual

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (batch, channels, ...)."""
        mean, raw_std = self.network(context).chunk(2, dim=1)
        if self.residual:
            mean = mean + context[:, : self.channels]
        # Shifted so that training starts from a std of 0.2, not 0.7: nearer to what a step of 6 h leaves uncertain.
        return mean, F.softplus(raw_std - 1.5).clamp(min=MINIMUM_STD)


def negative_log_likelihood(moments: nn.Module, context: Tensor, target: Tensor) -> Tensor:
    """Eq. 5 per number predicted, in nats, averaged over the batch."""
    log_prob = InformedPrior(*moments(context)).log_prob(target)
    return -log_prob.mean() / target[0].numel()
