"""Flow matching in the normalised space of an informed prior: Algorithms 1 and 2.

Flow time t runs from 0 (noise) to 1 (data) on straight paths (Lipman et al. 2023): x_t = (1 - t) noise + t data, with velocity
v = data - noise. The generator p'_theta is any network ``generator(x, t, warmth)`` whose input x is the state in normalised space
with context and prior beside it, (batch, channels of state, context and features, ...), and whose output is v.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import InformedPrior, Moments, PriorOf, Start
from wsdcast.warmstart.solvers import Solver, Velocity
from wsdcast.warmstart.times import DrawTimes, draw_logit_normal


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Point at time t (batch,) of the straight path from noise to data, and the velocity there."""
    t = t.reshape(-1, *(1,) * (data.dim() - 1))
    return (1 - t) * noise + t * data, data - noise


def generator_input(x: Tensor, context: Tensor, prior: InformedPrior) -> Tensor:
    """The state in normalised space beside the context and the features of the (blended) prior."""
    return torch.cat([x, context, prior.features()], dim=1)


class Draws(NamedTuple):
    """What Algorithm 1 draws for each sample: warmth and flow time, (batch,), and noise, (batch, channel, ...)."""

    warmth: Tensor
    t: Tensor
    noise: Tensor

    def of(self, some: slice) -> Draws:
        """Those of some samples."""
        return Draws(*(drawn[some] for drawn in self))


def draw(shape: tuple[int, ...], random: torch.Generator, draw_times: DrawTimes = draw_logit_normal) -> Draws:
    """Draw warmth, time and noise for a batch of targets (batch, channel, ...), on the device of ``random``.

    The paper leaves open how times are drawn. By default they are logit-normal: the velocity is hardest to tell halfway, and with uniform
    times a generator of the same budget was under-dispersed (docs/method.md).
    """
    warmth = torch.rand(shape[0], generator=random, device=random.device)
    t = draw_times(shape[0], random)
    return Draws(warmth, t, torch.randn(shape, generator=random, device=random.device))


def training_loss(generator: nn.Module, prior: InformedPrior, context: Tensor, target: Tensor, draws: Draws) -> Tensor:
    """Algorithm 1: mean squared error of the velocity at random warmth, time and noise.

    Args:
        generator: p'_theta.
        prior: what the frozen h_phi makes of the context, or the standard prior.
        context: C, (batch, ...).
        target: X_0 of the paper, the truth that follows, (batch, channel, ...).
        draws: from :func:`draw`.
    """
    prior = prior.blended(draws.warmth)
    x, velocity = interpolate(draws.noise, prior.normalise(target), draws.t)
    return nn.functional.mse_loss(generator(generator_input(x, context, prior), draws.t, draws.warmth), velocity)


def joint_loss(
    generator: nn.Module,
    moments: Moments,
    start: Start,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    end_to_end: bool = False,
    moments_weight: float = 1.0,
) -> Tensor:
    """Both networks at once: Algorithm 1 with moments in training, plus their own loss, Eq. 5, times ``moments_weight``.

    The standard deviation never gets a gradient from the generator's loss, or the two networks would agree on one that makes the
    velocity trivial instead of true (appendix E, ``test_networks_collude_unless_the_std_is_detached``). The mean gets one ``end_to_end``.

    Args:
        generator, context, target, draws: as in :func:`training_loss`.
        moments: h_phi, in training.
        start: what is made of its moments.
        end_to_end: whether the generator's loss trains the mean too.
        moments_weight: of the moments' own loss.
    """
    mean, *rest = moments(context)
    likelihood = informed_prior(mean, *rest).log_prob(target).mean() / target[0].numel()
    prior = start(mean if end_to_end else mean.detach(), *(value.detach() for value in rest))
    return training_loss(generator, prior, context, target, draws) - moments_weight * likelihood


def sample(
    generator: nn.Module, prior_of: PriorOf, context: Tensor, noise: Tensor, times: Tensor, solve: Solver, warmth: float = 1.0
) -> Tensor:
    """Algorithm 2: one sample for each context from standard normal noise.

    Args:
        generator: p'_theta.
        prior_of: h_phi, or the standard prior; called once.
        context: C, (batch, ...).
        noise: X'_T of the paper, (batch, channel, ...).
        times: flow times from 0 to 1 between which the solver steps, (steps + 1,).
        solve: a solver of :mod:`wsdcast.warmstart.solvers`.
        warmth: w; the paper uses 1 throughout.
    """
    # One value for the whole batch: it is embedded once, and a sample's bits cannot depend on who shares its batch.
    shared_warmth = noise.new_full((1,), warmth)
    prior = prior_of(context).blended(shared_warmth)
    return prior.denormalise(solve(velocity_of(generator, prior, context, shared_warmth), noise, times))


def velocity_of(generator: nn.Module, prior: InformedPrior, context: Tensor, warmth: Tensor) -> Velocity:
    """The generator as the velocity of a flow, for some contexts and their blended prior; ``warmth`` is (1,).

    It has the precision of the state, also where the network computes in bfloat16: solvers subtract velocities from each other.
    """
    return lambda x, t: generator(generator_input(x, context, prior), t.reshape(1), warmth).to(x.dtype)
