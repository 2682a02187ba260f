"""CIFAR-10 (Krizhevsky 2009) in its binary version: records of one byte for the label and 3072 for the red, green and blue plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import NDArray

from wsdcast.images.data.archives import Content
from wsdcast.runs.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# As in tensorflow_datasets/url_checksums/cifar10.txt of tensorflow/datasets, for 170,052,171 bytes.
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
FILES = {*TRAINING, TEST}
PYTHON_FILES = {name.removesuffix(".bin") for name in FILES}
"""Of the version for Python, whose files are programs for its interpreter and never read."""

SIDE, KINDS = 32, 10
RECORD = 1 + 3 * SIDE**2


def download() -> Path:
    """The archive in the user's cache, downloaded if it is not there.

    Raises:
        UserError: if there is no network, or what comes is not that archive.
    """
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=URL.rpartition("/")[2], path=pooch.os_cache("wsdcast")))
    except (OSError, ValueError) as error:
        why = type(error).__name__ if isinstance(error, OSError) else "what came is not that archive"
        raise UserError(f"cifar10: {URL} cannot be downloaded ({why}); give the path of cifar-10-binary.tar.gz instead") from None


def batches(path: Path, files: Callable[[], Iterator[tuple[str, Content]]]) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """The batches of the folder or archive, in the order in which they are there.

    Args:
        path: of it, for errors.
        files: names and content.

    Yields:
        base name of the file, images (record, row, column, channel), labels (record).

    Raises:
        UserError: if a file is missing, incomplete, or of something else.
    """
    missing = set(FILES)
    for name, content in files():
        base = name.rpartition("/")[2]
        if base not in FILES:
            continue
        if isinstance(content, Exception):
            raise UserError(f"{path}: {name}: {content}")
        read = content.read_bytes() if isinstance(content, Path) else content
        if not read or len(read) % RECORD:
            raise UserError(f"{path}: {name}: {len(read)} bytes are not whole records of {RECORD}; cut short?")
        records = np.frombuffer(read, np.uint8).reshape(-1, RECORD)
        labels = records[:, 0]
        if labels.max() >= KINDS:
            raise UserError(f"{path}: {name}: label {labels.max()}; CIFAR-10 has 0 to {KINDS - 1}")
        yield base, records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels
        missing.discard(base)
    if missing:
        raise UserError(f"{path}: CIFAR-10 without {', '.join(sorted(missing))}")
