"""The lock that is held while a local file is opened or read.

The libraries of NetCDF and GRIB must not be called by two threads at once, not even for two files. Several threads prepare a record, and a
worker of a user's dask cluster may have several threads that score.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

FILE_LOCK = threading.RLock()


def is_file(address: object) -> bool:
    """Return whether an address is a local file. Directories, URLs and open stores are not."""
    return isinstance(address, str) and "://" not in address and not Path(address).is_dir()


def file_lock(address: object) -> AbstractContextManager[object]:
    """Return the lock for a local file, and none for a store. A thread that holds it can take it again."""
    return FILE_LOCK if is_file(address) else nullcontext()
