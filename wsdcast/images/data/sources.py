"""Sources of images: an npz file, a folder, an archive, CIFAR-10, or generated images."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wsdcast.images.data import cifar
from wsdcast.images.data.archives import Content, files_of, shown
from wsdcast.images.data.made import MEMORY, made_image
from wsdcast.runs.errors import UserError

MADE, CIFAR10 = "made", "cifar10"
SUFFIXES = (".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
BYTES_PER_PIECE = 2**24
"""Bytes of an array that are read at a time; one image if that is larger."""

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""The header of an array: its shape, whether it is in column order, and its data type."""


@dataclass(frozen=True)
class Entry:
    """One image that is not decoded yet.

    Attributes:
        name: name of the file or archive member, or the image's number in an array.
        data: uint8 (height, width, channels), or the file.
        label: label of the image, if the source has labels.
        is_test: whether the source has it in a test split of its own.
    """

    name: str
    data: NDArray[np.uint8] | Content
    label: int | None = None
    is_test: bool = False


@dataclass(frozen=True)
class Source:
    """A source of images. They are read one after the other, any number of times, and are never all in memory.

    Attributes:
        name: the name that the user gave.
        entries: returns an iterator over all images, from the first.
        known: number of images and their (height, width, channels), if known without reading each image.
        memory: peak bytes needed to make or read an image, if known, else 0.
    """

    name: str
    entries: Callable[[], Iterator[Entry]]
    known: tuple[int, tuple[int, int, int]] | None = None
    memory: float = 0.0


def open_source(source: str | Path, count: int, size: int | None) -> Source:
    """Open a source of images.

    Args:
        source: ``made`` (see :mod:`wsdcast.images.data.made`); ``cifar10``, which is downloaded once; the path of an npz file with uint8
            images (image, row, column, channel) in ``images`` or in its only 4-D array, with or without ``labels``; or the path of a
            folder, zip or tar archive of images, or of CIFAR-10's binary version.
        count: number of images for ``made``.
        size: pixels per side for ``made``, 32 by default. Other sources ignore it.

    Raises:
        UserError: if the path does not exist or is none of these.
    """
    if str(source) == MADE:
        return _made(count, size or 32)
    path = cifar.download() if str(source) == CIFAR10 else Path(source)
    if not path.exists():
        raise UserError(f"{path}: does not exist; give an npz file, a folder or an archive of images, or {MADE} or {CIFAR10}")
    if path.suffix == ".npz":
        return _npz(path)
    files = partial(files_of, path, _is_wanted)
    first = next((name.rpartition("/")[2] for name, _ in files()), None)
    if first is None:
        raise UserError(f"{path}: no images in it (files that end in {', '.join(SUFFIXES)})")
    if first in cifar.PYTHON_FILES:
        raise UserError(f"{path}: CIFAR-10's version for Python is never read, since that would execute code; use the binary version")
    return Source(str(path), partial(_cifar10 if first in cifar.FILES else _files, path))


def _is_wanted(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) or name.rpartition("/")[2] in cifar.FILES | cifar.PYTHON_FILES


def _files(path: Path) -> Iterator[Entry]:
    for name, content in files_of(path, lambda name: name.lower().endswith(SUFFIXES)):
        yield Entry(name, content)


def _cifar10(path: Path) -> Iterator[Entry]:
    for name, images, labels in cifar.batches(path, partial(files_of, path, lambda name: name.endswith(".bin"))):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield Entry(f"{name}, image {number}", image, int(label), name == cifar.TEST)


def _made(count: int, size: int) -> Source:
    def entries() -> Iterator[Entry]:
        for number in range(count):
            image, label = made_image(number, seed=0, size=size)
            yield Entry(f"image {number}", image, label)

    return Source(MADE, entries, (count, (size, size, 3)), MEMORY * size**2)


def _npz(path: Path) -> Source:
    """Return the images of an npz file, which are read in pieces."""
    try:
        with zipfile.ZipFile(path) as archive:
            headers, members = {}, {}
            for member in archive.namelist():
                with archive.open(member) as stream:
                    headers[name := member.removesuffix(".npy")] = _header(stream)
                members[name] = member
        names = ["images"] if "images" in headers else [name for name, (shape, *_) in headers.items() if len(shape) == 4]
        if len(names) != 1:
            raise UserError(f"{path}: needs an array named images, or exactly one with four axes; has {', '.join(map(shown, headers))}")
        name = names[0]
        shape, in_columns, dtype = headers[name]
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3) or in_columns or 0 in shape:
            raise UserError(
                f"{path}: {shown(name)} is {dtype} {shape}{' in column order' if in_columns else ''}; it must be uint8 of shape "
                "(images, rows, columns, 1 or 3), in row order"
            )
        labels = _labels(path, members["labels"], headers["labels"], shape[0]) if "labels" in headers else None
    except UserError:
        raise
    except Exception as error:  # the parser of headers can raise anything for a damaged file
        raise _damaged(path, error) from None

    images_per_piece = max(1, BYTES_PER_PIECE // math.prod(shape[1:]))

    def entries() -> Iterator[Entry]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(members[name]) as stream:
                _header(stream)
                for begin in range(0, shape[0], images_per_piece):
                    count = min(images_per_piece, shape[0] - begin)
                    piece = np.frombuffer(stream.read(count * math.prod(shape[1:])), np.uint8).reshape(count, *shape[1:])
                    for number, image in enumerate(piece, begin):
                        yield Entry(f"image {number}", image, None if labels is None else int(labels[number]))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise _damaged(path, error) from None

    return Source(str(path), entries, (shape[0], (shape[1], shape[2], shape[3])), 2.0 * images_per_piece * math.prod(shape[1:]))


def _header(stream: IO[bytes]) -> Header:
    """Read the header of an array. No code in it is executed."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # other versions are for arrays with many fields, and their headers can be of any length
        raise ValueError(f"array format {version}")
    return np.lib.format.read_array_header_1_0(stream)


def _labels(path: Path, member: str, header: Header, count: int) -> NDArray[np.int64]:
    """Read the labels, if there is one for each image.

    The number is checked first, since a few kilobytes can unpack to any size. NumPy's default is to execute no code from a file.
    """
    shape, _, dtype = header
    if dtype.kind not in "iu" or shape[:1] != (count,) or math.prod(shape) != count:
        raise UserError(f"{path}: labels are {dtype} {shape}; they must be one whole number for each of {count} images")
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        return np.lib.format.read_array(stream).reshape(-1).astype(np.int64)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not an npz file of arrays, damaged or cut short ({shown(str(error))})")
