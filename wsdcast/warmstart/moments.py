"""The warm-start model h_phi, which predicts the mean and standard deviation of what follows a context, and its loss (Eq. 5).

h_phi is trained as a Gaussian regression (section 2.4), by the negative log-likelihood

    L_phi = -log N(target; mean, std^2)               Eq. 5

The paper predicts the standard deviation at each point. Other methods start from other noise levels; :data:`Std` lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsdcast.warmstart.prior import InformedPrior, Moments

MINIMUM_STD = 0.01
"""The lower bound of the predicted standard deviation (appendix B), in the units of the normalised data that the networks see. The paper
has it for 10 m wind; a channel that hardly changes from one state to the next needs a lower one (:class:`MomentsModel`)."""

MAXIMUM_STD = 1.0
"""The upper bound, in the same units: the standard deviation of all values of a channel is 1, or less for images. The paper has no upper
bound, but a prediction from the context should not be less certain than those values. Without the bound, an unusual state in a rollout
raises the predicted standard deviation, and the next state is then even more unusual (docs/results/gfs.md)."""

Std = Literal["point", "channel", "change"] | float
"""Where the standard deviation of the moments comes from.

- ``point``: the network predicts it at each point, as in the paper.
- ``channel``: one learned number for each channel, the same at all points.
- ``change``: floor + slope |mean - state now| at each point, with two learned positive numbers for each channel. The noise follows the
  change that the mean makes, as in uncertainty-guided noise (UPSR).
- a number: the same everywhere, not learned, as in RDDM, Resfusion and ResShift.
"""


def _positive(raw: Tensor) -> Tensor:
    """Return a positive number for each raw one. The shift makes an untrained std 0.2 instead of 0.7, nearer to the error after 6 h."""
    return F.softplus(raw - 1.5)


class _Bounded(torch.autograd.Function):
    """``clamp``, whose gradient is zero only if it leads further beyond the bound.

    The gradient of torch's is zero wherever a value is beyond a bound. A std that passed the upper bound while the mean was still wrong
    would stay there when the mean is right.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, lowest: Tensor, highest: float) -> Tensor:
        return values.clamp(min=lowest).clamp(max=highest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        """Keep what the gradient needs."""
        values, lowest, ctx.highest = inputs
        ctx.save_for_backward(values, lowest)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, lowest = ctx.saved_tensors
        # An optimiser goes against the gradient.
        leads_out = ((values > ctx.highest) & (gradient < 0)) | ((values < lowest) & (gradient > 0))
        return gradient.masked_fill(leads_out, 0.0), None, None


class MomentsModel(nn.Module):
    """h_phi: ``context -> (mean, std)``.

    The network predicts the difference of the mean from the first ``channels`` channels of the context. A weather context starts with
    the current state, so an untrained network, whose output is zero, predicts persistence.

    Args:
        network: maps (batch, context channels, ...) to the mean and, where ``std`` is ``point``, the raw std, (batch, 2 channels, ...);
            otherwise to the mean alone, (batch, channels, ...).
        channels: channels of the target.
        maximum_std: the upper bound of the standard deviation; infinity for none, as in the paper.
        std: where the standard deviation comes from. Every choice keeps the bounds ``minimum_std`` and ``maximum_std``.
        minimum_std: the lower bound of each channel, or one for all.

    Attributes:
        calibration: a factor of std for each channel, (channels,), 1 unless cross-fitting has set it.
        levels: the raw learned numbers of the std ``channel``, (1, channels), or of ``change``, (2, channels): floors, then slopes.
            Other choices have no such parameter.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        maximum_std: float = MAXIMUM_STD,
        std: Std = "point",
        minimum_std: Sequence[float] | float = MINIMUM_STD,
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.maximum_std = maximum_std
        self.std = std
        if std in ("channel", "change"):
            self.levels = nn.Parameter(torch.zeros(1 if std == "channel" else 2, channels))
        self.calibration: Tensor
        self.register_buffer("calibration", torch.ones(channels))
        self.minimum_std: Tensor
        self.register_buffer("minimum_std", torch.as_tensor(minimum_std).expand(channels).clone(), persistent=False)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (batch, channels, ...).

        Raises:
            ValueError: if the network's output has a wrong shape.
        """
        # The result has the precision of the context even if the network computes in bfloat16.
        output = self.network(context).to(context.dtype)
        expected = len(context), (2 if self.std == "point" else 1) * self.channels, *context.shape[2:]
        if output.shape != expected:
            raise ValueError(f"output of the moments network: shape {tuple(output.shape)} instead of {expected}")
        change, *raw = output.split(self.channels, dim=1)
        mean = change + context[:, : self.channels]
        calibration, lowest = (value.to(mean).reshape(-1, *(1,) * (mean.dim() - 2)) for value in (self.calibration, self.minimum_std))
        std = _Bounded.apply(self._unbounded_std(change, *raw), lowest, self.maximum_std)
        # The factor was measured on bounded numbers, so it comes after the bounds. Its product is bounded again.
        std = (std * calibration).clamp(min=lowest).clamp(max=self.maximum_std)
        return mean, std

    def _unbounded_std(self, change: Tensor, *raw: Tensor) -> Tensor:
        """Return the standard deviation before its bounds, of the shape of ``change``, the difference of the mean from the state now."""
        if self.std == "point":
            return _positive(raw[0])
        if isinstance(self.std, float | int):
            return torch.full_like(change, self.std)
        levels = _positive(self.levels).to(change.dtype).reshape(-1, self.channels, *(1,) * (change.dim() - 2))
        if self.std == "channel":
            return levels[0].expand_as(change)
        # Detached: Eq. 5 would otherwise move the mean to make the std fit the error.
        return levels[0] + levels[1] * change.detach().abs()


def negative_log_likelihood(moments: Moments, context: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss of Eq. 5 per number predicted, in nats, averaged over the batch.

    Args:
        moments: h_phi.
        context, target: (batch, channel, ...).
        weights: of the channels, (channel, 1, ...), with a 1 for each dimension of space; default: all are 1.
    """
    return -InformedPrior(*moments(context)).log_prob(target, weights).mean() / target[0].numel()
