"""Contexts of images as a recipe wants them: drawn anew for every step of training, and fixed ones to look at and to score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

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
from wsdcast.training.batches import Pairs
from wsdcast.training.loop import BatchOf


def maker_of(task: Task, visible: tuple[float, float], noise: tuple[float, float]) -> ContextMaker:
    """How contexts are made."""
    if task.kind == "inpaint":
        return partial(tasks.inpaint, visible=visible)
    if task.kind == "block":
        return partial(tasks.block, visible=visible)
    if task.kind == "super-resolution":
        return partial(tasks.super_resolution, factor=task.factor)
    if task.kind == "class":
        return tasks.told
    return tasks.colourise if task.kind == "colourise" else partial(tasks.denoise, noise=noise)


def training_pairs(images: Images, task: Task, random: torch.Generator) -> BatchOf[Pairs]:
    """Batches of the training part, with contexts drawn for all processes alike."""
    first, make = images.parts["train"].start, maker_of(task, task.visible, task.noise)

    def pairs(chosen: Tensor, mine: slice) -> Pairs:
        target = images.batch(first + chosen, random.device)
        if task.flip:
            mirrored = torch.rand(chosen.numel(), 1, 1, 1, generator=random, device=random.device) < 0.5
            target = torch.where(mirrored, target.flip(-1), target)
        seen = images.cards(first + chosen, random.device) if task.kind == "class" else target
        return Pairs(make(seen, random)[mine], target[mine])

    return pairs


@dataclass(frozen=True)
class FixedContexts:
    """Some images of one part, each with the context that depends on the seed and the image alone.

    What is random is drawn on the CPU, so that it is the same everywhere; what comes of it is where networks are.

    Attributes:
        images: all images.
        chosen: which of them, (image,).
        make: makes contexts.
        seed: of what is drawn for them.
        told: whether contexts are made of the class of an image alone.
    """

    images: Images
    chosen: NDArray[np.int64]
    make: ContextMaker
    seed: int = 0
    told: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image, (channel, row, column)."""
        return self.images.shape

    def __len__(self) -> int:
        return self.chosen.size

    def target(self, some: Tensor) -> Tensor:
        """Some of the images, (batch, channel, row, column)."""
        return self.images.batch(torch.from_numpy(self.chosen[some.numpy()]), devices.device())

    def context(self, some: Tensor) -> Tensor:
        """Their contexts, (batch, channel + 1, row, column)."""
        indices = torch.from_numpy(self.chosen[some.numpy()])
        seen = self.images.cards(indices) if self.told else self.images.batch(indices)
        pairs = zip(seen, indices.tolist(), strict=True)
        return torch.cat([self.make(image[None], _source(self.seed, index)) for image, index in pairs]).to(devices.device())

    def noise(self, some: Tensor, samples: int) -> Tensor:
        """Standard normal noise for each of ``samples`` samples of them, (batch, sample, channel, row, column).

        That of sample m of image n depends on (seed, n, m) alone.
        """
        noise = np.empty((some.numel(), samples, *self.shape), dtype=np.float32)
        for of_image, index in zip(noise, self.chosen[some.numpy()].tolist(), strict=True):
            for sample, item in enumerate(of_image):
                np.random.default_rng([self.seed, index, sample]).standard_normal(out=item, dtype=np.float32)
        return torch.from_numpy(noise).to(devices.device())


def fixed_contexts(
    images: Images, part: Part, task: Task, *, count: int | None = None, visible: float | None = None, seed: int = 0
) -> FixedContexts:
    """The first ``count`` images of a part (all by default) with contexts as they are scored, or of another share of visible pixels.

    Raises:
        UserError: if the task hides nothing of such images, or tells classes that they do not have.
    """
    if told := task.kind == "class":
        _ = images.classes
    if task.kind == "colourise" and images.shape[0] == 1:
        raise UserError("the task colourise hides the colours of images, and these are greyscale; choose another task.kind")
    of_part = images.parts[part]
    share = task.visible_test if visible is None else visible
    chosen = np.arange(of_part.start, of_part.stop)[:count]
    return FixedContexts(images, chosen, maker_of(task, (share, share), (task.noise_test, task.noise_test)), seed, told)


def _source(seed: int, image: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, image]).generate_state(1)[0]))
