"""Helper of the tests: the memory that a process takes for itself, which mapped files do not count to."""

from __future__ import annotations

from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")

needs_linux = pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells a process's own memory from mapped files")


def own_memory() -> int:
    """Return the bytes of the process's own memory: all of its resident memory but the pages of files."""
    sizes = dict(line.split(":") for line in STATUS.read_text().splitlines())
    return 1024 * sum(int(sizes[key].split()[0]) for key in ("RssAnon", "RssShmem"))
