"""Use the method in a project of your own: your networks and your data, of any shape. Nothing here knows of weather, recipes or files.

    python examples/own_network.py

The data are 16 sensors on a ring, tensors (batch, channel, sensor): what each measures next depends on what its neighbour measures now, and
its uncertainty on how much is going on. The true distribution is known, and so is the CRPS of an ensemble that is perfect. Trains a moments
network and three generators, each in a few seconds: from N(0, 1), from the warm start, and from the warm start along the path that blurs.
Prints the fair CRPS of their ensembles by number of evaluations (NFE).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from wsdcast.sampling.samplers import generator_sampler
from wsdcast.verification.kernels import fair_crps, ranked
from wsdcast.warmstart.evaluations import grid, solver, steps_for
from wsdcast.warmstart.flow import draw, training_loss
from wsdcast.warmstart.moments import MomentsModel, negative_log_likelihood
from wsdcast.warmstart.paths import STRAIGHT, BlurNoise, Path
from wsdcast.warmstart.prior import PriorOf, frozen_prior, standard_moments

SENSORS, HIDDEN, BATCH, MEMBERS = 16, 128, 256, 50
RING = 2 * torch.eye(SENSORS) - torch.eye(SENSORS).roll(1, 0) - torch.eye(SENSORS).roll(-1, 0)
"""Minus the Laplacian of the ring."""
EIGENVALUES, WAVES = torch.linalg.eigh(RING)
ROOT = torch.linalg.cholesky(torch.linalg.inv(torch.eye(SENSORS) + RING))


def std_of(now: Tensor) -> Tensor:
    """Return the standard deviation of what follows, (batch, 1, 1), as a factor of ROOT's."""
    return 0.1 + 0.4 * now.abs().mean(dim=-1, keepdim=True)


def data(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return what is known, and what follows, each (count, 1, sensor)."""
    now, noise = torch.randn(2, count, 1, SENSORS, generator=random) @ ROOT.T
    return now, 0.8 * now.roll(1, dims=-1) + std_of(now) * noise


class Network(nn.Module):
    """Maps (batch, channels, sensor) to (batch, channels, sensor). A generator also reads flow time and warmth, (batch,) or (1,)."""

    def __init__(self, channels: int, outputs: int, scalars: int = 0) -> None:
        super().__init__()
        sizes = channels * SENSORS + scalars, HIDDEN, HIDDEN, outputs * SENSORS
        first, second, last = (nn.Linear(*pair) for pair in pairwise(sizes))
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last, nn.Unflatten(1, (outputs, SENSORS)))

    def forward(self, x: Tensor, *scalars: Tensor) -> Tensor:
        """Return the output."""
        return self.layers(torch.cat([x.flatten(1), *(scalar.expand(len(x))[:, None] for scalar in scalars)], dim=1))


def trained(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batches: int = 3000) -> None:
    """Train a network on new data in each batch; here is the place of your own data loader."""
    optimiser, random = torch.optim.Adam(network.parameters(), lr=1e-3), torch.Generator().manual_seed(1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, batches)
    for _ in range(batches):
        optimiser.zero_grad()
        loss(*data(BATCH, random)).backward()
        optimiser.step()
        schedule.step()
    network.eval()


def trained_generator(prior_of: PriorOf, path: Path, batches: int) -> nn.Module:
    """Return a generator that starts from a prior and follows a path."""
    # It reads the state, the context, and mean and log(std) of the prior: four channels.
    generator, random = Network(4, path.heads, scalars=2), torch.Generator().manual_seed(3)

    def loss(context: Tensor, target: Tensor) -> Tensor:
        return training_loss(generator, prior_of(context), context, target, draw(tuple(target.shape), random), path)

    trained(generator, loss, batches)
    return generator


def on_waves(x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the waves of the ring by factors of their eigenvalues: what a path that blurs has to know of your grid."""
    return (x @ WAVES * factor(EIGENVALUES)[:, None]) @ WAVES.T


def main(batches: int = 3000) -> dict[str, float]:
    """Print the table, and return its numbers."""
    torch.manual_seed(0)
    # The mean is what it predicts plus the first channel of the context. Raw std and mean are two outputs.
    moments = MomentsModel(Network(1, 2), channels=1)
    trained(moments, lambda context, target: negative_log_likelihood(moments, context, target), batches)
    warm, standard, blur = frozen_prior(moments), frozen_prior(standard_moments(1)), BlurNoise(bnr=0.5, multiply=on_waves)

    now, after = data(200, torch.Generator().manual_seed(2))
    # sqrt(std^2 / pi) is the CRPS of a Gaussian forecast that is right.
    scores = {"perfect ensemble": (std_of(now) * ROOT.square().sum(dim=1).sqrt() / math.sqrt(math.pi)).mean().item()}
    contexts, noise = now.repeat_interleave(MEMBERS, dim=0), torch.randn(200 * MEMBERS, 1, SENSORS)
    for name, prior_of, path in (("N(0, 1)", standard, STRAIGHT), ("warm start", warm, STRAIGHT), ("warm start, blur", warm, blur)):
        generator = trained_generator(prior_of, path, batches)
        for nfe in (2, 4, 20):
            times = grid("uniform", steps_for("midpoint", nfe))
            sampler = generator_sampler(generator, prior_of, nfe, 1.0, times, solver("midpoint"), path)
            with torch.inference_mode():
                ensemble = sampler(contexts, noise).unflatten(0, (200, MEMBERS)).transpose(0, 1)  # the dimension of members comes first
            scores[f"{name}, NFE {nfe}"] = float(fair_crps(ranked(ensemble.numpy(), after.numpy())).mean())
    for name, score in scores.items():
        print(f"{name:24} {score:.4f}")
    return scores


if __name__ == "__main__":
    main()
