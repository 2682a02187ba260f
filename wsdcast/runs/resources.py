"""Disk space and memory: refused in one line before work begins that cannot end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from wsdcast.runs.errors import UserError


def require_space(directory: Path, size: float) -> None:
    """Refuse before hours are spent.

    Raises:
        UserError: if less than ``size`` bytes are free where ``directory`` is to be.
    """
    existing = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(f"{directory}: needs {in_bytes(size)} on disk, but only {in_bytes(free)} are free")


def require_memory(needed: float, what: str) -> None:
    """Refuse what cannot fit in memory before it starts.

    Args:
        needed: bytes, an estimate of the peak.
        what: needs them; it begins the message, such as "the planet at 64x32".

    Raises:
        UserError: if fewer are free.
    """
    free = free_memory()
    if free < needed:
        raise UserError(f"{what} needs {in_bytes(needed)} of memory, but only {in_bytes(free)} are free")


def free_memory() -> int:
    """Bytes that this process can still take: what the system has, and what the limit of its control group leaves (containers, SLURM)."""
    return min([psutil.virtual_memory().available, *_free_in_groups()])


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What each limit leaves of the control groups that this process is in, version 1 or 2, from its own up to the root.

    Pages of files that the system would give back are not counted as taken, as in :func:`psutil.virtual_memory`.
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
                with suppress(OSError, ValueError, KeyError):  # no limit here ("max" is no number), or a path of outside the container
                    statistics = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
                    taken = int((group / used).read_text()) - int(statistics.get("total_inactive_file", statistics["inactive_file"]))
                    yield max(0, int((group / limit).read_text()) - taken)


def in_bytes(size: float) -> str:
    """A number of bytes in the unit that gives it three digits or fewer before the point, such as 4.2 TB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.2g} {unit}" if size < 9.95 and unit != "bytes" else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.2g} TB" if size < 9.95 else f"{size:.0f} TB"
