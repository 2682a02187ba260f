"""Estimates of the peak memory of the image stages, in bytes: a stage that cannot fit is refused before it starts.

Only the machine's memory is counted. If a GPU's memory is too small, torch says so in the first batch. The memory of the libraries is not
counted: for scoring 300 contexts with 60 samples each at 32x32 the estimate is 369 MB. Measured (peak resident size) were 516 MB more than
after the imports; 55 MB of them are pages of the file of samples, and some 130 MB do not depend on the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from wsdcast.images import classifier, evaluation, scores
from wsdcast.images.data.store import Images
from wsdcast.images.drawing import CALIBRATED_ON, batch_size
from wsdcast.images.features import FEATURES, QUARTER_TURNS, Classifier
from wsdcast.images.networks import generator_model, moments_model
from wsdcast.images.recipe import ImageRecipe
from wsdcast.nets.peak import peak_memory, training_memory
from wsdcast.runs import devices, processes
from wsdcast.runs.recipes import Optimisation
from wsdcast.runs.resources import require_memory
from wsdcast.sampling.batches import at_once
from wsdcast.warmstart.evaluations import count_noise

COUNTS = {"classifier_distance": FEATURES, "fid": 2048}
"""Number of features of an image, for each distance."""
INCEPTION = 16e6
"""Bytes that Inception needs for an image, estimated from the sizes of its largest layers, not measured."""
STATISTICS = 55
"""Bytes that :func:`wsdcast.images.scores.sample_statistics` needs for each value of its samples; 39 to 54 were measured."""
FIELDS = 8
"""Arrays of a sample's size that exist while it is drawn: noise, context, state, the results in normalised space and in data space."""


def require_training(name: str, network: nn.Module, settings: Optimisation, images: Images, *shapes: tuple[int, ...]) -> None:
    """Refuse to train a network if memory cannot hold it and its batches. ``shapes`` are those of its inputs for one sample.

    Raises:
        UserError: in all processes, if less memory is free.
    """
    if devices.device().type == "cpu":
        needed = training_memory(network, settings.batch, settings.precision == "bf16", *shapes)
        purpose = f"training the {name} network in batches of {settings.batch} at {images.size}"
        processes.decided(lambda: require_memory(needed, purpose))


def require_sampling(
    recipe: ImageRecipe, images: Images, samples: int, *, noise_count: int = 1, calibrated: bool = False, kept: float = 0
) -> None:
    """Refuse to draw samples, or to calibrate a warmth, if memory cannot hold it. ``kept`` are bytes that other data occupy meanwhile.

    Raises:
        UserError: if less memory is free.
    """
    needed, (channels, rows, columns) = kept, images.shape
    if devices.device().type == "cpu":
        generator = generator_model(recipe.generator, channels)
        of_one = peak_memory(generator, *generator.input_shapes(rows, columns), training=False)
        of_moments = 0
        if recipe.generator.needs_moments_network:
            of_moments = peak_memory(moments_model(recipe.moments, channels), (1, channels + 1, rows, columns), training=False)
        size = batch_size(rows * columns, devices.device())
        capacity = at_once(size, devices.device())
        group = max(capacity, samples * capacity // math.gcd(capacity, samples))
        # The noise is there twice, as NumPy drew it and in the order of the batches.
        fields = FIELDS * (channels + 1) + 2 * (noise_count - 1) * channels
        needed += group * 4 * fields * rows * columns + capacity * max(of_one, of_moments)
        if calibrated:
            needed = max(needed, CALIBRATED_ON * of_moments)
    require_memory(needed, f"drawing {samples} samples of each context at {images.size}")


def of_samples(images: Images, contexts: int, samples: int) -> float:
    """Return the bytes of all samples of this number of contexts."""
    return float(contexts * samples * math.prod(images.shape))


def of_scoring(images: Images, contexts: int, samples: int, distances: Collection[str]) -> float:
    """Return the bytes that scoring one ensemble needs, without its samples: for statistics, features, a distance and its draws."""
    channels, rows, columns = images.shape
    count, values = contexts * samples, samples * math.prod(images.shape)
    part = min(max(scores.VALUES_PER_PART, values), min(evaluation.CONTEXTS_PER_PART, contexts) * values)
    of_one = 0.0
    if devices.device().type == "cpu":
        of_one = peak_memory(Classifier(channels, QUARTER_TURNS), (1, channels, rows, columns), training=False)
        of_one = max(of_one, INCEPTION if "fid" in distances else 0)
    features = 4.0 * count * sum(COUNTS[name] for name in distances)
    largest = max(of_distance(contexts, samples, COUNTS[name]) for name in distances)
    return features + max(STATISTICS * part, min(classifier.IMAGES_PER_BATCH, count) * of_one, features, largest)


def of_distance(contexts: int, samples: int, features: int) -> float:
    """Return the bytes that :func:`wsdcast.images.frechet.drawn_distances` needs besides its arguments, in double precision."""
    count = contexts * samples
    return 8.0 * (count * (2 * features + 2.5 * min(count, features) + 1.5 * evaluation.DRAWS) + features**2)


def require_scoring(images: Images, contexts: int, samples: int, distances: Collection[str]) -> None:
    """Refuse scoring if memory cannot hold it: the samples of two baselines (those of the run stay on disk) and the features of all three.

    Raises:
        UserError: if less memory is free.
    """
    features = 8.0 * contexts * samples * sum(COUNTS[name] for name in distances)
    needed = 2 * of_samples(images, contexts, samples) + features + of_scoring(images, contexts, samples, distances)
    require_memory(needed, f"scoring {contexts} contexts of {samples} samples each at {images.size}")


def require_study(recipe: ImageRecipe, images: Images, distances: Collection[str]) -> None:
    """Refuse a study if memory cannot hold the sampling of a setting, or its scoring for all seeds together.

    Raises:
        UserError: if less memory is free.
    """
    study, part = recipe.study, recipe.sample.part
    contexts = min(max(study.contexts, study.visible_contexts), max(images.count(part), images.count("validation")))
    drawn = of_samples(images, contexts, study.samples)
    # Twice: the samples of the single contexts, and the array that they are joined in.
    noise_count = max(count_noise(solver, nfe) for solver in study.solvers for nfe in (*study.nfe, *study.ablation_nfe, *study.visible_nfe))
    require_sampling(recipe, images, study.samples, noise_count=noise_count, calibrated="calibrated" in study.warmths, kept=2 * drawn)
    seeds = 4.0 * contexts * study.samples * (sum(COUNTS[name] for name in distances) + FEATURES) * len(study.seeds)
    needed = max(seeds, drawn) + of_scoring(images, contexts, study.samples, distances)
    require_memory(needed, f"a study of {contexts} contexts of {study.samples} samples each at {images.size}")
