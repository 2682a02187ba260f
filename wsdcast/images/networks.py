"""The moments network and the generator of appendix B for images, and the prior that each recipe names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsdcast.images.data.store import Images
from wsdcast.images.recipe import ImageGenerator, ImageMomentsNetwork, ImageRecipe
from wsdcast.nets.unet import UNet, unet_of
from wsdcast.nets.weights import load_network
from wsdcast.runs import devices
from wsdcast.runs.artefact import require
from wsdcast.runs.names import GENERATOR, MOMENTS
from wsdcast.warmstart.moments import MINIMUM_STD, MomentsModel, Std
from wsdcast.warmstart.paths import STRAIGHT, Path, cosine_transform, path_of
from wsdcast.warmstart.prior import PRIOR_MAKERS, Moments, PriorOf, fixed_moments, frozen_prior, standard_moments

CHUNK = 1024
"""Images that are read at a time."""


class ImageMoments(MomentsModel):
    """The moments network h_phi for images. A visible pixel has its own value as mean and the minimum std.

    If the network had to predict visible pixels, Eq. 5 would weigh an error there by 1 / std^2, ten thousand times an error of the size of
    the image's range, and a network that trains for minutes would learn little else. With ``known_pixels=False`` the network predicts
    visible pixels too, as in the paper. This is so for every choice of ``std``.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        known_pixels: bool,
        maximum_std: float,
        std: Std,
    ) -> None:
        super().__init__(network, channels, maximum_std=maximum_std, std=std)
        self.known_pixels = known_pixels

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, each (batch, channels, row, column), for contexts (batch, channels + 1, row, column)."""
        mean, std = super().forward(context)
        if not self.known_pixels:
            return mean, std
        visible = context[:, -1:] == 1
        return torch.where(visible, context[:, :-1], mean), std.masked_fill(visible, MINIMUM_STD)


def moments_model(settings: ImageMomentsNetwork, channels: int) -> ImageMoments:
    """Return an untrained moments network h_phi for images with this number of channels."""
    body = unet_of(settings, channels + 1, settings.fields * channels, sphere=False)
    return ImageMoments(body, channels, settings.known_pixels, settings.highest_std, settings.std)


def generator_model(settings: ImageGenerator, channels: int) -> UNet:
    """Return an untrained generator p'_theta. It reads the state, the context and the prior's features."""
    return unet_of(settings, channels + (channels + 1) + 2 * channels, settings.heads * channels, scalars=2, sphere=False)


def image_path(settings: ImageGenerator, images: Images) -> Path:
    """Return the path of a generator of images."""
    return path_of(settings.followed_path, settings.bnr, partial(cosine_transform, *images.shape[1:], devices.device(), torch.float32))


def fixed_moments_of(recipe: ImageRecipe, images: Images) -> Moments:
    """Return the moments of a prior without a moments network (appendix C of the paper).

    The prior standard has mean 0 and std 1. The others have the mean and standard deviation of each pixel over training images:
    class-climatology over those of the class that the context shows, climatology over all.
    """
    if recipe.generator.prior == "standard":
        return standard_moments(images.shape[0])
    if recipe.generator.prior == "class-climatology":
        classes, colours = images.classes
        return moments_by_class(*_climatology(images, classes), colours.to(devices.device()))
    return fixed_moments(*(field[0] for field in _climatology(images, np.zeros(len(images.images), np.int64))))


def _climatology(images: Images, classes: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of each pixel over the training images of each class, each (class, channel, row, column)."""
    part, count = images.parts["train"], np.zeros(classes.max() + 1)
    total, squares = np.zeros((2, count.size, *images.images.shape[1:]))
    for first in range(part.start, part.stop, CHUNK):
        chosen = slice(first, min(first + CHUNK, part.stop))
        values = images.images[chosen] / 127.5 - 1
        for label in np.unique(classes[chosen]):
            of_class = values[classes[chosen] == label]
            count[label] += len(of_class)
            total[label] += of_class.sum(axis=0)
            squares[label] += (of_class**2).sum(axis=0)
    mean, mean_square = (sums / count[:, None, None, None] for sums in (total, squares))
    std = np.sqrt(np.maximum(mean_square - mean**2, MINIMUM_STD**2))
    fields = (torch.from_numpy(field.astype(np.float32)).permute(0, 3, 1, 2) for field in (mean, std))
    return tuple(field.to(devices.device()) for field in fields)  # type: ignore[return-value]


def moments_by_class(mean: Tensor, std: Tensor, colours: Tensor) -> Moments:
    """Return a function from contexts to the moments of their class. A context is all in the colour of its class.

    Args:
        mean, std: moments of each class, (class, channel, ...).
        colours: the colour of each class, (class, channel). All three are on the device of the contexts.
    """

    def moments(context: Tensor) -> tuple[Tensor, Tensor]:
        colour = context[:, None, : colours.shape[1], 0, 0]
        nearest = (colour - colours).square().sum(dim=2).argmin(dim=1)
        return mean[nearest].to(context.dtype), std[nearest].to(context.dtype)

    return moments


@dataclass(frozen=True)
class Trained:
    """The trained networks of a run.

    Attributes:
        generator: p'_theta.
        moments: h_phi, or the fixed moments of a prior without a moments network.
        prior_of: returns the prior for a context.
        path: the path that the generator was trained on.
    """

    generator: nn.Module
    moments: Moments
    prior_of: PriorOf
    path: Path = STRAIGHT


def trained(recipe: ImageRecipe, directory: FilePath, images: Images) -> Trained:
    """Load the networks of a run directory.

    Raises:
        UserError: if they are missing or were made from another recipe.
    """
    generator = load_network(generator_model(recipe.generator, images.shape[0]), require(recipe, directory, GENERATOR))
    moments: Moments
    if recipe.generator.needs_moments_network:
        path = require(recipe, directory, MOMENTS)
        moments = load_network(moments_model(recipe.moments, images.shape[0]), path)
    else:
        moments = fixed_moments_of(recipe, images)
    return Trained(generator, moments, frozen_prior(moments, PRIOR_MAKERS[recipe.generator.prior]), image_path(recipe.generator, images))
