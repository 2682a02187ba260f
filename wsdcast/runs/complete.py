"""Files and directories that take their names only when they are complete."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsdcast.runs.inputs import require_no_directories
from wsdcast.runs.locks import locked
from wsdcast.runs.resources import in_bytes

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that is full, a quota that is used up and a file that is too large. Python often does not know of which file."""


@contextmanager
def complete(path: Path, resumable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to. The artefact gets its final name ``path`` only when the block ends without an error.

    An old artefact of that name stays until then. A link of that name is replaced, and what it leads to stays: variants of a study share
    networks by links, and one that is trained anew must not change the others'. If the block fails, the temporary files are removed. If
    ``resumable``, they are kept and the next call continues with them.

    Raises:
        UserError: if another process is in such a block with the same path, or a directory is in the place of a file.
    """
    require_no_directories(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), f"another wsdcast command writes {path}; wait for it, or choose another name"):
        yield from _completed(path, resumable)


def _completed(path: Path, resumable: bool) -> Iterator[Path]:
    """What :func:`complete` does while no other process writes the artefact."""
    partial, old = partial_of(path), _old(path)
    recover(path)
    if not resumable:
        _remove(partial)
    _remove(old)
    try:
        yield partial
        if path.is_dir():
            path.replace(old)  # a directory cannot be replaced in one step
        try:
            partial.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
        _remove(old)
    except BaseException as error:
        if not resumable:
            _remove(partial)
        if isinstance(error, OSError) and error.errno in FULL and not error.filename:
            error.filename = str(path)
        raise


@contextmanager
def complete_netcdf(path: Path) -> Iterator[Path]:
    """As :func:`complete`, for one NetCDF file, with the errors of :func:`writing_netcdf`."""
    with complete(path) as partial, writing_netcdf(path):
        yield partial


@contextmanager
def writing_netcdf(path: Path) -> Iterator[None]:
    """Say what cannot be written if the NetCDF library fails in this block, and how much of the disk is free.

    The library reports a full disk by a RuntimeError without a reason or, of a new file, as a lack of permission.

    Raises:
        OSError: if the file cannot be written.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        free = in_bytes(shutil.disk_usage(path.parent).free)
        raise OSError(f"{path}: cannot be written ({reason}; {free} are free on the disk)") from None


def recover(path: Path) -> None:
    """Restore the name of an old artefact if a run was killed between the two renamings of :func:`complete`."""
    if _old(path).exists() and not path.exists():
        _old(path).replace(path)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.stem}.old{path.suffix}")


def partial_of(path: Path) -> Path:
    """The path of an artefact while it is not complete."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
