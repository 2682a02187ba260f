"""Prepared images: one file that is mapped into memory, with the splits train, validation and test."""

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
from wsdcast.images.data.decoding import PROBLEMS_SHOWN, Shape, decoded, survey
from wsdcast.images.data.sources import Source, open_source
from wsdcast.images.recipe import ImageData
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
        labels: label of each image, int64 (image,); None if there are none.
        parts: the images of each split.
        about: the source, and how the images were prepared.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    parts: Mapping[Part, slice]
    about: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (channels, height, width)."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def size(self) -> str:
        """The size of one image in words, COLUMNSxROWS."""
        return f"{self.shape[2]}x{self.shape[1]}"

    def count(self, part: Part) -> int:
        """Return the number of images in a split."""
        return self.parts[part].stop - self.parts[part].start

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Return the images at these indices as float32 (image, channel, row, column) from -1 to 1.

        Args:
            indices: whole numbers (image,).
            device: device of the result. Bytes are copied to it and converted there.
        """
        chosen = sent(torch.from_numpy(self.images[indices.cpu().numpy()]), torch.device(device))
        return chosen.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()

    @cached_property
    def classes(self) -> tuple[NDArray[np.int64], Tensor]:
        """The class of each image, counted from 0, (image,); and a unique colour for each class, (class, channel) from -1 to 1.

        Raises:
            UserError: if the images have no labels, or a class has no training image.
        """
        if self.labels is None:
            raise UserError("classes come from labels, and these images have no labels")
        labels, classes = np.unique(self.labels, return_inverse=True)
        if absent := set(range(labels.size)) - set(classes[self.parts["train"]].tolist()):
            raise UserError(f"validation or test images have the label {labels[min(absent)]}, which no training image has")
        channels = self.shape[0]
        levels = max(2, math.ceil(labels.size ** (1 / channels) - 1e-9))
        digits = torch.arange(labels.size)[:, None] // levels ** torch.arange(channels) % levels
        return classes, 2 * digits / (levels - 1) - 1

    def class_images(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Return for each image at these indices an image of the same shape, all in the colour of its class; otherwise as :meth:`batch`."""
        classes, colours = self.classes
        chosen = sent(colours[torch.from_numpy(classes[indices.cpu().numpy()])], torch.device(device))
        return chosen[:, :, None, None].expand(-1, *self.shape).contiguous()


def prepare_images(path: Path, data: ImageData) -> dict[str, Any]:
    """Write ``images.npy``, ``about.json`` and, if there are labels, ``labels.npy`` into a new directory; return facts about them.

    Images are sorted by a digest of their pixels. This order is as good as random, and it does not depend on file names or on the order of
    the source. The training images come first, then the validation images, then the test images.

    Raises:
        UserError: if a source or an image cannot be used, there are too few images, or disk or memory cannot hold them.
    """
    size, crop = data.size, data.crop
    sources = [open_source(source, data.count, size) for source in (data.source, data.test) if source is not None]
    surveys = [survey(each, crop, size) for each in sources]
    total, shape = sum(number for number, _ in surveys), surveys[0][1]
    # Bytes to read or make one image, to crop and resize it, and for what is kept of each image in memory: digest, label and split.
    needed = max(each.memory for each in sources) + 16 * math.prod(shape) + 150 * total
    require_memory(needed, f"preparing {total} images of {shape[1]}x{shape[0]}")
    require_space(path, 2 * total * math.prod(shape))
    path.mkdir(parents=True, exist_ok=True)
    raw = path / "images.raw"
    records = _Records()
    with raw.open("wb") as file:
        for image in track(_usable(sources, shape, crop, size, records), "decoding", total):
            file.write(image.tobytes())
    if records.problems and not data.skip_bad:
        count_of = f"{' and '.join(each.name for each in sources)}: {len(records.problems)} of {total} images"
        raise UserError(f"{count_of} cannot be used: {_listed(records.problems, PROBLEMS_SHOWN)} (--skip-bad leaves them out)")
    digests, for_test = np.array(records.digests, np.uint64), np.array(records.for_test, bool)
    if data.test is not None and not for_test.any():
        raise UserError(f"{sources[1].name}: none of its images can be used: {'; '.join(records.problems[-PROBLEMS_SHOWN:])}")
    sizes, order = _divided(digests, for_test, data.validation_share, data.test_share)
    _rearranged(raw, path / IMAGES, order, shape)
    raw.unlink()
    labels = np.array(records.labels, np.int64)[order] if records.labels and None not in records.labels else None
    if labels is not None:
        np.save(path / LABELS, labels)
    about = {"source": data.source, "test": data.test, "crop": crop, "size": size, "parts": sizes, "skipped": records.problems}
    (path / ABOUT).write_text(json.dumps(about, indent=1))
    training, held_out = np.split(digests[order], [sizes["train"]])
    repeated = int(np.isin(held_out[-sizes["test"] :], training).sum())
    return {
        "source": " and ".join(each.name for each in sources),
        "images": ", ".join(f"{sizes[part]} for {_PURPOSES[part]}" for part in PARTS),
        "pixels": f"{shape[1]}x{shape[0]}, {'colour' if shape[2] == 3 else 'greyscale'}",
        "kinds": "not known" if labels is None else np.unique(labels).size,
        "test images that are also in the training split": repeated,
        **({"left out": f"{len(records.problems)}: {_listed(records.problems, 20)}"} if records.problems else {}),
    }


_PURPOSES = {"train": "training", "validation": "validation", "test": "testing"}


def _listed(problems: list[str], most: int) -> str:
    """Return the first ``most`` problems on one line."""
    return "; ".join([*problems[:most], *(["..."] if len(problems) > most else [])])


@dataclass
class _Records:
    """Digest, label and split of each usable image, and the reason why each other image cannot be used."""

    digests: list[int] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    for_test: list[bool] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _usable(sources: list[Source], shape: Shape, crop: int | None, size: int | None, records: _Records) -> Iterator[NDArray[np.uint8]]:
    """Yield the usable images of the sources, and add what is known of each image to ``records``."""
    for number, source in enumerate(sources):
        others = "the training images are" if number else "most are"
        for entry, image in decoded(source, crop, size, shape, others):
            if isinstance(image, str):
                records.problems.append(f"{shown(entry.name)}: {image}")
                continue
            if number == 0 and len(sources) == 2 and entry.is_test:
                raise UserError(f"{source.name} has test images of its own; leave out the other source of test images")
            records.digests.append(int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "little"))
            records.labels.append(entry.label)
            records.for_test.append(number == 1 or entry.is_test)
            yield image


def _divided(
    digests: NDArray[np.uint64], for_test: NDArray[np.bool_], validation_share: float, test_share: float
) -> tuple[dict[Part, int], NDArray[np.intp]]:
    """Return the number of images in each split, and the indices of all images in the order train, validation, test."""
    order = np.argsort(digests, stable=True)
    remaining, test = order[~for_test[order]], order[for_test[order]]
    if not test.size:
        remaining, test = np.split(remaining, [remaining.size - max(1, round(test_share * remaining.size))])
    validation = max(1, round(validation_share * remaining.size))
    if remaining.size <= validation:
        raise UserError(f"{digests.size} usable images are too few for training, validation and testing")
    return {"train": remaining.size - validation, "validation": validation, "test": test.size}, np.concatenate([remaining, test])


def _rearranged(raw: Path, path: Path, order: NDArray[np.intp], shape: Shape) -> None:
    """Write the images of a file without header into an npy file in another order."""
    size = math.prod(shape)
    with raw.open("rb", buffering=0) as source, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (order.size, *shape)})
        for index in track(order.tolist(), "arranging", order.size):
            source.seek(index * size)
            file.write(source.read(size))


def open_images(path: Path) -> Images:
    """Open the prepared images of a directory.

    Raises:
        UserError: if they are missing or damaged.
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
    except Exception as error:  # the parsers of headers and JSON can raise anything for a damaged file
        raise UserError(f"{path}: not images that wsdcast prepared, or damaged ({shown(str(error))})") from None
    parts = {part: slice(int(begin), int(end)) for part, begin, end in zip(PARTS, ends[:-1], ends[1:], strict=True)}
    return Images(images, labels, parts, about)
