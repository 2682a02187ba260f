"""What a training is asked on the way: scores of the networks so far on samples that they do not learn from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsdcast.training.batches import Samples
from wsdcast.training.predictions import BATCH, errors
from wsdcast.warmstart.flow import draw, training_loss
from wsdcast.warmstart.moments import negative_log_likelihood
from wsdcast.warmstart.paths import STRAIGHT, Path
from wsdcast.warmstart.prior import Moments, PriorOf

WARMTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SAMPLES = 64
"""At most so many, evenly spread."""


@torch.inference_mode()
def moments_scores(moments: Moments, samples: Samples, weights: Tensor) -> dict[str, float]:
    """NLL per number predicted (Eq. 5), nats; standard deviation of (x - mean) / std, 1 if calibrated; error in the data's std."""
    chosen = _evenly(samples)
    nll = [negative_log_likelihood(moments, samples.context(some), samples.target(some)) * some.numel() for some in chosen.split(BATCH)]
    error, standardised = (part.square().mean().sqrt().item() for part in errors([(moments, chosen)], samples, weights))
    return {"NLL": torch.stack(nll).sum().item() / chosen.numel(), "std of (x - mean) / std": standardised, "error": error}


@torch.inference_mode()
def flow_scores(generator: nn.Module, prior_of: PriorOf, samples: Samples, path: Path = STRAIGHT) -> dict[str, float]:
    """Loss of the velocity on fixed times and noise: the mean over :data:`WARMTHS`, then that of each."""
    sums: dict[float, Tensor] = {}
    for number, some in enumerate(_evenly(samples).split(BATCH)):
        context, target = samples.context(some), samples.target(some)
        prior, draws = prior_of(context), draw(target.shape, torch.Generator(target.device).manual_seed(number))
        for warmth in WARMTHS:
            same = draws._replace(warmth=torch.full_like(draws.warmth, warmth))
            sums[warmth] = sums.get(warmth, 0) + training_loss(generator, prior, context, target, same, path) * some.numel()
    losses = {f"w = {warmth:g}": total.item() / _evenly(samples).numel() for warmth, total in sums.items()}
    return {"flow loss": sum(losses.values()) / len(losses), **losses}


def _evenly(samples: Samples) -> Tensor:
    return torch.arange(0, len(samples), -(-len(samples) // SAMPLES))
