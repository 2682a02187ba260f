"""The informed prior of *Warm Starts Accelerate Conditional Diffusion* (section 2, Eqs. 2 to 4).

Standard diffusion starts from N(0, 1). A warm start predicts a mean and a standard deviation from the context C and starts from
N(mean, std^2), which lies closer to the data. The conditional normalisation trick (section 2.2) keeps the generative model unchanged:

    x' = (x - mean) / std             Eq. 2, data to normalised space
    x  = x' std + mean                Eq. 3, normalised space to data

In normalised space the prior is N(0, 1) again, so any flow or diffusion model can be trained and sampled there.

Warmth blending (section 2.3) replaces the standard deviation by one that depends on the warmth w in [0, 1]:

    std_norm = w max(std, 1 - w) + (1 - w)             Eq. 4

At w = 1 the prior is the predicted one. At w = 0 its standard deviation is 1.

The warm start is compared with other priors. Each leaves out, or replaces, one part of the method. :data:`PRIOR_MAKERS` says what each
makes of moments. :func:`standard_moments` and :func:`fixed_moments` give moments that no network predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from wsdcast.runs.names import WITHOUT_NETWORK

Blend = Callable[[Tensor, Tensor], Tensor]
"""Maps std (batch, channel, ...) and the warmth, which broadcasts against it, to the blended std, of the same shape as std."""


def warmth_blending(std: Tensor, w: Tensor) -> Tensor:
    """Return the blended standard deviation, w max(std, 1 - w) + (1 - w) (Eq. 4)."""
    return w * torch.maximum(std, 1 - w) + (1 - w)


def plain_blending(std: Tensor, w: Tensor) -> Tensor:
    """Return w std + (1 - w): Eq. 4 without its maximum."""
    return w * std + (1 - w)


def no_blending(std: Tensor, w: Tensor) -> Tensor:
    """Return std whatever the warmth: no warmth blending (section 5.2 and Fig. 5 of the paper)."""
    return std


@dataclass(frozen=True)
class InformedPrior:
    """The Gaussian N(mean, diag(std^2)) from which generation starts.

    Attributes:
        mean: (batch, channel, ...), in the units of the data.
        std: the standard deviation, of the same shape and in the same units; positive.
        blend: the function that blends std with the warmth.
        given_features: what the generator reads instead of mean and std, (batch, channels, ...). Warmth does not change it.
    """

    mean: Tensor
    std: Tensor
    blend: Blend = warmth_blending
    given_features: Tensor | None = None

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std, the data in normalised space (Eq. 2).

        Raises:
            ValueError: if x has not the shape of the mean.
        """
        return (of_shape("data", x, self.mean) - self.mean) / self.std

    def denormalise(self, x: Tensor) -> Tensor:
        """Return x std + mean, a point of normalised space in the units of the data (Eq. 3).

        Raises:
            ValueError: if x has not the shape of the mean.
        """
        return of_shape("sample", x, self.mean) * self.std + self.mean

    def sample(self, noise: Tensor) -> Tensor:
        """Return the draw from the prior that belongs to standard normal ``noise``."""
        return self.denormalise(noise)

    def log_prob(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the natural logarithm of the density of each sample, (batch,).

        Args:
            x: the samples, (batch, channel, ...).
            weights: factors of the channels' logarithms, (channel, 1, ...); default: 1.

        Raises:
            ValueError: if the samples or the weights have a wrong shape.
        """
        density = -0.5 * self.normalise(x) ** 2 - self.std.log() - 0.5 * math.log(2 * math.pi)
        if weights is not None:
            density = density * weights_of_channels(weights, density)
        return density.flatten(1).sum(dim=1)

    def blended(self, warmth: Tensor) -> InformedPrior:
        """Return the prior at a warmth: std is blended, the mean stays.

        Because the mean is kept, w = 0 is mean-only (residual) diffusion and not standard diffusion.

        Args:
            warmth: w in [0, 1], of shape (batch,) or (1,). By Eq. 4, w = 1 keeps std and w = 0 makes it 1.
        """
        return replace(self, std=self.blend(self.std, per_sample(warmth, self.std)))

    def features(self) -> Tensor:
        """Return the inputs that describe the prior to the generator: those given, else mean and log(std), (batch, 2 channel, ...)."""
        return torch.cat([self.mean, self.std.log()], dim=1) if self.given_features is None else self.given_features

    def of(self, samples: slice | Tensor) -> Self:
        """Return the prior of samples of the batch: a slice, or their indices, which may repeat, (count,)."""
        given = None if self.given_features is None else self.given_features[samples]
        return replace(self, mean=self.mean[samples], std=self.std[samples], given_features=given)


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Return one value per sample, (batch,) or (1,), in a shape that broadcasts against x (batch, ...)."""
    return values.reshape(-1, *(1,) * (x.dim() - 1))


def of_shape(what: str, x: Tensor, like: Tensor) -> Tensor:
    """Return x, named ``what``, if it has the shape of ``like``: torch would broadcast many other shapes, without a word.

    Raises:
        ValueError: if it has another shape.
    """
    if x.shape != like.shape:
        raise ValueError(f"{what}: shape {tuple(x.shape)} instead of {tuple(like.shape)}")
    return x


def weights_of_channels(weights: Tensor, x: Tensor) -> Tensor:
    """Return the weights if they are (channel, 1, ...), with a 1 for each dimension of space of x (batch, channel, ...).

    Raises:
        ValueError: if they have another shape. With a dimension more they would weigh the samples of a batch of as many.
    """
    return of_shape("weights of the channels", weights, x[0].flatten(1)[:, 0].reshape(-1, *(1,) * (x.dim() - 2)))


Moments = Callable[[Tensor], tuple[Tensor, Tensor]]
"""h_phi: from a context (batch, channel, ...) to the mean and std of what follows it."""

MakePrior = Callable[..., InformedPrior]
"""Maps predicted moments, mean and std, to a prior. The class :class:`InformedPrior` is one: it makes the warm start."""

PriorOf = Callable[[Tensor], InformedPrior]
"""Maps a context (batch, channel, ...) to the prior of what follows it."""


def frozen_prior(moments: Moments, make_prior: MakePrior = InformedPrior) -> PriorOf:
    """Return a function from a context to its prior, for a frozen moments model (section 2.4): no gradients are recorded."""

    def prior_of(context: Tensor) -> InformedPrior:
        with torch.no_grad():
            return make_prior(*moments(context))

    return prior_of


def mean_only(mean: Tensor, std: Tensor) -> InformedPrior:
    """Return N(mean, 1), which makes the method residual diffusion (section 5.2 and Fig. 5)."""
    return InformedPrior(mean, torch.ones_like(std))


def features_only(mean: Tensor, std: Tensor) -> InformedPrior:
    """Return N(0, 1) with the predicted moments as features of the generator (section 5.2 and Fig. 5).

    This is the control experiment: it separates what the moments are worth as inputs from what they are worth as a warm start.
    """
    return InformedPrior(torch.zeros_like(mean), torch.ones_like(std), given_features=InformedPrior(mean, std).features())


PRIOR_MAKERS: dict[str, MakePrior] = {
    **dict.fromkeys(("warm", *WITHOUT_NETWORK), InformedPrior),
    "features-only": features_only,
    "mean-only": mean_only,
    "unblended": partial(InformedPrior, blend=no_blending),
    "plain-blend": partial(InformedPrior, blend=plain_blending),
}
"""What each prior makes of its moments, by the names that recipes use."""


def standard_moments(channels: int) -> Moments:
    """Return a moments model that predicts mean 0 and std 1 for every context: standard flow matching (section 2.5).

    Blending does not change this prior.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        mean = context.new_zeros(context.shape[0], channels, *context.shape[2:])
        return mean, torch.ones_like(mean)

    return moments


def persistence_moments(std: Tensor) -> Moments:
    """Return a moments model that predicts the state now, with the same std for every context.

    A flow from this prior predicts the change, in units of its usual size, as GenCast does (Price et al. 2025).

    Args:
        std: (channel, 1, ...), on the device of the contexts. A context begins with as many channels of the state now.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        mean = context[:, : len(std)]
        return mean, std.expand_as(mean)

    return moments


def fixed_moments(mean: Tensor, std: Tensor) -> Moments:
    """Return a moments model that predicts the same moments for every context (appendix C of the paper).

    With the mean and standard deviation of the data at each point it is the prior of PriorGrad (Lee et al. 2022).

    Args:
        mean, std: (channel, ...), on the device of the contexts.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(value.expand(context.shape[0], *value.shape) for value in (mean, std))  # type: ignore[return-value]

    return moments
