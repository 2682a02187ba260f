"""Flow matching in the normalised space of an informed prior: Algorithms 1 and 2 of the paper.

The flow time t runs from 0 (noise) to 1 (data). The path is straight (Lipman et al. 2023), x_t = (1 - t) noise + t data with velocity
v = data - noise, or another of :mod:`wsdcast.warmstart.paths`. The generator p'_theta is any network ``generator(x, t, warmth)``. Its
input x, (batch, channels of state, context and features, ...), is the state in normalised space, the context and the features of the
prior, concatenated. Its output is v, or what the other path has it predict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import InformedPrior, MakePrior, Moments, PriorOf, per_sample
from wsdcast.warmstart.solvers import Solver, Velocity
from wsdcast.warmstart.times import DrawTimes, draw_logit_normal

Weight = Callable[[Tensor], Tensor]
"""From flow times (batch,) to the weights of their losses, (batch,)."""


def edm_weight(t: Tensor) -> Tensor:
    """The loss weight of Karras et al. (2022), (sigma^2 + 1) / sigma^2 for the error of the data estimate, as a weight of the velocity.

    With sigma = (1 - t) / t the data estimate is x + (1 - t) v, so the weight of the velocity's squared error is t^2 + (1 - t)^2.
    """
    return t.square() + (1 - t).square()


LOSS_WEIGHTS: dict[str, Weight | None] = {"uniform": None, "edm": edm_weight}
"""Loss weights by the name that recipes use."""


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


def training_loss(
    generator: nn.Module,
    prior: InformedPrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    path: Path = STRAIGHT,
    weight: Weight | None = None,
) -> Tensor:
    """Algorithm 1: the mean squared error of the velocity at random warmth, time and noise.

    Args:
        generator: p'_theta.
        prior: the prior of each context, from the frozen h_phi, or the standard prior.
        context: C, (batch, ...).
        target: the next state, X_0 of the paper, (batch, channel, ...).
        draws: from :func:`draw`.
        path: the path from noise to data. The error is that of all fields that the generator predicts on it, added up.
        weight: the weight of each time; default: 1.
    """
    prior = prior.blended(draws.warmth)
    x, predicted = path.point(draws.noise, prior.normalise(target), draws.t)
    output = generator(generator_input(x, context, prior), draws.t, draws.warmth)
    if weight is not None:
        root = per_sample(weight(draws.t).sqrt(), output)
        output, predicted = root * output, root * predicted
    return path.heads * nn.functional.mse_loss(output, predicted)


def joint_loss(
    generator: nn.Module,
    moments: Moments,
    make_prior: MakePrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    end_to_end: bool = False,
    moments_weight: float = 1.0,
    path: Path = STRAIGHT,
    weight: Weight | None = None,
) -> Tensor:
    """The loss of both networks trained at the same time: Algorithm 1 plus ``moments_weight`` times Eq. 5.

    The generator's loss never sends a gradient to the std. If it did, both networks would agree on a std that makes the velocity trivial
    instead of true (appendix E, ``test_networks_collude_unless_the_std_is_detached``). It sends one to the mean if ``end_to_end``.

    Args:
        generator, context, target, draws, path, weight: as in :func:`training_loss`.
        moments: h_phi, in training.
        make_prior: makes the prior from its moments.
        end_to_end: whether the generator's loss trains the mean too.
        moments_weight: factor of the moments' own loss.
    """
    mean, *std_and_factors = moments(context)
    likelihood = informed_prior(mean, *std_and_factors).log_prob(target).mean() / target[0].numel()
    prior = make_prior(mean if end_to_end else mean.detach(), *(values.detach() for values in std_and_factors))
    return training_loss(generator, prior, context, target, draws, path, weight) - moments_weight * likelihood


def sample(
    generator: nn.Module,
    prior_of: PriorOf,
    context: Tensor,
    noise: Tensor,
    times: Tensor,
    solve: Solver,
    warmth: float = 1.0,
    path: Path = STRAIGHT,
) -> Tensor:
    """Algorithm 2: draw one sample for each context, from standard normal noise.

    Args:
        generator: p'_theta.
        prior_of: from a context to its prior; called once.
        context: C, (batch, ...).
        noise: X'_T of the paper, (batch, channel, ...); for stochastic solvers several draws of it, (batch, draws * channel, ...).
        times: flow times from 0 to 1 between which the solver steps, (steps + 1,).
        solve: a solver of :mod:`wsdcast.warmstart.solvers`.
        warmth: w; the paper uses 1 throughout.
        path: the path that the generator was trained on.
    """
    # The batch shares one value of warmth. It is embedded once, and a sample's bits do not depend on the other samples of the batch.
    shared_warmth = noise.new_full((1,), warmth)
    prior = prior_of(context).blended(shared_warmth)
    velocity = velocity_of(generator, prior, context, shared_warmth, path)
    return prior.denormalise(solve(velocity, path.start(noise), times))


def velocity_of(generator: nn.Module, prior: InformedPrior, context: Tensor, warmth: Tensor, path: Path = STRAIGHT) -> Velocity:
    """The generator as the velocity of the flow, for fixed contexts and their blended prior; ``warmth`` is (1,).

    The velocity has the precision of the state, even if the network computes in bfloat16, because solvers subtract velocities.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(1)
        return path.velocity(generator(generator_input(x, context, prior), t, warmth).to(x.dtype), x, t)

    return velocity
