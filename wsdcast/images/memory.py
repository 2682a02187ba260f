"""What the stages of images take in memory at their peak, in bytes, about: what cannot fit is refused before it starts.

On a GPU torch says so in the first batch, so that only what is in the machine's memory is counted. The libraries' own is left out: of
scoring 300 contexts of 60 samples at 32x32 369 MB are expected here, and 516 MB were taken beside what imports take, of which 55 MB are
pages of the file of samples and some 130 MB do not depend on their number (peak resident size).
"""

from __future__ import annotations

import math
from collections.abc import Collection

from wsdcast.images import classifier, evaluation, scores
from wsdcast.images.data.store import Images
from wsdcast.images.drawing import CALIBRATED_ON, batch_size
from wsdcast.images.features import FEATURES, TURNS, Classifier
from wsdcast.images.networks import generator_model, moments_model
from wsdcast.images.recipe import ImageRecipe
from wsdcast.nets.peak import peak_memory
from wsdcast.runs import devices
from wsdcast.runs.resources import require_memory
from wsdcast.sampling.batches import at_once

COUNTS = {"classifier_distance": FEATURES, "fid": 2048}
"""Features of an image, by the distance that they are for."""
INCEPTION = 16e6
"""Of an image in Inception, by the sizes of its largest layers; that was reckoned, not measured."""
STATISTICS = 55
"""Of a value that :func:`wsdcast.images.scores.sample_statistics` works on; 39 to 54 were measured."""
FIELDS = 8
"""Copies of a sample on the way: noise, context, state, what comes of it in normalised space and as data."""


def require_sampling(recipe: ImageRecipe, images: Images, samples: int, *, calibrated: bool = False, kept: float = 0) -> None:
    """Refuse samples that cannot be drawn, or a warmth that cannot be calibrated.

    Args:
        recipe: whose networks draw them.
        images: that contexts are of.
        samples: of each context.
        calibrated: whether a warmth is calibrated.
        kept: bytes that stay in memory meanwhile.

    Raises:
        UserError: if less is free.
    """
    needed, (channels, rows, columns) = kept, images.shape
    if devices.device().type == "cpu":
        generator = generator_model(recipe.generator, channels)
        of_one = peak_memory(generator, (1, generator.first.in_channels, rows, columns), (1,), (1,), training=False)
        of_moments = 0
        if recipe.generator.needs_moments_network:
            of_moments = peak_memory(moments_model(recipe.moments, channels), (1, channels + 1, rows, columns), training=False)
        size = batch_size(rows * columns, devices.device())
        places = at_once(size, devices.device())
        together = max(places, samples * places // math.gcd(places, samples))
        needed += together * FIELDS * 4 * (channels + 1) * rows * columns + places * max(of_one, of_moments)
        if calibrated:
            needed = max(needed, CALIBRATED_ON * of_moments)
    require_memory(needed, f"drawing {samples} samples of each context at {columns}x{rows}")


def of_samples(images: Images, contexts: int, samples: int) -> float:
    """The bytes of all samples of some contexts."""
    return float(contexts * samples * math.prod(images.shape))


def of_scoring(images: Images, contexts: int, samples: int, distances: Collection[str]) -> float:
    """Beside the samples themselves: statistics and features of one ensemble, then a distance and its bootstrap samples."""
    channels, rows, columns = images.shape
    count, values = contexts * samples, samples * math.prod(images.shape)
    at_once = min(max(scores.AT_ONCE, values), min(evaluation.AT_ONCE, contexts) * values)
    of_one = 0.0
    if devices.device().type == "cpu":
        of_one = peak_memory(Classifier(channels, TURNS), (1, channels, rows, columns), training=False)
        of_one = max(of_one, INCEPTION if "fid" in distances else 0)
    features = 4.0 * count * sum(COUNTS[name] for name in distances)
    largest = max(of_distance(contexts, samples, COUNTS[name]) for name in distances)
    return features + max(STATISTICS * at_once, min(classifier.AT_ONCE, count) * of_one, features, largest)


def of_distance(contexts: int, samples: int, features: int) -> float:
    """What :func:`wsdcast.images.frechet.drawn_distances` takes beside its arguments, all in double precision."""
    count = contexts * samples
    return 8.0 * (count * (2 * features + 2.5 * min(count, features) + 1.5 * evaluation.DRAWS) + features**2)


def require_scoring(images: Images, contexts: int, samples: int, distances: Collection[str]) -> None:
    """Refuse scores that cannot be computed: two baselines beside the samples, which stay on disk, and features of all three.

    Raises:
        UserError: if less is free.
    """
    features = 8.0 * contexts * samples * sum(COUNTS[name] for name in distances)
    needed = 2 * of_samples(images, contexts, samples) + features + of_scoring(images, contexts, samples, distances)
    require_memory(needed, f"scoring {contexts} contexts of {samples} samples each at {images.shape[2]}x{images.shape[1]}")


def require_study(recipe: ImageRecipe, images: Images, distances: Collection[str]) -> None:
    """Refuse a study one of whose settings cannot be drawn, or scored for all seeds together.

    Raises:
        UserError: if less is free.
    """
    wanted, part = recipe.study, recipe.sample.part
    contexts = min(max(wanted.contexts, wanted.visible_contexts), max(images.count(part), images.count("validation")))
    drawn = of_samples(images, contexts, wanted.samples)
    # One after the other, and then all in one array.
    require_sampling(recipe, images, wanted.samples, calibrated="calibrated" in wanted.warmths, kept=2 * drawn)
    seeds = 4.0 * contexts * wanted.samples * (sum(COUNTS[name] for name in distances) + FEATURES) * len(wanted.seeds)
    needed = max(seeds, drawn) + of_scoring(images, contexts, wanted.samples, distances)
    require_memory(needed, f"a study of {contexts} contexts of {wanted.samples} samples each at {images.shape[2]}x{images.shape[1]}")
