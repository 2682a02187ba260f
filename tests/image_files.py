"""Helpers of the tests: write images to files of every kind, and read them."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from wsdcast.images.data import cifar, store
from wsdcast.images.data.decoding import decoded, survey
from wsdcast.images.data.made import made_image
from wsdcast.images.data.sources import Entry, open_source
from wsdcast.images.recipe import ImageData

CIFAR10 = SHARED / "cifar10"
needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10 is not part of the repository; expected in ../shared/data")


def most_memory(action: Callable[[], object]) -> int:
    """Return the largest number of bytes that were allocated at a time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def made_images(count: int, seed: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return the first synthetic images, (count, size, size, 3), and their kinds, (count,)."""
    images, kinds = zip(*(made_image(number, seed, size) for number in range(count)), strict=True)
    return np.stack(images), np.array(kinds)


def prepare_images(out: Path, source: str | Path, test: Path | None = None, **options) -> dict[str, object]:
    """Prepare images with these keys of the section ``data``. Values that a recipe refuses are allowed, such as few images to make."""
    data = ImageData(source=str(source), test=None if test is None else str(test))
    return store.prepare_images(out, data.model_copy(update=options))


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def folder_of(path: Path, images: np.ndarray) -> Path:
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        (path / f"{number:03}.png").write_bytes(encoded(image))
    return path


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path: Path, crop: int | None = None, size: int | None = None) -> tuple[list[Entry], list[np.ndarray | str]]:
    source = open_source(path, 0, None)
    pairs = list(decoded(source, crop, size, survey(source, crop, size)[1], "most are"))
    return [entry for entry, _ in pairs], [image for _, image in pairs]


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def cifar_members(count: int = 4) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, list[int]]]]:
    """Return the files of CIFAR-10's archive, written pixel by pixel, and their images and labels."""
    members, truth = {}, {}
    for number, name in enumerate((*cifar.TRAINING, cifar.TEST)):
        images = noise(count, 32, 32, 3, seed=number)
        labels = [(number + record) % 10 for record in range(count)]
        content = bytearray()
        for image, label in zip(images, labels, strict=True):
            content.append(label)
            for channel in range(3):
                for row in range(32):
                    content.extend(int(image[row, column, channel]) for column in range(32))
        members[f"cifar-10-batches-bin/{name}"] = bytes(content)
        truth[name] = (images, labels)
    return members | {"cifar-10-batches-bin/readme.html": b"", "cifar-10-batches-bin/batches.meta.txt": b""}, truth
