"""Flow matching in the normalised space of an informed prior: Algorithm 1 (training) and Algorithm 2 (sampling).

Flow time t runs from 0 (noise) to 1 (data), as in Lipman et al. (2023); the paper counts the other way. The path is straight,

    x_t = (1 - t) noise + t data,    v = dx_t / dt = data - noise,

or another of :mod:`wsdcast.warmstart.paths`. Here ``data`` is the target in normalised space (Eq. 2). The generator p'_theta predicts v; on
another path, that path says what it predicts. It is any network ``generator(x, t, warmth)`` whose input x, (batch, channels, ...), has the
channels of the state in normalised space, then those of the context, then the features of the blended prior. A network of
:mod:`wsdcast.warmstart.few_steps` also takes the length of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import InformedPrior, MakePrior, Moments, PriorOf, of_shape, per_sample, weights_of_channels
from wsdcast.warmstart.solvers import Solver, Velocity
from wsdcast.warmstart.times import DrawTimes, draw_logit_normal

Network = Callable[..., Tensor]
"""A generator: ``generator(x, t, warmth)``, and after them the length of the step if it knows that."""

Weight = Callable[[Tensor], Tensor]
"""From flow times (batch,) to the weights of their losses, (batch,)."""


def edm_weight(t: Tensor) -> Tensor:
    """Return the loss weight of Karras et al. (2022) as a weight of the squared error of the velocity, (batch,), for times (batch,).

    They weigh the squared error of the data estimate by (sigma^2 + 1) / sigma^2. With sigma = (1 - t) / t that estimate is x + (1 - t) v,
    so the weight of the velocity is t^2 + (1 - t)^2.
    """
    return t.square() + (1 - t).square()


LOSS_WEIGHTS: dict[str, Weight | None] = {"uniform": None, "edm": edm_weight}
"""Loss weights by the names that recipes use."""


def generator_input(x: Tensor, context: Tensor, prior: InformedPrior) -> Tensor:
    """Return the state in normalised space, the context and the features of the (blended) prior, concatenated along the channels."""
    return torch.cat([x, context, prior.features()], dim=1)


class Draws(NamedTuple):
    """The random numbers that Algorithm 1 draws for each sample.

    Attributes:
        warmth: w, (batch,).
        t: flow time, (batch,).
        noise: X'_T of the paper, standard normal, (batch, channel, ...). Stochastic solvers take several such fields,
            (batch, noise_count * channel, ...).
    """

    warmth: Tensor
    t: Tensor
    noise: Tensor

    def of(self, samples: slice) -> Draws:
        """Return the draws of some samples of the batch."""
        return Draws(*(drawn[samples] for drawn in self))


def draw(shape: tuple[int, ...], random: torch.Generator, draw_times: DrawTimes = draw_logit_normal) -> Draws:
    """Draw warmth, time and noise for a batch of targets of this shape, (batch, channel, ...), on the device of ``random``.

    Warmth is uniform in [0, 1] (Algorithm 1, line 4). The paper does not say how times are drawn. Here they are logit-normal by default:
    the velocity is hardest to predict halfway, and with uniform times a generator of the same budget was under-dispersed
    (docs/method.md).
    """
    warmth = torch.rand(shape[0], generator=random, device=random.device)
    t = draw_times(shape[0], random)
    return Draws(warmth, t, torch.randn(shape, generator=random, device=random.device))


def training_loss(
    generator: Network,
    prior: InformedPrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    path: Path = STRAIGHT,
    weight: Weight | None = None,
    channel_weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of Algorithm 1, the mean squared error of the velocity at random warmth, time and noise.

    Args:
        generator: p'_theta.
        prior: the prior of the context at full warmth, from the frozen h_phi or another moments model. It is blended here.
        context: C, (batch, channels, ...).
        target: X_0 of the paper, the data that belong to the context, (batch, channel, ...).
        draws: from :func:`draw`.
        path: the path from noise to data. The error is that of all fields that the generator predicts on it, added up.
        weight: the weight of each time; default: 1.
        channel_weights: the weights of the channels, (channel, 1, ...), with a 1 for each dimension of space; default: 1.

    Raises:
        ValueError: if target, noise, the generator's output or the weights of the channels have a wrong shape.
    """
    prior = prior.blended(draws.warmth)
    x, predicted = path.point(of_shape("noise", draws.noise, target), prior.normalise(target), draws.t)
    output = of_shape("output of the generator", generator(generator_input(x, context, prior), draws.t, draws.warmth), predicted)
    if weight is not None:
        root = per_sample(weight(draws.t).sqrt(), output)
        output, predicted = root * output, root * predicted
    if channel_weights is not None:
        root = torch.cat([weights_of_channels(channel_weights, target).sqrt()] * path.heads)
        output, predicted = root * output, root * predicted
    return path.heads * nn.functional.mse_loss(output, predicted)


def joint_loss(
    generator: Network,
    moments: Moments,
    make_prior: MakePrior,
    context: Tensor,
    target: Tensor,
    draws: Draws,
    end_to_end: bool = False,
    moments_weight: float = 1.0,
    path: Path = STRAIGHT,
    weight: Weight | None = None,
    channel_weights: Tensor | None = None,
    moments_channel_weights: Tensor | None = None,
) -> Tensor:
    """Return the loss with which both networks are trained at the same time (section 2.4, appendix E).

    It is the loss of Algorithm 1 plus ``moments_weight`` times the negative log-likelihood of Eq. 5 per number predicted.

    The loss of Algorithm 1 gives no gradient to the standard deviation. With one, the two networks agree on a standard deviation that makes
    the velocity trivial to predict and does not describe the data (appendix E, ``test_networks_collude_unless_the_std_is_detached``). It
    gives a gradient to the mean only if ``end_to_end``.

    Args:
        generator, context, target, draws, path, weight, channel_weights: as in :func:`training_loss`.
        moments: h_phi, in training.
        make_prior: makes the generator's prior from the moments.
        end_to_end: whether the loss of Algorithm 1 trains the mean too.
        moments_weight: the factor of the moments' own loss.
        moments_channel_weights: the weights of the channels in the moments' own loss, (channel, 1, ...); default: 1.
    """
    mean, std = moments(context)
    likelihood = InformedPrior(mean, std).log_prob(target, moments_channel_weights).mean() / target[0].numel()
    prior = make_prior(mean if end_to_end else mean.detach(), std.detach())
    return training_loss(generator, prior, context, target, draws, path, weight, channel_weights) - moments_weight * likelihood


def sample(
    generator: Network,
    prior_of: PriorOf,
    context: Tensor,
    noise: Tensor,
    times: Tensor,
    solve: Solver,
    warmth: float = 1.0,
    path: Path = STRAIGHT,
    step: float | None = None,
) -> Tensor:
    """Return one sample for each context, (batch, channel, ...), in the units of the data (Algorithm 2).

    Args:
        generator: p'_theta.
        prior_of: gives the prior of the context, usually by h_phi; called once.
        context: C, (batch, channels, ...).
        noise: X'_T of the paper, standard normal, (batch, channel, ...); for a stochastic solver (batch, steps * channel, ...).
        times: flow times at which the steps of the solver begin and end, increasing to 1, (steps + 1,). The first is 0, or that of
            :func:`start_of`.
        solve: a solver, such as one of :data:`wsdcast.warmstart.evaluations.ALL_SOLVERS`.
        warmth: w; the paper uses 1 throughout.
        path: the path that the generator was trained on.
        step: as for :func:`velocity_of`.

    Raises:
        ValueError: if the times do not increase to 1, or the noise or the generator's output has a wrong shape.
    """
    if times[-1] != 1 or (times.diff() <= 0).any():
        raise ValueError(f"flow times: {times.tolist()} do not increase to 1; the noise is at 0 and the data at 1")
    # The batch shares one value: it is embedded once, and the bits of a sample cannot depend on the other samples of its batch.
    shared_warmth = noise.new_full((1,), warmth)
    prior = prior_of(context).blended(shared_warmth)
    velocity = velocity_of(generator, prior, context, shared_warmth, path, step)
    return prior.denormalise(solve(velocity, start_of(path, noise, prior, times), times))


def start_of(path: Path, noise: Tensor, prior: InformedPrior, times: Tensor) -> Tensor:
    """Return what the solver begins with, of the shape of the noise: the state at the first time, then the noise of later steps.

    The state has nothing of the data. On a grid that begins after t = 0 it is the noise that the path has there.

    Args:
        path: the path.
        noise: standard normal noise, (batch, noise_count * channel, ...).
        prior: of which a sample has as many channels.
        times: flow times, (steps + 1,).
    """
    channels = prior.mean.shape[1]
    first = of_shape("noise", noise[:, :channels], prior.mean)
    return torch.cat([(1 - times[0].item()) * path.start(first), noise[:, channels:]], dim=1)


def velocity_of(
    generator: Network, prior: InformedPrior, context: Tensor, warmth: Tensor, path: Path = STRAIGHT, step: float | None = None
) -> Velocity:
    """Return the velocity that the generator predicts, as a function of state and time, for one batch of contexts.

    The velocity has the precision of the state even if the network computes in bfloat16, because solvers subtract velocities from each
    other.

    Args:
        generator: p'_theta.
        prior: the blended prior of the contexts.
        context: C, (batch, channels, ...).
        warmth: w, (1,).
        path: the path that the generator was trained on.
        step: the length of the solver's steps, for a generator that knows it.
    """
    length = () if step is None else (context.new_full((1,), step),)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t, x = t.reshape(1), of_shape("state of the solver", x, prior.mean)
        output = generator(generator_input(x, context, prior), t, warmth, *length).to(x.dtype)
        return of_shape("velocity of the generator", path.velocity(output, x, t), x)

    return velocity
