"""Contexts of images: new random ones for every training step, and fixed ones for validation, pictures and scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.data import tasks
from wsdcast.images.data.store import Images, Part
from wsdcast.images.data.tasks import ContextMaker
from wsdcast.images.recipe import Task
from wsdcast.runs import devices
from wsdcast.runs.errors import UserError
from wsdcast.sampling.noise import seeded_noise
from wsdcast.training.batches import Pairs
from wsdcast.training.loop import BatchOf


def maker_of(task: Task, visible: tuple[float, float], noise: tuple[float, float]) -> ContextMaker:
    """Return the function that makes contexts for a task.

    ``visible`` and ``noise`` are the ranges of the share of visible pixels and of the standard deviation of noise, for the tasks that have
    them.
    """
    makers: dict[str, ContextMaker] = {
        "inpaint": partial(tasks.inpaint, visible=visible),
        "block": partial(tasks.block, visible=visible),
        "super-resolution": partial(tasks.super_resolution, factor=task.factor),
        "colourise": tasks.colourise,
        "denoise": partial(tasks.denoise, noise=noise),
        "class": tasks.class_only,
    }
    return makers[task.kind]


def training_pairs(images: Images, task: Task, random: torch.Generator) -> BatchOf[Pairs]:
    """Return the function that makes a batch of training images with new contexts.

    Every process makes the contexts of the whole batch, so that all draw the same random numbers; it returns its own slice.
    """
    first, make = images.parts["train"].start, maker_of(task, task.visible, task.noise)

    def pairs(chosen: Tensor, own: slice) -> Pairs:
        target = images.batch(first + chosen, random.device)
        if task.flip:
            mirrored = torch.rand(chosen.numel(), 1, 1, 1, generator=random, device=random.device) < 0.5
            target = torch.where(mirrored, target.flip(-1), target)
        shown = images.class_images(first + chosen, random.device) if task.kind == "class" else target
        return Pairs(make(shown, random)[own], target[own])

    return pairs


@dataclass(frozen=True)
class FixedContexts:
    """Images of one split with fixed contexts: each context depends only on the seed and the image.

    Random numbers are drawn on the CPU, so that they are the same on every device. Returned tensors are on the device of the networks.

    Attributes:
        images: all prepared images.
        chosen: indices of the images used here, (image,).
        make: makes contexts.
        seed: seed of the random part of contexts, and of noise.
        shows_class: whether a context shows only the class of the image.
    """

    images: Images
    chosen: NDArray[np.int64]
    make: ContextMaker
    seed: int
    shows_class: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, (channel, row, column)."""
        return self.images.shape

    def __len__(self) -> int:
        return self.chosen.size

    def target(self, positions: Tensor) -> Tensor:
        """Return the images at these positions in ``chosen``, (batch, channel, row, column)."""
        return self.images.batch(torch.from_numpy(self.chosen[positions.numpy()]), devices.device())

    def context(self, positions: Tensor) -> Tensor:
        """Return the contexts at these positions, (batch, channel + 1, row, column)."""
        indices = torch.from_numpy(self.chosen[positions.numpy()])
        shown = self.images.class_images(indices) if self.shows_class else self.images.batch(indices)
        pairs = zip(shown, indices.tolist(), strict=True)
        return torch.cat([self.make(image[None], _source(self.seed, index)) for image, index in pairs]).to(devices.device())

    def noise(self, positions: Tensor, samples: int, noise_count: int = 1) -> Tensor:
        """Return standard normal noise for ``samples`` samples of each context, (batch, sample, noise_count * channel, row, column).

        The noise of sample m of image n depends only on (seed, n, m), and its draw d only on (seed, n, m, d).
        """
        images, (channels, *sides) = self.chosen[positions.numpy()].tolist(), self.shape
        seeds = ([self.seed, image, sample] for image, sample in product(images, range(samples)))
        noise = seeded_noise(seeds, (noise_count * channels, *sides))
        return noise.unflatten(0, (len(images), samples)).to(devices.device())


def fixed_contexts(
    images: Images, part: Part, task: Task, *, count: int | None = None, visible: float | None = None, seed: int = 0
) -> FixedContexts:
    """Return the first ``count`` images of a split (default: all) with contexts as the recipe's test settings want them.

    ``visible`` takes the place of ``task.visible_test``. The seed is that of the random part of contexts, and of noise.

    Raises:
        UserError: if the task needs colours or classes and the images have none.
    """
    if shows_class := task.kind == "class":
        _ = images.classes  # raises if there are none
    if task.kind == "colourise" and images.shape[0] == 1:
        raise UserError("the task colourise needs colour images, and these are greyscale; choose another task.kind")
    of_part = images.parts[part]
    share = task.visible_test if visible is None else visible
    chosen = np.arange(of_part.start, of_part.stop)[:count]
    return FixedContexts(images, chosen, maker_of(task, (share, share), (task.noise_test, task.noise_test)), seed, shows_class)


def _source(seed: int, image: int) -> torch.Generator:
    """Return the random generator for the context of one image."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, image]).generate_state(1)[0]))
