"""Unfinished artefacts: what each is made from (its claim), and which of its parts are complete (its marks).

Both are stored in a directory of marks next to the artefact.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wsdcast.runs.artefact import is_current, make_stamp
from wsdcast.runs.complete import partial_of
from wsdcast.runs.errors import UserError, first_few
from wsdcast.runs.recipes import Experiment

CLAIM = "claim.json"
"""Name of the claim among the marks."""


def marks_of(partial: Path) -> Path:
    """The directory that holds the claim and the marks of an unfinished artefact."""
    return partial.with_name(f"{partial.stem}.marks")


def claim(partial: Path, content: dict[str, Any], overwrite: bool) -> None:
    """Claim an unfinished artefact, to continue it or to begin it. If it is begun, only the claim is stored, and older files are removed.

    If ``overwrite``, an unfinished artefact that is made from something else is discarded.

    Raises:
        UserError: as :func:`require_same_claim`, if ``overwrite`` is False.
    """
    if not overwrite:
        require_same_claim(partial, content)
    # If a run was killed while it removed them, marks are there without an artefact or without a claim.
    if not partial.exists() or marked(partial, CLAIM) is None or _claimed_otherwise(partial, content) is not None:
        release(partial)
        shutil.rmtree(partial, ignore_errors=True)
    marks_of(partial).mkdir(parents=True, exist_ok=True)
    mark(partial, CLAIM, json.dumps(content, indent=1))


def require_same_claim(partial: Path, content: dict[str, Any]) -> None:
    """Check that an unfinished artefact is claimed with the same content, if there is one.

    Raises:
        UserError: if it is made from something else. The message names the lists of its claim.
    """
    if partial.exists() and (claimed := _claimed_otherwise(partial, content)) is not None:
        lists = "; ".join(f"{key}: {first_few(map(str, value))}" for key, value in claimed.items() if isinstance(value, list))
        own = f" or other settings (its own {lists})" if lists else ""
        raise UserError(f"{partial} is unfinished and of another recipe{own}; finish it with that one, or discard it with --overwrite")


def _claimed_otherwise(partial: Path, content: dict[str, Any]) -> dict[str, Any] | None:
    """The claim of an unfinished artefact if it differs in something that both have, else None. Older versions claimed less.

    A claim that is no JSON object differs, and is returned as empty. Older versions left claims that were cut short on a full disk.
    """
    text, own = marked(partial, CLAIM), json.loads(json.dumps(content))
    try:
        claimed = own if text is None else json.loads(text)
        differs = any(claimed[key] != own[key] for key in claimed.keys() & own.keys())
    except (ValueError, AttributeError):
        return {}
    return claimed if differs else None


def claim_of(stamp: dict[str, Any]) -> dict[str, Any]:
    """The content of the claim of an artefact that will get this stamp: what its recipe and its inputs are."""
    return {key: value for key, value in stamp.items() if key not in ("recipe", "id", "version")}


def require_same_recipe(recipe: Experiment, directory: Path, artefacts: Iterable[str], overwrite: bool) -> None:
    """Check that those artefacts of a run directory which are there, finished or not, are made from this recipe, or may be replaced.

    A stage that makes several calls this before it makes the first.

    Raises:
        UserError: if one is not, and ``overwrite`` is False.
    """
    for name in () if overwrite else artefacts:
        if not is_current(recipe, directory, name, overwrite):
            require_same_claim(partial_of(directory / name), claim_of(make_stamp(recipe, directory, name)))


def release(partial: Path) -> None:
    """Remove the claim and the marks of an artefact that is finished or discarded."""
    shutil.rmtree(marks_of(partial), ignore_errors=True)


def mark(partial: Path, part: str, text: str) -> None:
    """Mark a part as complete. ``text`` says what it is made from."""
    path = marks_of(partial) / part
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(text)
    unfinished.replace(path)


def marked(partial: Path, part: str) -> str | None:
    """The text of a part's mark; None if the part is not complete. A damaged mark has a text that nobody wrote."""
    path = marks_of(partial) / part
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
