"""Moments of the training samples. They are predicted once and stored for all generators that are trained on them (section 2.4)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.runs import processes
from wsdcast.runs.devices import sent
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.progress import track
from wsdcast.runs.resources import new_mapped
from wsdcast.training.batches import Samples
from wsdcast.warmstart.prior import Moments

Predictors = list[tuple[Moments, Tensor]]
"""Moments models, each with the indices (sample,) of the samples that it predicts."""

BATCH = 32
"""The most samples of a batch of predictions."""

MOST_POINTS = 2**21
"""The most grid points of such a batch. On a grid of 1440x721 points the moments network of era5 takes 7 GB for each sample."""

CHECKED = 256
"""Moments are checked on about this many samples."""


def folds(samples: int, count: int, border: int) -> list[tuple[Tensor, Tensor]]:
    """Divide the samples into ``count`` folds, each contiguous in time.

    Args:
        samples: number of samples.
        count: number of folds.
        border: samples left out of training on each side of a fold, because they share states with samples in the fold.

    Returns:
        For each fold the indices outside it, without its borders, and the indices inside it.
    """
    indices = torch.arange(samples)
    outside_and_inside = []
    for number in range(count):
        first, end = number * samples // count, (number + 1) * samples // count
        outside_and_inside.append((indices[(indices < first - border) | (indices >= end + border)], indices[first:end]))
    return outside_and_inside


@torch.inference_mode()
def predict(moments: Moments, samples: Samples, indices: Tensor) -> Tensor:
    """Predict mean and std, (sample, 2, channel, latitude, longitude), on the CPU."""
    return torch.stack(moments(samples.context(indices)), dim=1).cpu()


def write_predictions(path: Path, predictors: Predictors, samples: Samples, stamp: dict[str, object]) -> None:
    """Predict the moments of all samples and write them into the directory ``path``, which exists.

    If there are several processes, they share the batches. The file does not depend on their number: each batch has its own seed for
    dropout.
    """
    file, shape = path / "moments.npy", (len(samples), 2, *samples.shape)
    if processes.is_first():
        new_mapped(file, np.float32, shape)
        (path / "stamp.json").write_text(json.dumps(stamp, indent=2))
    processes.wait()
    array, seed = np.lib.format.open_memmap(file, mode="r+"), torch.initial_seed()
    batches = list(enumerate(_batches(predictors, samples)))[processes.number() :: processes.count()]
    for number, (moments, indices) in track(batches, "predicting moments", len(batches)):
        torch.manual_seed(seed + number)
        array[indices.numpy()] = predict(moments, samples, indices).numpy()
    array.flush()


def read_predictions(path: Path, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function from indices of samples (batch,) to their moments, each (batch, channel, latitude, longitude).

    Each call reads what it needs from the disk.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        array: NDArray[np.float32] = np.load(path / "moments.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        reason = f"{path}: cannot be read as predicted moments ({first_line(error)})"
        raise UserError(f"{reason}; move it away to have it made again") from None

    def moments(indices: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = sent(torch.from_numpy(array[indices.numpy()]), device).unbind(dim=1)
        return mean, std

    return moments


def errors(predictors: Predictors, samples: Samples, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of predicted moments: root mean squares over samples and area, by channel.

    Args:
        predictors: moments models and the samples that each predicts.
        samples: the samples.
        weights: weights of the grid points with mean 1, in a shape that broadcasts against (row, column).

    Returns:
        The error x - mean and the standardised error (x - mean) / std, each (channel,). The latter is 1 if the std is right.
    """
    squares, standardised_squares, count = torch.zeros(()), torch.zeros(()), 0
    for moments, indices in _batches(predictors, samples):
        predicted = predict(moments, samples, indices)
        error = samples.target(indices).cpu() - predicted[:, 0]
        squares = squares + (error**2 * weights).mean(dim=(2, 3)).sum(dim=0)
        std = predicted[:, 1]
        standardised_squares = standardised_squares + ((error / std) ** 2 * weights).mean(dim=(2, 3)).sum(dim=0)
        count += indices.numel()
    return (squares / count).sqrt(), (standardised_squares / count).sqrt()


def overall_errors(moments: Moments, samples: Samples, weights: Tensor) -> tuple[float, float]:
    """The error of one moments model in units of the data's std, and its standardised error, each over all channels (see :func:`errors`).

    They are computed on at least :data:`CHECKED` samples, evenly spread, or on all if there are fewer.
    """
    indices = torch.arange(0, len(samples), max(1, len(samples) // CHECKED))
    error, standardised = errors([(moments, indices)], samples, weights)
    return error.square().mean().sqrt().item(), standardised.square().mean().sqrt().item()


def errors_in_words(error: float, standardised: float) -> str:
    """The result of :func:`overall_errors` in words, for a summary."""
    return f"error {error:.3f} std of the data; (x - mean) / std has std {standardised:.2f}"


def batches_of(samples: Samples, indices: Tensor) -> tuple[Tensor, ...]:
    """Divide indices of samples into batches that are small enough for the memory."""
    return indices.split(max(1, min(BATCH, MOST_POINTS // math.prod(samples.shape[1:]))))


def _batches(predictors: Predictors, samples: Samples) -> list[tuple[Moments, Tensor]]:
    """Each batch of indices with the moments model that predicts it."""
    return [(moments, batch) for moments, indices in predictors for batch in batches_of(samples, indices)]
