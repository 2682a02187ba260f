"""Evaluation of samples: statistics and features for each context, and scores with intervals computed from them."""

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

CONTEXTS_PER_PART = 256
"""Contexts whose statistics are computed at a time."""
SCORES = ("crps", "crps_standard", "psnr", "psnr_whole", "rmse", "spread_skill", "diversity", "consistency", "power_deviation")
"""Metrics of :mod:`wsdcast.images.scores` that tables show; some need at least two samples per context."""
NOT_DEFINED = "fair CRPS, spread/skill and diversity"
"""The metrics among them that need at least two samples per context."""
DRAWS = 200
"""Number of bootstrap samples of contexts; a distance needs one eigenvalue decomposition for each."""


@dataclass
class Diverged:
    """A counter of samples that are not finite; their bytes mean nothing. Call it with batches of samples (batch, ...)."""

    count: int = 0

    def __call__(self, samples: Tensor) -> None:
        """Add the samples of a batch that are not finite."""
        self.count += int((~samples.isfinite()).flatten(1).any(dim=1).sum())


def statistics_by_context(samples: NDArray[np.uint8], contexts: FixedContexts, extract: Mapping[str, Extract], diverged: int) -> xr.Dataset:
    """Return the statistics of :func:`wsdcast.images.scores.sample_statistics`, with the features of each sample.

    The features for the distance NAME are the variable ``NAME_features`` (context, sample, feature). ``diverged``, the number of samples
    that were not finite, becomes an attribute. If it is not 0, all statistics are NaN.

    Args:
        samples: (context, sample, row, column, channel).
    """
    parts = []
    for positions in torch.arange(len(contexts)).split(CONTEXTS_PER_PART):
        drawn = np.asarray(samples[int(positions[0]) : int(positions[-1]) + 1])
        hidden = (contexts.context(positions)[:, -1] != 1).cpu().numpy()
        statistics = sample_statistics(drawn, contexts.images.images[contexts.chosen[positions.numpy()]], hidden)
        features = {f"{name}_features": (("context", "sample", f"{name}_feature"), features_of(of, drawn)) for name, of in extract.items()}
        parts.append(statistics.assign(features))
    joined = xr.concat(parts, dim="context")
    return (xr.full_like(joined, np.nan) if diverged else joined).assign_attrs(diverged=diverged)


def references(images: Images, extract: Mapping[str, Extract]) -> dict[str, FeatureStatistics]:
    """Return the feature statistics of all training images, the reference set of every distance."""
    return {name: statistics_of(of, images.images[images.parts["train"]]) for name, of in extract.items()}


def floors(
    images: Images, part: Part, count: int, extract: Mapping[str, Extract], reference: Mapping[str, FeatureStatistics]
) -> dict[str, float]:
    """Return the distances of ``count`` true images of a split (all if it has fewer): as many perfect samples would have these distances.

    A distance falls with the number of images. Images of the training split belong to the reference set themselves.
    """
    subset = images.images[images.parts[part]][:count]
    return {name: frechet_distance(statistics_of(of, subset), reference[name]) for name, of in extract.items()}


def floors_of(images: Images, part: Part, count: int) -> str:
    """Return the number and kind of the images that :func:`floors` uses, in words."""
    return f"{min(count, images.count(part))} {'test' if part == 'test' else 'training'} images"


def scored(
    by_seed: list[xr.Dataset], reference: Mapping[str, FeatureStatistics], draws: int = DRAWS, of_distances: int = DRAWS
) -> dict[str, dict[str, Any]]:
    """Return for each score: ``by_seed``, the score of each seed of training; ``value``, their mean; ``draws``, bootstrap samples of it.

    If samples of a seed diverged, the score of that seed, the mean and the draws are NaN. Bootstrap samples draw the same contexts for all
    seeds, and for all settings with the same number of contexts. The power deviation has no draws: those of bootstrap samples would be
    larger than that of all contexts.

    Args:
        by_seed: for each seed, statistics by context.
        reference: for each distance, the feature statistics of the reference set.
        draws: number of draws of each score that is not a distance, 0 for none.
        of_distances: number of draws of each distance, 0 for none.
    """
    names = [f"{name}_features" for name in reference]
    plain = [of_seed.drop_vars(names) for of_seed in by_seed]
    values = [metrics(of_seed.mean("context")) for of_seed in plain]
    drawn_by_seed = [drawn_metrics(of_seed, draws) for of_seed in plain] if draws else []
    scores: dict[str, dict[str, Any]] = {}
    for name in (name for name in SCORES if name in values[0]):
        of_seeds = np.array([value[name].item() for value in values])
        scores[name] = {"value": of_seeds.mean(), "by_seed": of_seeds}
        if drawn_by_seed and name != "power_deviation":
            scores[name]["draws"] = np.mean([drawn[name].values for drawn in drawn_by_seed], axis=0)
    return scores | distances_scored(by_seed, reference, of_distances)


def distances_scored(by_seed: list[xr.Dataset], reference: Mapping[str, FeatureStatistics], draws: int) -> dict[str, dict[str, Any]]:
    """Return the distances alone, as :func:`scored` returns them, with this number of draws, 0 for none."""
    scores = dict[str, dict[str, Any]]()
    for name, of_reference in reference.items():
        pairs = [_distances(of_seed[f"{name}_features"].values, of_reference, draws) for of_seed in by_seed]
        of_seeds = np.array([value for value, _ in pairs])
        scores[name] = {"value": of_seeds.mean(), "by_seed": of_seeds}
        if draws:
            scores[name]["draws"] = np.mean([drawn for _, drawn in pairs], axis=0)
    return scores


def _distances(features: NDArray[np.floating], reference: FeatureStatistics, draws: int) -> tuple[float, NDArray[np.floating]]:
    """Return a distance and its draws; all are NaN if any feature is not finite."""
    return drawn_distances(features, reference, draws) if np.isfinite(features).all() else (np.nan, np.full(draws, np.nan))


def bounds(score: dict[str, Any]) -> tuple[float, float]:
    """Return the ends of the interval that holds 95 % of the draws of a score; NaN if it has no draws, or if one is not finite."""
    low, high = np.quantile(score["draws"], BOUNDS) if "draws" in score and np.isfinite(score["draws"]).all() else (np.nan, np.nan)
    return float(low), float(high)


def described(images: Images, part: Part, contexts: int, samples: int) -> str:
    """Return in words which contexts were scored, with how many samples, and the reference set."""
    whose = "test images" if part == "test" else "TRAINING images, as the reference implementation has it"
    each = f"{samples} samples each" if samples > 1 else f"1 sample each, for which {NOT_DEFINED} are not defined"
    return f"{contexts} contexts of {whose}, {each}; reference set: all {images.count('train')} training images"
