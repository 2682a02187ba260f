"""Flow matching in the normalised space of an informed prior: Algorithms 1 and 2 of the paper.

The flow time t runs from 0 (noise) to 1 (data). Paths are straight (Lipman et al. 2023): x_t = (1 - t) noise + t data, with velocity
v = data - noise. The generator p'_theta is any network ``generator(x, t, warmth)``. Its input x, (batch, channels of state, context and
features, ...), is the state in normalised space, the context and the features of the prior, concatenated. Its output is v.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import InformedPrior, MakePrior, Moments, PriorOf, per_sample
from wsdcast.warmstart.solvers import Solver, Velocity
from wsdcast.warmstart.times import DrawTimes, draw_logit_normal


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The state at time t (batch,) of the straight path from noise to data, and its velocity; both of the shape of the data."""
    t = per_sample(t, data)
    return (1 - t) * noise + t * data, data - noise


def generator_input(x: Tensor, context: Tensor, prior: InformedPrior) -> Tensor:
    """Concatenate the state in normalised space, the context and the features of the (blended) prior along the channels."""
    return torch.cat([x, context, prior.features()], dim=1)


class Draws(NamedTuple):
    """The random numbers of Algorithm 1: warmth and flow time, (batch,), and noise, (batch, channel, ...)."""

    warmth: Tensor
    t: Tensor
    noise: Tensor

    def of(self, samples: slice) -> Draws:
        """The draws of a part of the batch."""
        return Draws(*(values[samples] for values in self))


def draw(shape: tuple[int, ...], random: torch.Generator, draw_times: DrawTimes = draw_logit_normal) -> Draws:
    """Draw warmth, time and noise for targets of ``shape`` (batch, channel, ...), on the device of ``random``.

    The paper does not say how times are drawn. The default is logit-normal, because the velocity is hardest to predict halfway. With
    uniform times a generator of the same training cost was under-dispersed (docs/method.md).
    """
    warmth = torch.rand(shape[0], generator=random, device=random.device)
    t = draw_times(shape[0], random)
    return Draws(warmth, t, torch.randn(shape, generator=random, device=random.device))


def training_loss(generator: nn.Module, prior: InformedPrior, context: Tensor, target: Tensor, draws: Draws) -> Tensor:
    """Algorithm 1: the mean squared error of the velocity at random warmth, time and noise.

    Args:
        generator: p'_theta.
        prior: the prior of each context, from the frozen h_phi, or the standard prior.
        context: C, (batch, ...).
        target: the next state, X_0 of the paper, (batch, channel, ...).
        draws: from :func:`draw`.
    """
    prior = prior.blended(draws.warmth)
    x, velocity = interpolate(draws.noise, prior.normalise(target), draws.t)
    return nn.functional.mse_loss(generator(generator_input(x, context, prior), draws.t, draws.warmth), velocity)


def joint_loss(
    generator: nn.Module,
    moments: Moments,
    make_prior: MakePrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    end_to_end: bool = False,
    moments_weight: float = 1.0,
) -> Tensor:
    """The loss of both networks trained at the same time: Algorithm 1 plus ``moments_weight`` times Eq. 5.

    The generator's loss never sends a gradient to the std. If it did, both networks would agree on a std that makes the velocity trivial
    instead of true (appendix E, ``test_networks_collude_unless_the_std_is_detached``). It sends one to the mean if ``end_to_end``.

    Args:
        generator, context, target, draws: as in :func:`training_loss`.
        moments: h_phi, in training.
        make_prior: makes the prior from its moments.
        end_to_end: whether the generator's loss trains the mean too.
        moments_weight: factor of the moments' own loss.
    """
    mean, *std_and_factors = moments(context)
    likelihood = informed_prior(mean, *std_and_factors).log_prob(target).mean() / target[0].numel()
    prior = make_prior(mean if end_to_end else mean.detach(), *(values.detach() for values in std_and_factors))
    return training_loss(generator, prior, context, target, draws) - moments_weight * likelihood


def sample(
    generator: nn.Module, prior_of: PriorOf, context: Tensor, noise: Tensor, times: Tensor, solve: Solver, warmth: float = 1.0
) -> Tensor:
    """Algorithm 2: draw one sample for each context, from standard normal noise.

    Args:
        generator: p'_theta.
        prior_of: from a context to its prior; called once.
        context: C, (batch, ...).
        noise: X'_T of the paper, (batch, channel, ...).
        times: flow times from 0 to 1 between which the solver steps, (steps + 1,).
        solve: a solver of :mod:`wsdcast.warmstart.solvers`.
        warmth: w; the paper uses 1 throughout.
    """
    # The batch shares one value of warmth. It is embedded once, and a sample's bits do not depend on the other samples of the batch.
    shared_warmth = noise.new_full((1,), warmth)
    prior = prior_of(context).blended(shared_warmth)
    return prior.denormalise(solve(velocity_of(generator, prior, context, shared_warmth), noise, times))


def velocity_of(generator: nn.Module, prior: InformedPrior, context: Tensor, warmth: Tensor) -> Velocity:
    """The generator as the velocity of the flow, for fixed contexts and their blended prior; ``warmth`` is (1,).

    The velocity has the precision of the state, even if the network computes in bfloat16, because solvers subtract velocities.
    """
    return lambda x, t: generator(generator_input(x, context, prior), t.reshape(1), warmth).to(x.dtype)
