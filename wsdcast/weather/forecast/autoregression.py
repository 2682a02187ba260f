"""The autoregression, which makes a forecast from the state now and past states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from wsdcast.sampling.samplers import Sampler


def forecast(sampler: Sampler, states: Iterable[Tensor], noises: Iterable[Tensor], forcings: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run the autoregression with steps of 6 h. Each state becomes the state now of the next context.

    Args:
        sampler: makes the next state.
        states: the state at the initial time and the states before it, from the last to the first, each (batch, channel, latitude,
            longitude).
        noises: the noise that the sampler takes at each step.
        forcings: the forcings of each step's context, (batch, forcing, latitude, longitude). The first are those at the initial time.

    Yields:
        One state (batch, channel, latitude, longitude) for each step.
    """
    states = list(states)
    for noise, step_forcings in zip(noises, forcings, strict=True):
        state = sampler(torch.cat([*states, step_forcings], dim=1), noise)
        yield state
        states = [state, *states[:-1]]
