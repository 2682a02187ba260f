"""Tasks: one function for each, which makes the contexts that a network restores images from.

A function has the name of its task, but it does the reverse: ``inpaint`` hides the pixels that the network fills in, ``super_resolution``
coarsens images, ``colourise`` takes their colours away, ``denoise`` adds noise.

A context (batch, channel + 1, row, column) consists of the degraded image, with the image's range of [-1, 1], and a mask in the last
channel, which is 1 at visible pixels, which have the value of the image, and 0 at hidden ones, which do not. Every function takes images
(batch, channel, row, column) and a random generator, both on the same device. "The paper" is *Warm Starts Accelerate Conditional
Diffusion*.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ContextMaker = Callable[[Tensor, torch.Generator], Tensor]
"""A function from images and a random generator to contexts."""

Range = tuple[float, float]
"""A value is drawn uniformly from this range for each image."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in perceived brightness (ITU-R BT.601)."""


def masked(images: Tensor, visible: Tensor) -> Tensor:
    """Return the context in which the pixels ``visible`` (batch, 1, row, column) are shown; the hidden ones are 0, mid-grey."""
    mask = visible.to(images)
    return torch.cat([images * mask, mask], dim=1)


def inpaint(images: Tensor, random: torch.Generator, visible: Range) -> Tensor:
    """Show every pixel of an image with the same probability, which is drawn from the range ``visible`` (section 5 of the paper)."""
    share = _between(images, random, visible)
    drawn = torch.rand(images.shape[0], 1, *images.shape[2:], generator=random, device=random.device)
    return masked(images, drawn < share)


def block(images: Tensor, random: torch.Generator, visible: Range) -> Tensor:
    """Hide one block at a random place; it has the image's aspect ratio, and ``visible`` is the range of the share outside it."""
    batch, _, rows, columns = images.shape
    share = _between(images, random, visible)
    side = (1 - share).sqrt()
    corner = (1 - side) * torch.rand(batch, 2, 1, 1, generator=random, device=random.device)
    row = (torch.arange(rows, device=images.device) + 0.5)[:, None] / rows
    column = (torch.arange(columns, device=images.device) + 0.5)[None, :] / columns
    hidden = (row - corner[:, :1] - side / 2).abs().maximum((column - corner[:, 1:] - side / 2).abs()) < side / 2
    return masked(images, ~hidden)


def super_resolution(images: Tensor, random: torch.Generator, factor: int) -> Tensor:
    """Replace every square of ``factor`` by ``factor`` pixels by its mean."""
    coarse = F.avg_pool2d(images, factor, ceil_mode=True, count_include_pad=False)
    fine = F.interpolate(coarse, scale_factor=factor, mode="nearest")[..., : images.shape[2], : images.shape[3]]
    return _all_hidden(fine)


def colourise(images: Tensor, random: torch.Generator) -> Tensor:
    """Replace the colours by their brightness, the same in every channel."""
    red, green, blue = (weight * images[:, channel, None] for channel, weight in enumerate(LUMA))
    return _all_hidden((red + green + blue).expand_as(images))


def denoise(images: Tensor, random: torch.Generator, noise: Range) -> Tensor:
    """Add Gaussian noise; its standard deviation is drawn from the range ``noise``, in units in which the image's range is 2."""
    std = _between(images, random, noise)
    return _all_hidden(images + std * torch.randn(images.shape, generator=random, device=random.device))


def class_only(class_images: Tensor, random: torch.Generator) -> Tensor:
    """Show only the class: class-conditional generation (appendix C of the paper).

    Args:
        class_images: instead of images, those of :meth:`wsdcast.images.data.store.Images.class_images`.
        random: not used.
    """
    return _all_hidden(class_images)


def _all_hidden(degraded: Tensor) -> Tensor:
    """Return the context of a degraded image without visible pixels."""
    return torch.cat([degraded, torch.zeros_like(degraded[:, :1])], dim=1)


def _between(images: Tensor, random: torch.Generator, ends: Range) -> Tensor:
    """Draw one number for each image uniformly between ``ends``, (batch, 1, 1, 1)."""
    share = torch.rand(images.shape[0], 1, 1, 1, generator=random, device=random.device)
    return ends[0] + (ends[1] - ends[0]) * share
