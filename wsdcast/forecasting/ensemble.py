"""The autoregression and the ensemble: from a context to forecast states, members independent of how they are batched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.forecasting.threads import side_by_side
from wsdcast.warmstart.evaluations import Counted
from wsdcast.warmstart.flow import sample
from wsdcast.warmstart.prior import PriorOf
from wsdcast.warmstart.solvers import Solver, Velocity, midpoint

Sampler = Callable[[Tensor, Tensor], Tensor]
"""From context (batch, channel, latitude, longitude) and noise (batch, channel, latitude, longitude) to the next state."""


def forecast(sampler: Sampler, now: Tensor, before: Tensor, noises: Iterable[Tensor], beside: Iterable[Tensor]) -> Iterator[Tensor]:
    """The whole autoregression: one state (batch, channel, latitude, longitude) for each noise, 6 h apart.

    Args:
        sampler: makes the next state.
        now, before: the state at the start and that 6 h before, each as above.
        noises: one for each step, as above.
        beside: what the context has beside the wind, from the start on, one for each step.
    """
    for noise, around in zip(noises, beside, strict=True):
        state = sampler(torch.cat([now, before, around], dim=1), noise)
        yield state
        now, before = state, now


def member_noise(seed: int, starts: NDArray[np.datetime64], members: int, steps: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Standard normal noise (start x member, *shape) for each step.

    That of member m of start s at step k depends on (seed, s, m, k) alone, so the first 50 of 100 members are the 50.
    """
    seconds = starts.astype("datetime64[s]").astype(np.int64).tolist()
    for step in range(steps):
        noise = np.empty((len(seconds) * members, *shape), dtype=np.float32)
        for item, (second, member) in zip(noise, product(seconds, range(members)), strict=True):
            # Seeds must not be negative; times before 1970 are.
            np.random.default_rng([seed, second % 2**63, member, step]).standard_normal(out=item, dtype=np.float32)
        yield torch.from_numpy(noise)


def generator_sampler(
    generator: torch.nn.Module, prior_of: PriorOf, nfe: int, warmth: float, times: Tensor, solve: Solver = midpoint
) -> Sampler:
    """Algorithm 2: exactly ``nfe`` evaluations of the generator, and one of the moments model.

    Args:
        generator: p'_theta.
        prior_of: what generation starts from.
        nfe: what ``solve`` claims to take for ``times``.
        warmth: w of Eq. 4.
        times: flow times, (steps + 1,).
        solve: the solver.
    """

    def counted_solve(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
        counted = Counted(velocity)
        state = solve(counted, noise, times)
        if counted.calls != nfe:
            raise RuntimeError(f"a solver that claims {nfe} evaluations took {counted.calls}")
        return state

    return lambda context, noise: sample(generator, prior_of, context, noise, times, counted_solve, warmth)


def moments_sampler(prior_of: PriorOf) -> Sampler:
    """The moments model alone: independent Gaussian noise at every point, a baseline without spatial structure."""
    return lambda context, noise: prior_of(context).sample(noise)


def in_batches(sampler: Sampler, size: int) -> Sampler:
    """The same sampler for any number of members, evaluated at most ``size`` at a time.

    On a CPU the last batch is filled up with repetitions: convolutions round differently in batches of another size, and a member's bits
    must not depend on how many others there are. Batches run side by side, each on one thread, so that bits do not depend on the number of
    threads either. A network must then allow calls from several threads, as torch's modules do in inference. On a GPU members are divided
    evenly and nothing is computed twice, so batches have one size, or two that differ by one.
    """

    def batched(context: Tensor, noise: Tensor) -> Tensor:
        members = noise.shape[0]
        if noise.device.type != "cpu":
            count = -(-members // size)
            pairs = zip(context.tensor_split(count), noise.tensor_split(count), strict=True)
            return torch.cat([sampler(*pair) for pair in pairs])
        slots = torch.arange(-(-members // size) * size, device=noise.device) % members
        parts = side_by_side(lambda some: sampler(context[some], noise[some]), slots.split(size), noise.device)
        return torch.cat(parts)[:members]

    return batched


def batch_size(points: int, device: torch.device) -> int:
    """The most members per evaluation for a grid of ``points``.

    On two cores, with a batch on each, the planet's networks (2,048 points) took 16.2 ms a sample of ten evaluations in batches of 13,
    14.7 in batches of 25 and no less in larger ones. More than fifty members on a small grid would mostly be repetitions.
    """
    return max(1, min(50, 52_000 // points)) if device.type == "cpu" else max(2, 2_000_000 // points)


def at_once(size: int, device: torch.device) -> int:
    """The most members evaluated at the same time in batches of ``size``: a batch for each thread of a CPU, one batch on a GPU."""
    return size * torch.get_num_threads() if device.type == "cpu" else size
