"""What is left of an image for a network to restore it from: one context maker for each task.

A context (batch, channel + 1, row, column) is the degraded image, in [-1, 1] as the image is, and beside it where the image is known
exactly: 1 there, 0 elsewhere. Every maker takes images (batch, channel, row, column) and the source of what it draws, on their device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ContextMaker = Callable[[Tensor, torch.Generator], Tensor]
"""From images and a source of randomness to contexts."""

Range = tuple[float, float]
"""Between these, for each image anew."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in what the eye takes for brightness (ITU-R BT.601)."""


def masked(images: Tensor, known: Tensor) -> Tensor:
    """The context where some pixels (batch, 1, row, column) are known; the others are 0, mid-grey."""
    known = known.to(images)
    return torch.cat([images * known, known], dim=1)


def inpaint(images: Tensor, random: torch.Generator, visible: Range) -> Tensor:
    """Every pixel is visible with the same probability, which is the share given or drawn from its range (section 5)."""
    share = _between(images, random, visible)
    drawn = torch.rand(images.shape[0], 1, *images.shape[2:], generator=random, device=random.device)
    return masked(images, drawn < share)


def block(images: Tensor, random: torch.Generator, visible: Range) -> Tensor:
    """All is visible but one block of the shape of the image, somewhere in it."""
    batch, _, rows, columns = images.shape
    share = _between(images, random, visible)
    side = (1 - share).sqrt()
    corner = (1 - side) * torch.rand(batch, 2, 1, 1, generator=random, device=random.device)
    row = (torch.arange(rows, device=images.device) + 0.5)[:, None] / rows
    column = (torch.arange(columns, device=images.device) + 0.5)[None, :] / columns
    hidden = (row - corner[:, :1] - side / 2).abs().maximum((column - corner[:, 1:] - side / 2).abs()) < side / 2
    return masked(images, ~hidden)


def super_resolution(images: Tensor, random: torch.Generator, factor: int) -> Tensor:
    """Means over squares of ``factor`` by ``factor`` pixels, each repeated over its square."""
    coarse = F.avg_pool2d(images, factor, ceil_mode=True, count_include_pad=False)
    fine = F.interpolate(coarse, scale_factor=factor, mode="nearest")[..., : images.shape[2], : images.shape[3]]
    return _all_hidden(fine)


def colourise(images: Tensor, random: torch.Generator) -> Tensor:
    """Brightness without colour, the same in every channel."""
    red, green, blue = (weight * images[:, channel, None] for channel, weight in enumerate(LUMA))
    return _all_hidden((red + green + blue).expand_as(images))


def denoise(images: Tensor, random: torch.Generator, noise: Range) -> Tensor:
    """The image with Gaussian noise of a standard deviation given or drawn from its range, 2 being the range of the image."""
    std = _between(images, random, noise)
    return _all_hidden(images + std * torch.randn(images.shape, generator=random, device=random.device))


def told(cards: Tensor, random: torch.Generator) -> Tensor:
    """The class alone, of :meth:`wsdcast.images.data.store.Images.cards`: class-conditional generation (appendix C)."""
    return _all_hidden(cards)


def _all_hidden(degraded: Tensor) -> Tensor:
    return torch.cat([degraded, torch.zeros_like(degraded[:, :1])], dim=1)


def _between(images: Tensor, random: torch.Generator, ends: Range) -> Tensor:
    """One number for each image, (batch, 1, 1, 1)."""
    share = torch.rand(images.shape[0], 1, 1, 1, generator=random, device=random.device)
    return ends[0] + (ends[1] - ends[0]) * share
