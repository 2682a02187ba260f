"""Moments of the training samples, predicted once and kept for every generator that is trained on them (section 2.4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.runs import processes
from wsdcast.runs.devices import sent
from wsdcast.runs.progress import track
from wsdcast.training.batches import Samples
from wsdcast.warmstart.correlated import informed_prior
from wsdcast.warmstart.prior import Moments

Predictors = list[tuple[Moments, Tensor]]
"""Models, each with the indices of the samples (sample,) that it predicts."""

BATCH = 32
CHECKED = 256
"""Samples on which moments are checked."""

BORDER = 2
"""Samples left out on either side of a fold: they share states with those inside."""


def folds(samples: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """For each of ``count`` parts of the record, contiguous in time, the samples outside it, without its borders, and inside it."""
    index = torch.arange(samples)
    parts = []
    for number in range(count):
        first, end = number * samples // count, (number + 1) * samples // count
        parts.append((index[(index < first - BORDER) | (index >= end + BORDER)], index[first:end]))
    return parts


@torch.inference_mode()
def predict(moments: Moments, samples: Samples, chosen: Tensor) -> Tensor:
    """Mean and std, and factors if there are any, of some samples: (sample, 2 + rank, channel, latitude, longitude), on the CPU."""
    mean, std, *factors = moments(samples.context(chosen))
    return torch.cat([mean[:, None], std[:, None], *factors], dim=1).cpu()


def write_predictions(path: Path, predictors: Predictors, samples: Samples, size: int, stamp: dict[str, object]) -> None:
    """Write predictions of all samples into the directory ``path``, each by the model that is responsible for it.

    Several processes share the batches. The file does not depend on how many they are: where dropout is on, each batch has its own seed.

    Args:
        path: a directory.
        predictors: models and the samples that each predicts.
        samples: the training samples.
        size: fields per sample, 2 + rank.
        stamp: says what they were made from.
    """
    file, shape = path / "moments.npy", (len(samples), size, *samples.shape)
    if processes.is_first():
        np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        (path / "stamp.json").write_text(json.dumps(stamp, indent=2))
    processes.wait()
    array, seed = np.lib.format.open_memmap(file, mode="r+"), torch.initial_seed()
    pieces = list(enumerate(_batches(predictors)))[processes.number() :: processes.count()]
    for number, (moments, some) in track(pieces, "predicting moments", len(pieces)):
        torch.manual_seed(seed + number)
        array[some.numpy()] = predict(moments, samples, some).numpy()
    array.flush()


def read_predictions(path: Path, device: torch.device) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """From indices of samples (batch,) to their moments, each (batch, channel, latitude, longitude), read from disk as they are needed."""
    array: NDArray[np.float32] = np.load(path / "moments.npy", mmap_mode="r")

    def moments(chosen: Tensor) -> tuple[Tensor, ...]:
        return _fields(sent(torch.from_numpy(array[chosen.numpy()]), device))

    return moments


def _fields(predicted: Tensor) -> tuple[Tensor, ...]:
    """Mean, std and factors, if there are any, from what :func:`predict` stacked."""
    mean, std, factors = predicted[:, 0], predicted[:, 1], predicted[:, 2:]
    return (mean, std, factors) if factors.shape[1] else (mean, std)


def errors(predictors: Predictors, samples: Samples, weights: Tensor) -> tuple[Tensor, Tensor]:
    """How far predictions are from what followed, root mean squares over samples and area by channel, each (channel,).

    Args:
        predictors: models and the samples that each predicts.
        samples: the samples.
        weights: of the points, of mean 1, in a shape that broadcasts against (row, column).

    Returns:
        Of x - mean, and of (x - mean) / std: 1 where the std is what errors are.
    """
    error, standardised, count = torch.zeros(()), torch.zeros(()), 0
    for moments, some in _batches(predictors):
        predicted = predict(moments, samples, some)
        difference = samples.target(some).cpu() - predicted[:, 0]
        error = error + (difference**2 * weights).mean(dim=(2, 3)).sum(dim=0)
        std = informed_prior(*_fields(predicted)).marginal_std()
        standardised = standardised + ((difference / std) ** 2 * weights).mean(dim=(2, 3)).sum(dim=0)
        count += some.numel()
    return (error / count).sqrt(), (standardised / count).sqrt()


def checked(moments: Moments, samples: Samples, weights: Tensor) -> tuple[float, float]:
    """The same on some samples, evenly spread, channels together: error in units of the data's std, and standardised error."""
    chosen = torch.arange(0, len(samples), max(1, len(samples) // CHECKED))
    error, standardised = errors([(moments, chosen)], samples, weights)
    return error.square().mean().sqrt().item(), standardised.square().mean().sqrt().item()


def in_words(error: float, standardised: float) -> str:
    """What :func:`checked` found, for a summary."""
    return f"error {error:.3f} std of the wind; (x - mean) / std has std {standardised:.2f}"


def _batches(predictors: Predictors) -> list[tuple[Moments, Tensor]]:
    return [(moments, some) for moments, chosen in predictors for some in chosen.split(BATCH)]
