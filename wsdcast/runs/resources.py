"""Free disk space and memory. Checks stop a run with one clear line before it starts work that it cannot finish."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import DTypeLike

from wsdcast.runs.errors import UserError


def require_space(directory: Path, size: float) -> None:
    """Check that the disk has room, before hours are spent.

    Raises:
        UserError: if fewer than ``size`` bytes are free on the disk of ``directory``, which need not exist yet.
    """
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(f"{directory}: needs {in_bytes(size)} on disk, but only {in_bytes(free)} are free")


def size_of(path: Path) -> int:
    """Bytes of all files of a directory; 0 if there is none. A file that also has a name elsewhere takes no room here."""
    return sum(file.st_size for name in path.rglob("*") if name.is_file() and (file := name.stat()).st_nlink == 1)


def new_mapped(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """Make a file (.npy) of an array that is mapped into memory. The disk reserves all of its bytes.

    Else the process would end without a message if another one fills the disk before all is written.

    Raises:
        OSError: if the disk has no room for it.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def require_memory(needed: float, what: str) -> None:
    """Check that memory is large enough, before a task starts.

    Args:
        needed: bytes, an estimate of the peak.
        what: names the task; it begins the message, such as "the planet at 64x32".

    Raises:
        UserError: if fewer bytes are free.
    """
    free = free_memory()
    if free < needed:
        raise UserError(f"{what} needs {in_bytes(needed)} of memory, but only {in_bytes(free)} are free")


def free_memory() -> int:
    """Bytes that this process can still take.

    This is the smaller of the system's free memory and the memory that the limits of its control groups leave (containers, SLURM).
    """
    return min([psutil.virtual_memory().available, *_free_in_groups()])


def return_freed_memory() -> None:
    """Give memory that this process has freed back to the system.

    The C library of most Linux systems keeps freed memory, separately for groups of threads (``man 3 malloc_trim``). What one thread has
    freed, another cannot use, so a process with many threads grows although it holds no more. Other systems have no such function, and
    there this does nothing.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library, such as musl
            ctypes.CDLL(None).malloc_trim(0)


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Free bytes under the limit of each control group of this process (version 1 or 2), from its own group up to the root.

    Cached file pages that the system can reclaim do not count as taken, as in :func:`psutil.virtual_memory`.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, limit, used = root, "memory.max", "memory.current"
        if controllers:
            base, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        own = base / path.lstrip("/")
        for group in (own, *own.parents):
            if group.is_relative_to(base):
                # An error means that this group has no limit ("max" is not a number), or that its path lies outside the container.
                with suppress(OSError, ValueError, KeyError):
                    statistics = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
                    taken = int((group / used).read_text()) - int(statistics.get("total_inactive_file", statistics["inactive_file"]))
                    yield max(0, int((group / limit).read_text()) - taken)


def in_bytes(size: float) -> str:
    """A number of bytes in words, such as 4.2 TB, in the unit that leaves at most three digits before the point."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.2g} {unit}" if size < 9.95 and unit != "bytes" else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2g} TB" if size < 9.95 else f"{size:.0f} TB"
