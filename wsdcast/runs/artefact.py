"""Artefacts: what each stage leaves in the run directory, complete or not at all, and stamped with the recipe it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS
from wsdcast.runs.overrides import Overridden, overridden
from wsdcast.runs.recipes import Experiment, Kind, checked, load, with_new_names


@dataclass
class Summary:
    """What a stage did, for the table at its end or as JSON.

    Attributes:
        stage: its name.
        written: path of each artefact and what it holds; empty if all was current.
        facts: what else a person wants to know.
        scores: rows of the table of scores, for ``score`` and ``study nfe``.
        problems: what stands in the way, for a check alone.
    """

    stage: str
    written: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def resolve(
    recipe: str | Path | Kind | Overridden | None, run: str | Path | None, kind: type[Kind], upstream: str | None = None, **changes: Any
) -> tuple[Kind, Path]:
    """The recipe in force and the run directory.

    Without ``recipe`` it is the one that the newest artefact of the run directory up to ``upstream`` was made from, else the default;
    without ``run`` the directory is ``runs/<recipe name>``.

    Args:
        recipe: path or name of a recipe, or the recipe itself, or one of which keys are changed.
        run: the run directory.
        kind: of recipe.
        upstream: the last artefact that this stage reads.
        changes: keys to change, as for :meth:`Experiment.changed`.

    Raises:
        UserError: if there is no such recipe, or a key to change or its value is not allowed.
    """
    values: Mapping[str, Any] = {}
    if isinstance(recipe, Overridden):
        values, recipe = recipe.values, recipe.recipe
    found = recipe if isinstance(recipe, kind) else load(recipe if isinstance(recipe, str | Path) else kind.DEFAULT, kind)
    directory = Path(run) if run is not None else Path("runs") / str(values.get("name", found.name))
    if recipe is None and upstream is not None:
        for artefact in kind.CHAIN[: kind.CHAIN.index(upstream) + 1]:
            if (stamp := read_stamp(directory / artefact)) is not None:
                found = stored_recipe(stamp, directory / artefact, kind)
    return overridden(found, values, changes), directory


def make_stamp(recipe: Experiment, directory: Path, artefact: str, source: str = "") -> dict[str, Any]:
    """What an artefact says of its origin: the recipe, and the state of what it was made from.

    Args:
        recipe: in force.
        directory: the run directory, where the artefact's upstream is.
        artefact: its name.
        source: what else identifies it: for the prepared record the files it comes from, for others how they were made. What is made
            from an artefact depends on it, the artefact itself stays current.
    """
    stamps = [stamp for name in recipe.upstream(artefact) if (stamp := read_stamp(directory / name))]
    inputs = digest_of([stamp["id"] for stamp in stamps]) if len(stamps) > 1 else stamps[0]["id"] if stamps else source
    digest = digest_of(recipe.parts(artefact))
    whole = [digest, inputs, *([source] if stamps and source else [])]
    return {"recipe": recipe.dump(), "hash": digest, "inputs": inputs, "id": digest_of(whole)}


def digest_of(value: Any) -> str:
    """A short digest of plain values, such as the whole of a recipe."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_stamp(path: Path) -> dict[str, Any] | None:
    """The stamp of an artefact, or None if there is no such artefact.

    Raises:
        UserError: if something without a stamp is in its place.
    """
    if not path.exists():
        return None
    try:
        if path.suffix == ".nc":
            import xarray as xr

            with xr.open_dataset(path) as dataset:
                stamp = json.loads(dataset.attrs["wsdcast"])
        elif path.suffix == ".zarr":
            stamp = json.loads(json.loads((path / "zarr.json").read_text())["attributes"]["wsdcast"])
        else:
            stamp = json.loads((path / "stamp.json").read_text())
        return {key: stamp[key] for key in ("recipe", "hash", "inputs", "id")} | {"recipe": with_new_names(stamp["recipe"])}
    except (OSError, KeyError, ValueError, TypeError):
        raise UserError(f"{path}: in the place of an artefact, but not written by wsdcast; move it away") from None


def stored_recipe(stamp: dict[str, Any], path: Path, kind: type[Kind]) -> Kind:
    """The recipe in a stamp.

    Raises:
        UserError: if another version of the package wrote keys that this one does not know.
    """
    return checked(stamp["recipe"], f"recipe of {path}", kind)


def is_current(recipe: Experiment, directory: Path, artefact: str, overwrite: bool, source: str = "") -> bool:
    """Whether an artefact is there and made from this recipe and these inputs; False means that it is to be made.

    Raises:
        UserError: if one of another origin is there and may not be overwritten; it names the first difference.
    """
    stamp = read_stamp(directory / artefact)
    if stamp is None:
        return False
    difference = _difference(stamp, make_stamp(recipe, directory, artefact, source), recipe, artefact)
    if difference and not overwrite:
        choices = "choose another --run, or replace it with --overwrite"
        if artefact == ANALYSIS and stamp["hash"] == make_stamp(recipe, directory, artefact, source)["hash"]:
            choices = f"add newer times with --append, {choices}"
        raise UserError(f"{directory / artefact} was made from {difference}; {choices}")
    return not difference


def is_of(stamp: dict[str, Any], recipe: Experiment, directory: Path, artefact: str) -> bool:
    """Whether a stamp is that of an artefact made from this recipe and these inputs."""
    return not _difference(stamp, make_stamp(recipe, directory, artefact), recipe, artefact)


def require(recipe: Experiment, directory: Path, artefact: str, command: str) -> Path:
    """Path of an artefact that an earlier stage left.

    Raises:
        UserError: if it is not there, or was made from another recipe or from inputs that were replaced since.
    """
    path = directory / artefact
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there; run `wsdcast {command}` first, or choose the directory with --run")
    # The files behind prepared data may be gone by now; they stand for themselves.
    source = "" if recipe.upstream(artefact) else stamp["inputs"]
    if difference := _difference(stamp, make_stamp(recipe, directory, artefact, source), recipe, artefact):
        raise UserError(f"{path} was made from {difference}; run `wsdcast {command} --overwrite` with this one, or choose another --run")
    return path


def _difference(there: dict[str, Any], here: dict[str, Any], recipe: Experiment, artefact: str) -> str:
    """What differs between two stamps, or nothing. A key that the version before did not have is taken to be at its default there."""
    if there["hash"] == here["hash"] or _upgraded(there, recipe, artefact) == recipe.parts(artefact):
        changed = next(iter(recipe.upstream(artefact)), "the source files")
        return "" if there["inputs"] == here["inputs"] else f"other inputs ({changed} changed since)"
    for section in recipe.parts(artefact):
        before, now = there["recipe"].get(section), here["recipe"][section]
        if before == now:
            continue
        if not isinstance(now, dict) or not isinstance(before, dict):
            return f"another recipe ({section}: {before} there, {now} here)"
        for key in now:
            if before.get(key) != now[key]:
                return f"another recipe ({section}.{key}: {before.get(key)} there, {now[key]} here)"
    return "another recipe (of another version of wsdcast)"


def _upgraded(stamp: dict[str, Any], recipe: Experiment, artefact: str) -> dict[str, Any] | None:
    """The parts of a stamp's recipe as this version would write them; None if it does not know them."""
    try:
        return checked(stamp["recipe"], "", type(recipe)).parts(artefact)
    except UserError:
        return None


@contextmanager
def complete(path: Path, resumable: bool = False) -> Iterator[Path]:
    """A path to write to; what was written takes its final name only when the block ends without an error.

    The old artefact of that name, if any, stays until then. A block that fails leaves nothing behind; or, if ``resumable``, what it has
    written so far, where the next one finds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = partial_of(path), _old(path)
    recover(path)
    if not resumable:
        _remove(partial)
    _remove(old)
    try:
        yield partial
        if path.is_dir():
            path.replace(old)  # a directory cannot be replaced in one go
        try:
            partial.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
        _remove(old)
    except BaseException:
        if not resumable:
            _remove(partial)
        raise


def recover(path: Path) -> None:
    """Give an artefact its name back if a run was killed between the two renamings of :func:`complete`."""
    if _old(path).exists() and not path.exists():
        _old(path).replace(path)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.stem}.old{path.suffix}")


@contextmanager
def alone(directory: Path, command: str) -> Iterator[None]:
    """Keep other processes from doing the same in a run directory; the system ends the claim with the process.

    Raises:
        UserError: if another one is at it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another `wsdcast {command}` is at work in {directory}; wait for it, or choose another --run") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
        with suppress(OSError):
            directory.rmdir()  # if nothing came of it


def partial_of(path: Path) -> Path:
    """Where an artefact is while it is not complete."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
