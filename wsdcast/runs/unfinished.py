"""Artefacts that are not finished yet: whose they are, and which of their parts are there.

Both are kept beside the artefact, not in it, in a directory of marks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from wsdcast.runs.errors import UserError


def marks_of(partial: Path) -> Path:
    """The directory of the marks of an unfinished artefact."""
    return partial.with_name(f"{partial.stem}.marks")


def claim(partial: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Take over an unfinished artefact, or begin one, with nothing there but the claim.

    Args:
        partial: where it is.
        content: what it is made from.
        overwrite: whether one that is made from something else may be discarded.

    Raises:
        UserError: if there is such a one.
    """
    text = json.dumps(content, indent=1, default=str)
    path = marks_of(partial) / "claim.json"
    if not partial.exists():  # marks without an artefact are left where a run was killed after its very last step but one
        release(partial)
    if path.exists() and path.read_text() != text:
        if not overwrite:
            raise UserError(f"{partial} is unfinished and of another recipe; finish it with that one, or discard it with --overwrite")
        release(partial)
    if not path.exists():
        shutil.rmtree(partial, ignore_errors=True)
    marks_of(partial).mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def release(partial: Path) -> None:
    """Remove the marks of an artefact, as it is finished or given up."""
    shutil.rmtree(marks_of(partial), ignore_errors=True)


def mark(partial: Path, part: str, text: str) -> None:
    """Say of a part that it is there, and what of."""
    path = marks_of(partial) / part
    beside = path.with_suffix(".partial")
    beside.write_text(text)
    beside.replace(path)


def marked(partial: Path, part: str) -> str | None:
    """What was said of a part, None if it is not there."""
    path = marks_of(partial) / part
    return path.read_text() if path.exists() else None


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block of the same file ``path``, which stays; the system ends a claim with its process."""
    with path.open("a") as file:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
