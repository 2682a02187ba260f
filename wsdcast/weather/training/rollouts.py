"""Training on short rollouts: the CRPS of two members that forecast several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from wsdcast.sampling.samplers import Sampler
from wsdcast.training.loop import BatchOf
from wsdcast.warmstart.crps import MEMBERS, EnsembleLoss
from wsdcast.weather.forecast.autoregression import forecast
from wsdcast.weather.samples import Samples


class RolloutBatch(NamedTuple):
    """A batch of initial states, and for each step forcings, truth and noise.

    Attributes:
        states: the state at the initial time and the states before it, from the last to the first, each (batch, channel, latitude,
            longitude).
        forcings: of the contexts, (batch, forcing, latitude, longitude) for each step.
        truth: the states to forecast, (batch, channel, latitude, longitude) for each step.
        noise: standard normal, (step, member, batch, channel, latitude, longitude).
    """

    states: list[Tensor]
    forcings: list[Tensor]
    truth: list[Tensor]
    noise: Tensor


def rollout_batches_of(samples: Samples, steps: Callable[[], int], random: torch.Generator) -> BatchOf[RolloutBatch]:
    """Return the function that makes batches of rollouts.

    Args:
        samples: each with at least as many states after it as the longest rollout has steps (:meth:`Samples.longer`).
        steps: returns the length of the next batch.
        random: random generator for the noise.
    """

    def batch_of(indices: Tensor, local: slice) -> RolloutBatch:
        length, chosen = steps(), indices[local]
        noise = torch.randn((length, MEMBERS, indices.numel(), *samples.shape), generator=random, device=random.device)[:, :, local]
        forcings = [samples.forcings_after(chosen, step) for step in range(length)]
        truth = [samples.target(chosen, step + 1) for step in range(length)]
        return RolloutBatch(samples.states_of_context(chosen), forcings, truth, noise)

    return batch_of


def rollout_loss(sampler: Sampler, batch: RolloutBatch, loss: EnsembleLoss, gradients: Literal["last", "all"]) -> Tensor:
    """Return the loss of an ensemble over a rollout.

    Args:
        sampler: makes the next state, with gradients.
        batch: initial states, forcings, truth and noise.
        loss: of the members of one step.
        gradients: ``last``: the loss is that of the last step, which trains that step alone; ``all``: it is the mean over all steps, and
            its gradient goes through all of them.
    """
    states, forcings = ([fields.repeat(MEMBERS, 1, 1, 1) for fields in each] for each in (batch.states, batch.forcings))
    rollout, losses = forecast(sampler, states, batch.noise.flatten(1, 2), forcings), []
    for step, truth in enumerate(batch.truth, start=1):
        is_trained = gradients == "all" or step == len(batch.truth)
        with torch.set_grad_enabled(is_trained):
            state = next(rollout)
        if is_trained:
            losses.append(loss(state.unflatten(0, (MEMBERS, -1)), truth))
    return torch.stack(losses).mean()
