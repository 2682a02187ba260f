"""Train the classifier of the classifier distance on the prepared images, and compute features and their statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.data.store import Images
from wsdcast.images.features import QUARTER_TURNS, Classifier, classifier_loss, inception, mirrored, turned
from wsdcast.images.frechet import FeatureStatistics
from wsdcast.images.recipe import ImageRecipe
from wsdcast.nets.weights import load_network, to_device
from wsdcast.runs import devices
from wsdcast.runs.artefact import is_current
from wsdcast.runs.devices import sent
from wsdcast.runs.names import CLASSIFIER
from wsdcast.runs.summary import Summary
from wsdcast.training.fitting import fit_and_write
from wsdcast.training.loop import BatchOf, Plan
from wsdcast.training.state import Training

IMAGES_PER_BATCH = 256
"""Images whose features are computed at a time."""

Labels = NDArray[np.int64] | None
"""The class of each image, counted from 0, (image,). None if there are no labels: then the classifier predicts quarter turns."""

Extract = Callable[[Tensor], Tensor]
"""A function from images uint8 (batch, channel, row, column) to features (batch, feature)."""


class Labelled(NamedTuple):
    """Images (batch, channel, row, column) and the class of each, (batch,)."""

    images: Tensor
    labels: Tensor


def extractors(
    recipe: ImageRecipe, directory: Path, images: Images, weights: Path | None, summary: Summary, overwrite: bool
) -> dict[str, Extract]:
    """Return for each distance the function that computes its features.

    ``classifier_distance`` uses the classifier, which is trained first if necessary. ``fid`` uses Inception, if its weights are given.

    Raises:
        UserError: if the weights cannot be used, or the classifier belongs to another recipe and may not be overwritten.
    """
    extract: dict[str, Extract] = {} if weights is None else {"fid": inception(weights)}
    classifier = load_network(_train_if_needed(recipe, directory, images, summary, overwrite), directory / CLASSIFIER)
    return extract | {"classifier_distance": lambda batch: classifier.features(batch.float() / 127.5 - 1)}


def features_of(extract: Extract, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the features (..., feature) of images (..., row, column, channel).

    The network reads :data:`IMAGES_PER_BATCH` images at a time, which bounds the memory of its hidden layers.
    """
    flat = images.reshape(-1, *images.shape[-3:])
    parts = [np.array(flat[first : first + IMAGES_PER_BATCH]) for first in range(0, len(flat), IMAGES_PER_BATCH)]
    with torch.inference_mode():
        features = [extract(torch.from_numpy(part).permute(0, 3, 1, 2).to(devices.device())).cpu().numpy() for part in parts]
    return np.concatenate(features).reshape(*images.shape[:-3], -1)


def statistics_of(extract: Extract, images: NDArray[np.uint8]) -> FeatureStatistics:
    """Return the feature statistics of many images (image, row, column, channel).

    The statistics of :data:`IMAGES_PER_BATCH` images at a time are added up. So the features of all images, 8 kB each by Inception, are
    never in memory together.
    """
    parts = [features_of(extract, images[first : first + IMAGES_PER_BATCH]) for first in range(0, len(images), IMAGES_PER_BATCH)]
    return sum((FeatureStatistics.of(part) for part in parts[1:]), start=FeatureStatistics.of(parts[0]))


def _train_if_needed(recipe: ImageRecipe, directory: Path, images: Images, summary: Summary, overwrite: bool) -> Classifier:
    """Train the classifier into the run directory unless its weights are current; return an untrained network of its shape."""
    channels = images.shape[0]
    count, labels = QUARTER_TURNS, None
    # Labels can be any whole numbers; classes are counted from 0. From a single label nothing is learnt.
    if images.labels is not None and (kinds := np.unique(images.labels)).size > 1:
        count, labels = kinds.size, np.searchsorted(kinds, images.labels)
    torch.manual_seed(0)
    network = Classifier(channels, count)
    if is_current(recipe, directory, CLASSIFIER, overwrite):
        return network
    random, settings = torch.Generator().manual_seed(0), recipe.classifier
    training = Training.of(to_device(network, settings.channels_last), random)
    plan: Plan[Classifier, Labelled] = Plan(
        _batches(images, labels, random),
        lambda model, batch: classifier_loss(model, *batch),
        images.count("train"),
        settings,
        seed=0,
        validate=lambda model: {"error rate": _error_rate(model, images, labels)},
    )
    done = fit_and_write(recipe, directory / CLASSIFIER, training, plan, recipe.training, overwrite)
    error = done.history.validations[-1]["error rate"]
    target = "of the labels" if labels is not None else "of quarter turns, as no labels tell images apart"
    summary.written[str(directory / CLASSIFIER)] = f"{100 * (1 - error):.1f} % right on validation images, {target}"
    return Classifier(channels, count)


def _batches(images: Images, labels: Labels, random: torch.Generator) -> BatchOf[Labelled]:
    """Return the function that makes a training batch; it ignores the slice of the process."""
    first = images.parts["train"].start

    def batch_of(chosen: Tensor, own: slice) -> Labelled:
        return _labelled(images, labels, first + chosen, random, augment=True)

    return batch_of


def _labelled(images: Images, labels: Labels, chosen: Tensor, random: torch.Generator, augment: bool) -> Labelled:
    """Return images at these indices with their classes; without labels they are turned, and the class is the number of quarter turns."""
    batch = images.batch(chosen)
    if augment:
        batch = mirrored(batch, random)
    if labels is not None:
        target = torch.from_numpy(labels[chosen.numpy()])
    else:
        side = min(batch.shape[2:])  # only a square keeps its shape when it is turned
        batch, target = turned(batch[..., :side, :side], random)
    return Labelled(sent(batch, devices.device()), sent(target, devices.device()))


@torch.inference_mode()
def _error_rate(classifier: Classifier, images: Images, labels: Labels) -> float:
    """Return the share of the validation images that are classified wrongly."""
    part, random, wrong = images.parts["validation"], torch.Generator().manual_seed(0), 0
    for chosen in torch.arange(part.start, part.stop).split(IMAGES_PER_BATCH):
        batch, target = _labelled(images, labels, chosen, random, augment=False)
        wrong += int((classifier(batch).argmax(dim=1) != target).sum())
    return wrong / (part.stop - part.start)
