"""Prepared images: one file that is mapped into memory, in three parts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsdcast.images.data.archives import shown
from wsdcast.images.data.decoding import LEAST, NAMED, Shape, decoded, survey
from wsdcast.images.data.sources import Source, open_source
from wsdcast.runs.devices import sent
from wsdcast.runs.errors import UserError
from wsdcast.runs.progress import track
from wsdcast.runs.resources import require_memory, require_space

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

IMAGES, LABELS, ABOUT = "images.npy", "labels.npy", "about.json"


@dataclass(frozen=True)
class Images:
    """Prepared images.

    Attributes:
        images: uint8 (image, row, column, channel), mapped into memory.
        labels: the kind of each, int64 (image,); None if that is not known.
        parts: which of them are for training, validation and testing.
        about: where they come from and what was done to them.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    parts: Mapping[Part, slice]
    about: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of each."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    def count(self, part: Part) -> int:
        """How many images a part has."""
        return self.parts[part].stop - self.parts[part].start

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Some of them as float32 (image, channel, row, column) from -1 to 1.

        Args:
            indices: whole numbers (image,).
            device: to which only their bytes are copied.
        """
        chosen = sent(torch.from_numpy(self.images[indices.cpu().numpy()]), torch.device(device))
        return chosen.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()

    @cached_property
    def classes(self) -> tuple[NDArray[np.int64], Tensor]:
        """The class of each image, numbered from 0, and a colour for each class, (class, channel) from -1 to 1, that tells it from others.

        Raises:
            UserError: if the images have no labels, or a class has no image for training.
        """
        if self.labels is None:
            raise UserError("classes are told by labels, and these images have none")
        labels, kinds = np.unique(self.labels, return_inverse=True)
        if absent := set(range(labels.size)) - set(kinds[self.parts["train"]].tolist()):
            raise UserError(f"no image for training has the label {labels[min(absent)]}, which others have")
        channels = self.shape[0]
        levels = max(2, math.ceil(labels.size ** (1 / channels) - 1e-9))
        digits = torch.arange(labels.size)[:, None] // levels ** torch.arange(channels) % levels
        return kinds, 2 * digits / (levels - 1) - 1

    def cards(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """For some images, as for :meth:`batch`, one of the same shape all in the colour of their class, and nothing else of them."""
        kinds, colours = self.classes
        chosen = sent(colours[torch.from_numpy(kinds[indices.cpu().numpy()])], torch.device(device))
        return chosen[:, :, None, None].expand(-1, *self.shape).contiguous()


def prepare_images(
    path: Path,
    source: str | Path,
    test: str | Path | None = None,
    *,
    size: int | None = None,
    crop: int | None = None,
    count: int = 6000,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Write ``images.npy``, ``labels.npy`` where there are labels, and ``about.json`` into a new directory.

    Images are put in the order of a digest of their pixels: as good as random, and the same whatever their files are called and in which
    order they come. The first ones are for training, then come those for validation, then those for testing.

    Args:
        path: the directory.
        source: as for :func:`wsdcast.images.data.sources.open_source`.
        test: a source of images to test with; by default the source's own test part, or ``test_share`` of it.
        size: pixels a side that images are resized to.
        crop: pixels a side that are kept at the centre before.
        count: how many to make, for ``made``.
        validation_share: of the images that are not for testing.
        test_share: of all images, where the source has no test part of its own.
        skip_bad: leave out images that cannot be used.

    Returns:
        What a person wants to know of it.

    Raises:
        UserError: if a source or an image cannot be used, there are too few, or no room for them on disk or in memory.
    """
    for name, share in (("validation", validation_share), ("test", test_share)):
        if not 0 < share < 1:
            raise UserError(f"the {name} share is {share}; it must be between 0 and 1")
    for name, pixels in (("size", size), ("crop", crop)):
        if pixels is not None and pixels < LEAST:
            raise UserError(f"the {name} is {pixels} pixels; it must be at least {LEAST}")
    sources = [open_source(source, count, size), *([open_source(test, count, size)] if test is not None else [])]
    surveys = [survey(each, crop, size) for each in sources]
    total, shape = sum(number for number, _ in surveys), surveys[0][1]
    # Of one image as it is made or read, cropped and resized; of all what is kept beside their pixels.
    needed = max(each.memory for each in sources) + 16 * math.prod(shape) + 150 * total
    require_memory(needed, f"preparing {total} images of {shape[1]}x{shape[0]}")
    require_space(path, 2 * total * math.prod(shape))
    path.mkdir(parents=True, exist_ok=True)
    raw = path / "images.raw"
    found = _Found()
    with raw.open("wb") as file:
        for image in track(_usable(sources, shape, crop, size, found), "decoding", total):
            file.write(image.tobytes())
    if found.problems and not skip_bad:
        count_of = f"{' and '.join(each.name for each in sources)}: {len(found.problems)} of {total} images"
        raise UserError(f"{count_of} cannot be used: {_listed(found.problems, NAMED)} (--skip-bad leaves them out)")
    digests, for_test = np.array(found.digests, np.uint64), np.array(found.for_test, bool)
    if test is not None and not for_test.any():
        raise UserError(f"{sources[1].name}: none of its images can be used: {'; '.join(found.problems[-NAMED:])}")
    sizes, order = _divided(digests, for_test, validation_share, test_share)
    _rearranged(raw, path / IMAGES, order, shape)
    raw.unlink()
    labels = np.array(found.labels, np.int64)[order] if found.labels and None not in found.labels else None
    if labels is not None:
        np.save(path / LABELS, labels)
    about = {
        "source": str(source),
        "test": None if test is None else str(test),
        "crop": crop,
        "size": size,
        "parts": sizes,
        "skipped": found.problems,
    }
    (path / ABOUT).write_text(json.dumps(about, indent=1))
    training, held_out = np.split(digests[order], [sizes["train"]])
    repeated = int(np.isin(held_out[-sizes["test"] :], training).sum())
    return {
        "source": " and ".join(each.name for each in sources),
        "images": ", ".join(f"{sizes[part]} for {_PURPOSES[part]}" for part in PARTS),
        "pixels": f"{shape[1]}x{shape[0]}, {'colour' if shape[2] == 3 else 'greyscale'}",
        "kinds": "not known" if labels is None else np.unique(labels).size,
        "held-out images that are also in the training part": repeated,
        **({"left out": f"{len(found.problems)}: {_listed(found.problems, 20)}"} if found.problems else {}),
    }


_PURPOSES = {"train": "training", "validation": "validation", "test": "testing"}


def _listed(problems: list[str], most: int) -> str:
    return "; ".join([*problems[:most], *(["..."] if len(problems) > most else [])])


@dataclass
class _Found:
    """What is kept of each usable image beside its pixels, and why others are not usable."""

    digests: list[int] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    for_test: list[bool] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _usable(sources: list[Source], shape: Shape, crop: int | None, size: int | None, found: _Found) -> Iterator[NDArray[np.uint8]]:
    for number, source in enumerate(sources):
        others = "the training images are" if number else "most are"
        for entry, image in decoded(source, crop, size, shape, others):
            if isinstance(image, str):
                found.problems.append(f"{shown(entry.name)}: {image}")
                continue
            if number == 0 and len(sources) == 2 and entry.is_test:
                raise UserError(f"{source.name} has test images of its own; leave the other source of them out")
            found.digests.append(int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little"))
            found.labels.append(entry.label)
            found.for_test.append(number == 1 or entry.is_test)
            yield image


def _divided(
    digests: NDArray[np.uint64], for_test: NDArray[np.bool_], validation_share: float, test_share: float
) -> tuple[dict[Part, int], NDArray[np.intp]]:
    """Sizes of the parts, and the order in which images are in them one after the other."""
    order = np.argsort(digests, stable=True)
    rest, test = order[~for_test[order]], order[for_test[order]]
    if not test.size:
        rest, test = np.split(rest, [rest.size - max(1, round(test_share * rest.size))])
    validation = max(1, round(validation_share * rest.size))
    if rest.size <= validation:
        raise UserError(f"{digests.size} usable images are too few for training, validation and testing")
    return {"train": rest.size - validation, "validation": validation, "test": test.size}, np.concatenate([rest, test])


def _rearranged(raw: Path, path: Path, order: NDArray[np.intp], shape: Shape) -> None:
    """Write images from a file without header as an npy file in another order."""
    size = math.prod(shape)
    with raw.open("rb", buffering=0) as source, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (order.size, *shape)})
        for place in track(order.tolist(), "arranging", order.size):
            source.seek(place * size)
            file.write(source.read(size))


def open_images(path: Path) -> Images:
    """Prepared images.

    Raises:
        UserError: if they are not there, or not as they were written.
    """
    try:
        about = json.loads((path / ABOUT).read_text())
        sizes = [about["parts"][part] for part in PARTS]
        images = np.load(path / IMAGES, mmap_mode="r")
        labels = np.load(path / LABELS) if (path / LABELS).exists() else None
        ends = np.cumsum([0, *sizes])
        if images.dtype != np.uint8 or images.ndim != 4 or min(sizes) < 1 or len(images) != ends[-1]:
            raise ValueError(f"{IMAGES} is {images.dtype} {images.shape}")
        if labels is not None and (labels.dtype != np.int64 or labels.shape != images.shape[:1]):
            raise ValueError(f"{LABELS} is {labels.dtype} {labels.shape}")
    except Exception as error:  # whatever the parsers of headers and JSON meet in a damaged file
        raise UserError(f"{path}: no images that wsdcast prepared, or damaged ({shown(str(error))})") from None
    parts = {part: slice(int(begin), int(end)) for part, begin, end in zip(PARTS, ends[:-1], ends[1:], strict=True)}
    return Images(images, labels, parts, about)
