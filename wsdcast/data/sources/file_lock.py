"""The lock that is held while a local file is opened or read.

The libraries of NetCDF and GRIB must not be called by two threads at once, not even for two files. Several threads prepare a record, and a
worker of a user's dask cluster may have several threads that score.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from wsdcast.runs.errors import UserError, first_line

FILE_LOCK = threading.RLock()


def is_file(address: object) -> bool:
    """Return whether an address is a local file. Directories, URLs and open stores are not."""
    return isinstance(address, str) and "://" not in address and not Path(address).is_dir()


def file_lock(address: object) -> AbstractContextManager[object]:
    """Return the lock for a local file, and none for a store. A thread that holds it can take it again."""
    return FILE_LOCK if is_file(address) else nullcontext()


@contextmanager
def reading_values(address: object, what: str) -> Iterator[None]:
    """Hold :func:`file_lock` while values are read, and say ``what`` they are if they cannot be read.

    Raises:
        UserError: in the place of any other error but a lack of memory.
    """
    with file_lock(address):
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # formats and servers cause errors of many types
            raise UserError(f"{what} cannot be read ({first_line(error)})") from None
