"""Validation during training: scores of both networks on samples that they are not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsdcast.training.batches import Samples
from wsdcast.training.predictions import BATCH, batches_of, errors
from wsdcast.warmstart.crps import MEMBERS, almost_fair_crps
from wsdcast.warmstart.flow import draw, training_loss
from wsdcast.warmstart.moments import negative_log_likelihood
from wsdcast.warmstart.paths import Path
from wsdcast.warmstart.prior import Moments, PriorOf

WARMTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Values of the warmth at which the generator is validated."""
MOST_SAMPLES = 64
"""The most samples that a validation uses."""
MOST_NUMBERS = 2**24
"""The most numbers in the contexts of the samples that are sampled or evaluated together."""


@torch.inference_mode()
def moments_scores(moments: Moments, samples: Samples, weights: Tensor) -> dict[str, float]:
    """Scores of a moments network.

    Args:
        moments: the network.
        samples: the samples.
        weights: weights of the grid points, as for :func:`wsdcast.training.predictions.errors`.

    Returns:
        ``NLL``, the negative log-likelihood per predicted number (Eq. 5), nats; ``std of (x - mean) / std``, which is 1 if the predicted
        std is right; ``error``, the root mean square error in units of the data's std.
    """
    indices = _validation_indices(samples)
    batches = batches_of(samples, indices)
    nll = [negative_log_likelihood(moments, samples.context(batch), samples.target(batch)) * batch.numel() for batch in batches]
    error, standardised = (by_channel.square().mean().sqrt().item() for by_channel in errors([(moments, indices)], samples, weights))
    return {"NLL": torch.stack(nll).sum().item() / indices.numel(), "std of (x - mean) / std": standardised, "error": error}


@torch.inference_mode()
def flow_scores(generator: nn.Module, prior_of: PriorOf, samples: Samples, path: Path) -> dict[str, float]:
    """Losses of a generator: the mean over :data:`WARMTHS`, then the loss at each. Flow times and noise are the same in every call."""
    indices, sums = _validation_indices(samples), dict[float, Tensor]()
    for number, batch in enumerate(indices.split(BATCH)):
        random = torch.Generator(samples.target(batch[:1]).device).manual_seed(number)
        draws = draw((batch.numel(), *samples.shape), random)
        for part in _parts(samples, batch):
            context, target, drawn = samples.context(batch[part]), samples.target(batch[part]), draws.of(part)
            prior = prior_of(context)
            for warmth in WARMTHS:
                draws_at_warmth = drawn._replace(warmth=torch.full_like(drawn.warmth, warmth))
                loss = training_loss(generator, prior, context, target, draws_at_warmth, path)
                sums[warmth] = sums.get(warmth, 0) + loss * len(target)
    losses = {f"w = {warmth:g}": total.item() / indices.numel() for warmth, total in sums.items()}
    return {"flow loss": sum(losses.values()) / len(losses), **losses}


@torch.inference_mode()
def ensemble_scores(sampler: Callable[[Tensor, Tensor], Tensor], samples: Samples, weights: Tensor) -> dict[str, float]:
    """Scores of ensembles of two members after one step. The noise is the same in every call.

    Args:
        sampler: ``sampler(context, noise)`` returns a member.
        samples: the samples.
        weights: weights of the grid points, as for :func:`wsdcast.training.predictions.errors`.

    Returns:
        ``CRPS``, the fair CRPS in units of the data's std; ``spread/skill`` as :func:`wsdcast.verification.metrics.metrics`
        defines it, which is 1 for a calibrated ensemble; NaN if the error is smaller than what two members add to it.
    """
    indices, sums = _validation_indices(samples), torch.zeros(3)
    weights = weights.to(samples.target(indices[:1]).device)
    for number, batch in enumerate(indices.split(BATCH)):
        random = torch.Generator(weights.device).manual_seed(number)
        noise = torch.randn(MEMBERS, batch.numel(), *samples.shape, generator=random, device=weights.device)
        for part in _parts(samples, batch):
            context, truth = samples.context(batch[part]), samples.target(batch[part])
            members = torch.stack([sampler(context, one) for one in noise[:, part]])
            fields = almost_fair_crps(members, truth, alpha=1), members.var(dim=0), (members.mean(dim=0) - truth).square()
            sums += torch.stack([(weights * field).mean().cpu() for field in fields]) * len(truth)
    crps, variance, squared_error = (sums / indices.numel()).tolist()
    debiased = squared_error - variance / MEMBERS
    return {"CRPS": crps, "spread/skill": math.sqrt(variance / debiased) if debiased > 0 else math.nan}


def _parts(samples: Samples, batch: Tensor) -> list[slice]:
    """Divide a batch of samples into parts that are small enough for the memory. The batch decides what is drawn, so the parts do not."""
    size = max(1, MOST_NUMBERS // samples.context(batch[:1]).numel())
    return [slice(first, first + size) for first in range(0, batch.numel(), size)]


def _validation_indices(samples: Samples) -> Tensor:
    """Indices of at most :data:`MOST_SAMPLES` samples, evenly spread."""
    return torch.arange(0, len(samples), -(-len(samples) // MOST_SAMPLES))
