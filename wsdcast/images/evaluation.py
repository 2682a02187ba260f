"""What samples are worth: statistics by context with the features of each sample, and metrics with intervals from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.classifier import Extract, features_of, statistics_of
from wsdcast.images.contexts import FixedContexts
from wsdcast.images.data.store import Images, Part
from wsdcast.images.frechet import FeatureStatistics, drawn_distances, frechet_distance
from wsdcast.images.scores import drawn_metrics, metrics, sample_statistics
from wsdcast.verification.bootstrap import BOUNDS

AT_ONCE = 256
DISTANCES = ("classifier_distance", "fid")
SCORES = ("crps", "crps_standard", "psnr", "psnr_whole", "rmse", "spread_skill", "diversity", "consistency", "power_deviation")
"""Metrics of :mod:`wsdcast.images.scores` that tables have, if the samples of a context are enough for them."""
NOT_DEFINED = "fair CRPS, spread/skill and diversity"
"""Of those what one sample of a context is not enough for."""
DRAWS = 200
"""Bootstrap samples of contexts; each takes an eigenvalue problem for a distance."""


@dataclass
class Diverged:
    """Counts the samples (batch, ...) that it is shown and that are not finite, whose bytes mean nothing."""

    count: int = 0

    def __call__(self, samples: Tensor) -> None:
        """Count those of a batch."""
        self.count += int((~samples.isfinite()).flatten(1).any(dim=1).sum())


def statistics_by_context(
    samples: NDArray[np.uint8], contexts: FixedContexts, extract: Mapping[str, Extract], diverged: int = 0
) -> xr.Dataset:
    """Those of :func:`wsdcast.images.scores.sample_statistics`, and for each distance ``NAME_features`` (context, sample, feature).

    Args:
        samples: (context, sample, row, column, channel).
        contexts: what they were drawn for.
        extract: makes the features of each distance.
        diverged: how many samples were not finite, kept as an attribute; if there are any, all statistics are NaN.
    """
    parts = []
    for some in torch.arange(len(contexts)).split(AT_ONCE):
        of_part = np.asarray(samples[int(some[0]) : int(some[-1]) + 1])
        hidden = (contexts.context(some)[:, -1] != 1).cpu().numpy()
        part = sample_statistics(of_part, contexts.images.images[contexts.chosen[some.numpy()]], hidden)
        found = {f"{name}_features": (("context", "sample", f"{name}_feature"), features_of(of, of_part)) for name, of in extract.items()}
        parts.append(part.assign(found))
    joined = xr.concat(parts, dim="context")
    return (xr.full_like(joined, np.nan) if diverged else joined).assign_attrs(diverged=diverged)


def references(images: Images, extract: Mapping[str, Extract]) -> dict[str, FeatureStatistics]:
    """Statistics of the features of all training images, the reference set of every distance."""
    return {name: statistics_of(of, images.images[images.parts["train"]]) for name, of in extract.items()}


def floors(
    images: Images, part: Part, count: int, extract: Mapping[str, Extract], reference: Mapping[str, FeatureStatistics]
) -> dict[str, float]:
    """Distances of as many true images of a part, or all if there are fewer: what as many perfect samples would have.

    A distance falls with their number. Images of the training part are part of the reference set.
    """
    some = images.images[images.parts[part]][:count]
    return {name: frechet_distance(statistics_of(of, some), reference[name]) for name, of in extract.items()}


def floors_of(images: Images, part: Part, count: int) -> str:
    """What :func:`floors` are of, in words."""
    return f"{min(count, images.count(part))} {'held-out' if part == 'test' else 'training'} images"


def scored(by_seed: list[xr.Dataset], reference: Mapping[str, FeatureStatistics], of_distances: int = DRAWS) -> dict[str, dict[str, Any]]:
    """For each score its mean over seeds of training, ``value``; ``draws`` of it for bootstrap samples of contexts; and ``by_seed``.

    Where samples of a seed diverged, its own, the mean and the draws are NaN. The same contexts are drawn for all seeds and all settings of
    as many contexts. Intervals of the power's deviation are left out: deviations of bootstrap samples are larger than that of the whole.

    Args:
        by_seed: statistics by context of each seed.
        reference: of the distances.
        of_distances: how many draws distances have, 0 for none; other scores take no time and have :data:`DRAWS`.
    """
    names = [f"{name}_features" for name in reference]
    plain = [of_seed.drop_vars(names) for of_seed in by_seed]
    values = [metrics(of_seed.mean("context")) for of_seed in plain]
    draws = [drawn_metrics(of_seed, DRAWS) for of_seed in plain]
    found: dict[str, dict[str, Any]] = {}
    for name in (name for name in SCORES if name in values[0]):
        of_seeds = np.array([value[name].item() for value in values])
        found[name] = {"value": of_seeds.mean(), "by_seed": of_seeds}
        if name != "power_deviation":
            found[name]["draws"] = np.mean([drawn[name].values for drawn in draws], axis=0)
    for name, of_reference in reference.items():
        pairs = [_distances(of_seed[f"{name}_features"].values, of_reference, of_distances) for of_seed in by_seed]
        of_seeds = np.array([value for value, _ in pairs])
        found[name] = {"value": of_seeds.mean(), "by_seed": of_seeds}
        if of_distances:
            found[name]["draws"] = np.mean([drawn for _, drawn in pairs], axis=0)
    return found


def _distances(features: NDArray[np.floating], reference: FeatureStatistics, draws: int) -> tuple[float, NDArray[np.floating]]:
    """The distance and its draws; NaN where samples have no features."""
    return drawn_distances(features, reference, draws) if np.isfinite(features).all() else (np.nan, np.full(draws, np.nan))


def bounds(score: dict[str, Any]) -> tuple[float, float]:
    """95 % of the draws of a score, NaN if it has none."""
    low, high = np.quantile(score["draws"], BOUNDS) if "draws" in score and np.isfinite(score["draws"]).all() else (np.nan, np.nan)
    return float(low), float(high)


def described(images: Images, part: Part, contexts: int, samples: int) -> str:
    """What was scored against what, in words."""
    whose = "held-out images (part: test)" if part == "test" else "TRAINING images, as the reference implementation has it"
    each = f"{samples} samples each" if samples > 1 else f"1 sample each, for which {NOT_DEFINED} are not defined"
    return f"{contexts} contexts of {whose}, {each}; reference set: all {images.count('train')} training images"
