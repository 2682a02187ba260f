"""The small classifier whose features the classifier distance compares, trained once on the prepared images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.data.store import Images
from wsdcast.images.features import TURNS, Classifier, classifier_loss, inception, mirrored, turned
from wsdcast.images.frechet import FeatureStatistics
from wsdcast.images.recipe import ImageRecipe
from wsdcast.nets.weights import WEIGHTS, load_network, save_networks, to_device
from wsdcast.runs import devices, processes
from wsdcast.runs.artefact import Summary, is_current, make_stamp
from wsdcast.runs.names import CLASSIFIER
from wsdcast.training.fitting import fitted
from wsdcast.training.loop import BatchOf
from wsdcast.training.state import Training

AT_ONCE = 256

Labels = NDArray[np.int64] | None
"""What is to be told of each image, from 0 on, (image,); without it by how many quarter turns it was turned."""

Extract = Callable[[Tensor], Tensor]
"""From images uint8 (batch, channel, row, column) to features (batch, feature)."""


class Labelled(NamedTuple):
    """Images (batch, channel, row, column) and what is to be told of each, (batch,)."""

    images: Tensor
    labels: Tensor


def extractors(
    recipe: ImageRecipe, directory: Path, images: Images, weights: Path | None, summary: Summary, overwrite: bool
) -> dict[str, Extract]:
    """What makes features, by the name of the distance between them: the classifier's, trained if it is not, and Inception's if given.

    Raises:
        UserError: if the weights cannot be used, or the classifier is of another recipe and may not be overwritten.
    """
    found: dict[str, Extract] = {} if weights is None else {"fid": inception(weights)}
    classifier = load_network(_trained(recipe, directory, images, summary, overwrite), directory / CLASSIFIER)
    return found | {"classifier_distance": lambda some: classifier.features(some.float() / 127.5 - 1)}


def features_of(extract: Extract, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features of images (..., row, column, channel), (..., feature)."""
    flat = images.reshape(-1, *images.shape[-3:])
    parts = [np.array(flat[first : first + AT_ONCE]) for first in range(0, len(flat), AT_ONCE)]
    with torch.inference_mode():
        found = [extract(torch.from_numpy(part).permute(0, 3, 1, 2).to(devices.device())).cpu().numpy() for part in parts]
    return np.concatenate(found).reshape(*images.shape[:-3], -1)


def statistics_of(extract: Extract, images: NDArray[np.uint8]) -> FeatureStatistics:
    """Sums of the features of many images (image, row, column, channel), a part at a time."""
    parts = [features_of(extract, images[first : first + AT_ONCE]) for first in range(0, len(images), AT_ONCE)]
    return sum((FeatureStatistics.of(part) for part in parts[1:]), start=FeatureStatistics.of(parts[0]))


def _trained(recipe: ImageRecipe, directory: Path, images: Images, summary: Summary, overwrite: bool) -> Classifier:
    """The untrained network that fits the weights in the run directory, which are made if they are not there or not current."""
    channels = images.shape[0]
    # Labels may be any numbers.
    kinds, labels = (np.arange(TURNS), None) if images.labels is None else np.unique(images.labels, return_inverse=True)
    torch.manual_seed(0)
    network = Classifier(channels, kinds.size)
    if is_current(recipe, directory, CLASSIFIER, overwrite):
        return network
    random = torch.Generator().manual_seed(0)
    settings, stamp = recipe.classifier, make_stamp(recipe, directory, CLASSIFIER)
    with processes.completed_by_first(directory / CLASSIFIER, stamp, overwrite, "inpaint score") as partial:
        training = Training.of(to_device(network, settings.channels_last), random)
        done = fitted(
            training,
            _batches(images, labels, random),
            lambda model, batch: classifier_loss(model, *batch),
            images.count("train"),
            settings,
            recipe.training,
            partial,
            CLASSIFIER,
            seed=0,
            validate=lambda model: {"error rate": _error_rate(model, images, labels)},
        )
        save_networks({WEIGHTS: done.network}, partial, stamp | {"seconds": done.history.seconds})
    error = done.history.validations[-1]["error rate"]
    what = "the labels" if labels is not None else "quarter turns, as there are no labels"
    summary.written[str(directory / CLASSIFIER)] = f"{100 * (1 - error):.1f} % right on validation images, of {what}"
    return Classifier(channels, kinds.size)


def _batches(images: Images, labels: Labels, random: torch.Generator) -> BatchOf[Labelled]:
    first = images.parts["train"].start

    def batch_of(chosen: Tensor, mine: slice) -> Labelled:
        return _labelled(images, labels, first + chosen, random, augment=True)

    return batch_of


def _labelled(images: Images, labels: Labels, chosen: Tensor, random: torch.Generator, augment: bool) -> Labelled:
    some = images.batch(chosen)
    if augment:
        some = mirrored(some, random)
    if labels is not None:
        told = torch.from_numpy(labels[chosen.numpy()])
    else:
        side = min(some.shape[2:])  # only a square can be turned
        some, told = turned(some[..., :side, :side], random)
    return Labelled(some.to(devices.device()), told.to(devices.device()))


@torch.inference_mode()
def _error_rate(classifier: Classifier, images: Images, labels: Labels) -> float:
    """Share of the validation images of which something else is told than is so."""
    part, random, wrong = images.parts["validation"], torch.Generator().manual_seed(0), 0
    for chosen in torch.arange(part.start, part.stop).split(AT_ONCE):
        some, told = _labelled(images, labels, chosen, random, augment=False)
        wrong += int((classifier(some).argmax(dim=1) != told).sum())
    return wrong / (part.stop - part.start)
