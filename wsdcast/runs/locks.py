"""Locks between processes. The system releases those of a process that ends, in whatever way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from wsdcast.runs.errors import UserError


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Lock a run directory, so that no other run works in it at the same time.

    Raises:
        UserError: if another process holds the lock, or the directory is a file.
    """
    if directory.is_file():
        raise UserError(f"{directory}: is a file, not a directory")
    with locked(directory, f"another wsdcast command is at work in {directory}; wait for it, or choose another --run"):
        yield


@contextmanager
def locked(directory: Path, refusal: str) -> Iterator[None]:
    """Lock a directory, which is created if needed, and removed in the end if it is empty.

    Raises:
        UserError: with the message ``refusal``, if another process holds the lock.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if directory.suffix == ".lock":  # the user knows the file, not its lock
            error.filename = str(directory.with_name(directory.stem.removeprefix(".")))
        raise
    descriptor = None if fcntl is None else os.open(directory, os.O_RDONLY)
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A process that has just ended its block may have removed the directory; then this lock keeps nobody out.
                if not os.path.samestat(os.fstat(descriptor), directory.stat()):
                    raise FileNotFoundError
            except (BlockingIOError, FileNotFoundError):
                raise UserError(refusal) from None
            except OSError:  # the file system has no locks
                pass
        try:
            yield
        finally:
            with suppress(OSError):
                directory.rmdir()  # this succeeds only if the directory is empty
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Lock the file ``path``: wait until no other process is in a block with the same file.

    The file is created and not removed.
    """
    with path.open("a") as file:
        if fcntl is not None:
            with suppress(OSError):  # the file system has no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
