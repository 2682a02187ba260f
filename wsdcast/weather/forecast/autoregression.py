"""The autoregression, which makes a forecast from two states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from wsdcast.sampling.samplers import Sampler


def forecast(sampler: Sampler, now: Tensor, before: Tensor, noises: Iterable[Tensor], forcings: Iterable[Tensor]) -> Iterator[Tensor]:
    """Run the autoregression with steps of 6 h. Each state becomes the state now of the next context.

    Args:
        sampler: makes the next state.
        now, before: the state at the initial time and the state 6 h before, each (batch, channel, latitude, longitude).
        noises: the noise of each step, of the same shape.
        forcings: the forcings of each step's context, (batch, forcing, latitude, longitude). The first are those at the initial time.

    Yields:
        One state (batch, channel, latitude, longitude) for each step.
    """
    for noise, step_forcings in zip(noises, forcings, strict=True):
        state = sampler(torch.cat([now, before, step_forcings], dim=1), noise)
        yield state
        now, before = state, now
