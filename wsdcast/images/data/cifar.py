"""CIFAR-10 (Krizhevsky 2009) in its binary version. A record has one byte for the label and 3072 for the red, green and blue plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pooch
from numpy.typing import NDArray

from wsdcast.images.data.archives import Content
from wsdcast.runs.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# The checksum is that of tensorflow_datasets/url_checksums/cifar10.txt of tensorflow/datasets, for 170,052,171 bytes.
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
FILES = {*TRAINING, TEST}
PYTHON_FILES = {name.removesuffix(".bin") for name in FILES}
"""Files of the version for Python. They are never read: they are pickles, and reading them would execute code."""

SIDE, KINDS = 32, 10
RECORD = 1 + 3 * SIDE**2


def download() -> Path:
    """Return the path of the archive in the user's cache; download it if it is missing.

    Raises:
        UserError: if it cannot be downloaded, or the downloaded file has another checksum.
    """
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=URL.rpartition("/")[2], path=pooch.os_cache("wsdcast")))
    except (OSError, ValueError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else "wrong checksum"
        raise UserError(f"cifar10: {URL} cannot be downloaded ({reason}); give the path of cifar-10-binary.tar.gz instead") from None


def batches(path: Path, files: Callable[[], Iterator[tuple[str, Content]]]) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield the batches of the folder or archive, in the order in which ``files`` returns them.

    Yields:
        Base name of the file, images (record, row, column, channel), labels (record,).

    Raises:
        UserError: if a file is missing, incomplete or not of CIFAR-10.
    """
    missing = set(FILES)
    for name, content in files():
        base = name.rpartition("/")[2]
        if base not in FILES:
            continue
        if isinstance(content, Exception):
            raise UserError(f"{path}: {name}: {content}")
        stored = content.read_bytes() if isinstance(content, Path) else content
        if not stored or len(stored) % RECORD:
            raise UserError(f"{path}: {name}: {len(stored)} bytes are not whole records of {RECORD}; cut short?")
        records = np.frombuffer(stored, np.uint8).reshape(-1, RECORD)
        labels = records[:, 0]
        if labels.max() >= KINDS:
            raise UserError(f"{path}: {name}: label {labels.max()}; CIFAR-10 has 0 to {KINDS - 1}")
        yield base, records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels
        missing.discard(base)
    if missing:
        raise UserError(f"{path}: CIFAR-10 without {', '.join(sorted(missing))}")
