"""Unfinished artefacts: what each is made from (its claim), and which of its parts are complete (its marks).

Both are stored in a directory of marks next to the artefact.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsdcast.runs.artefact import is_current, make_stamp, partial_of
from wsdcast.runs.errors import UserError, first_few
from wsdcast.runs.recipes import Experiment

CLAIM = "claim.json"
"""Name of the claim among the marks."""
TIMES = "times"
"""Name of the mark of an unfinished store of forecasts that holds its initial times."""


def marks_of(partial: Path) -> Path:
    """The directory that holds the claim and the marks of an unfinished artefact."""
    return partial.with_name(f"{partial.stem}.marks")


def claim(partial: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Claim an unfinished artefact, to continue it or to begin it. If it is begun, only the claim is stored, and older files are removed.

    Args:
        partial: path of the unfinished artefact.
        content: what the artefact is made from.
        overwrite: discard an unfinished artefact that is made from something else.

    Raises:
        UserError: if the artefact is made from something else and ``overwrite`` is False.
    """
    text, path = _text(content), marks_of(partial) / CLAIM
    if not partial.exists():  # marks remain if a run was killed after it renamed its artefact and before it removed them
        release(partial)
    if not overwrite:
        require_same_claim(partial, content)
    if path.exists() and path.read_text() != text:
        release(partial)
    if not path.exists():
        shutil.rmtree(partial, ignore_errors=True)
    marks_of(partial).mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def require_same_claim(partial: Path, content: dict[str, Any]) -> None:
    """Check that an unfinished artefact is claimed with the same content, if there is one.

    Raises:
        UserError: if it is made from something else.
    """
    path = marks_of(partial) / CLAIM
    if partial.exists() and path.exists() and path.read_text() != _text(content):
        times = marked(partial, TIMES)
        own = f" or from other initial times (its own: {first_few(times.split())})" if times else ""
        raise UserError(f"{partial} is unfinished and of another recipe{own}; finish it with that one, or discard it with --overwrite")


def claim_of(stamp: dict[str, Any]) -> dict[str, Any]:
    """The content of the claim of an artefact that will get this stamp."""
    return {key: stamp[key] for key in ("hash", "inputs")}


def require_same_recipe(recipe: Experiment, directory: Path, artefacts: Iterable[str], overwrite: bool) -> None:
    """Check that those artefacts of a run directory which are there, finished or not, are made from this recipe, or may be replaced.

    A stage that makes several calls this before it makes the first.

    Raises:
        UserError: if one is not, and ``overwrite`` is False.
    """
    for name in () if overwrite else artefacts:
        if not is_current(recipe, directory, name, overwrite):
            require_same_claim(partial_of(directory / name), claim_of(make_stamp(recipe, directory, name)))


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, default=str)


def release(partial: Path) -> None:
    """Remove the claim and the marks of an artefact that is finished or discarded."""
    shutil.rmtree(marks_of(partial), ignore_errors=True)


def begin_anew(partial: Path) -> None:
    """Remove the content and the marks of an unfinished artefact. Its claim stays."""
    claimed = (marks_of(partial) / CLAIM).read_text()
    release(partial)
    shutil.rmtree(partial, ignore_errors=True)
    for directory in (partial, marks_of(partial)):
        directory.mkdir()
    (marks_of(partial) / CLAIM).write_text(claimed)


def mark(partial: Path, part: str, text: str) -> None:
    """Mark a part as complete. ``text`` says what it is made from."""
    path = marks_of(partial) / part
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(text)
    unfinished.replace(path)


def marked(partial: Path, part: str) -> str | None:
    """The text of a part's mark; None if the part is not complete."""
    path = marks_of(partial) / part
    return path.read_text() if path.exists() else None
