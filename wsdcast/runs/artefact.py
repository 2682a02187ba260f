"""Artefacts: the results of the stages in the run directory.

The stamp of an artefact says which recipe and which inputs it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS, COMMANDS
from wsdcast.runs.old_names import with_new_names
from wsdcast.runs.overrides import Overridden, overridden
from wsdcast.runs.recipes import Experiment, Kind, checked, digest_of, load

IN_A_COPY = "work in a copy of the run directory (--run)"
"""How an artefact of another recipe is kept that is made from others in the run directory, which another directory would lack."""


def resolve(
    recipe: str | Path | Kind | Overridden | None, run: str | Path | None, kind: type[Kind], upstream: str | None = None, **changes: Any
) -> tuple[Kind, Path]:
    """The recipe in force and the run directory.

    Without ``recipe`` the recipe is that of the last artefact in the run directory, in the order of ``kind.CHAIN`` up to ``upstream``; if
    there is none, it is the default recipe. Without ``run`` the directory is ``runs/<recipe name>``.

    Args:
        recipe: path or name of a recipe, the recipe itself, or a recipe with overridden keys.
        run: the run directory.
        kind: class of the recipe.
        upstream: the last artefact that this stage reads.
        changes: keys to change, as for :meth:`Experiment.changed`.

    Raises:
        UserError: if there is no such recipe, a key to change or its value is not allowed, or another version of the package stored a
            recipe with keys that this version does not know.
    """
    values: Mapping[str, Any] = {}
    if isinstance(recipe, Overridden):
        values, recipe = recipe.values, recipe.recipe
    result = recipe if isinstance(recipe, kind) else load(kind.DEFAULT if recipe is None else recipe, kind)
    directory = Path(run) if run is not None else Path("runs") / str(values.get("name", result.name))
    if recipe is None and upstream is not None:
        for artefact in kind.CHAIN[: kind.CHAIN.index(upstream) + 1]:
            if (stamp := read_stamp(directory / artefact)) is not None:
                result = checked(stamp["recipe"], f"recipe of {directory / artefact}", kind)
    return overridden(result, values, changes), directory


def make_stamp(recipe: Experiment, directory: Path, artefact: str, fingerprint: str = "") -> dict[str, Any]:
    """The stamp of an artefact: its recipe, digests of its recipe, its inputs and both together (``id``), and the package's version.

    Args:
        recipe: the recipe in force.
        directory: the run directory, which holds the artefacts that this one is made from. One that is missing counts as made now.
        artefact: name of the artefact.
        fingerprint: a digest of what the artefact is made from if no artefact of the run directory is: the source files of a prepared
            record, or the model file and the initial states of a forecast.
    """
    inputs = fingerprint
    if not fingerprint and (upstream := recipe.upstream(artefact)):
        stamps = [read_stamp(directory / name) or make_stamp(recipe, directory, name) for name in upstream]
        inputs = stamps[0]["id"] if len(stamps) == 1 else digest_of([stamp["id"] for stamp in stamps])
    digest = digest_of(recipe.parts(artefact))
    identity = {"hash": digest, "inputs": inputs, "id": digest_of([digest, inputs])}
    return {"recipe": recipe.dump(), **identity, "version": version("wsdcast")}


def read_stamp(path: Path) -> dict[str, Any] | None:
    """The stamp of an artefact, or None if there is no such artefact.

    Raises:
        UserError: if a file or directory without a stamp is at this path, or a link to nothing, such as a disk that is not mounted.
    """
    if not path.exists():
        if path.is_symlink():
            raise UserError(f"{path}: links to {path.readlink()}, which is not there")
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
    except UnicodeEncodeError:  # of the path, in a locale without its letters
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: in the place of an artefact, but not written by wsdcast; move it away") from None


def is_current(recipe: Experiment, directory: Path, artefact: str, overwrite: bool, fingerprint: str = "") -> bool:
    """Whether an artefact exists and was made from this recipe and these inputs. If False, the stage makes it.

    Raises:
        UserError: if the artefact was made from another recipe or other inputs and ``overwrite`` is False. The message names the first
            difference.
    """
    stamp = read_stamp(directory / artefact)
    if stamp is None:
        return False
    current = make_stamp(recipe, directory, artefact, fingerprint)
    difference = _difference(stamp, current, recipe, artefact, fingerprint)
    if difference and not overwrite:
        choices = "choose another --run, or replace it with --overwrite"
        if recipe.upstream(artefact) and not fingerprint:
            choices = f"replace it with --overwrite, or {IN_A_COPY}"
            if stamp["hash"] != current["hash"]:
                choices = f"repeat the options that it was made with, such as -o, {choices}"
        if artefact == ANALYSIS and stamp["hash"] == current["hash"]:
            choices = f"add newer times with --append, {choices}"
        raise UserError(f"{directory / artefact} was made from {difference}; {choices}")
    return not difference


def is_of(stamp: dict[str, Any], recipe: Experiment, directory: Path, artefact: str) -> bool:
    """Whether ``stamp`` belongs to an artefact made from this recipe and these inputs."""
    return not _difference(stamp, make_stamp(recipe, directory, artefact), recipe, artefact)


def require(recipe: Experiment, directory: Path, artefact: str) -> Path:
    """Path of an artefact that an earlier stage made. Error messages name the command that makes it.

    Raises:
        UserError: if it is missing, or it or what it is made from is of another recipe or of inputs that were replaced since.
    """
    path, command = directory / artefact, _command(recipe, artefact)
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there; run `{command}` first, or choose the directory with --run")
    # Prepared data needs no comparison with its source files, which may no longer exist.
    fingerprint = "" if recipe.upstream(artefact) else stamp["inputs"]
    if difference := _difference(stamp, make_stamp(recipe, directory, artefact, fingerprint), recipe, artefact, fingerprint):
        for name in filter(lambda name: (directory / name).exists(), recipe.upstream(artefact)):
            require(recipe, directory, name)  # the first that differs is the one to begin with
        again = f"`{command} --run {directory} --overwrite` with the same --recipe and -o as here, and so on with the commands after it"
        made_from_another = [name for name in recipe.CHAIN if artefact in recipe.upstream(name) and _is_outdated(recipe, directory, name)]
        without = "leave out"
        if made_from_another:  # its recipe is in force without --recipe and -o
            without = f"run `{_command(recipe, made_from_another[0])} --run {directory} --overwrite` without"
        raise UserError(f"{path} was made from {difference}; run {again}, or {without} --recipe and -o, or choose another --run")
    return path


def _is_outdated(recipe: Experiment, directory: Path, artefact: str) -> bool:
    """Whether an artefact is there, but what it was made from was replaced since."""
    stamp = read_stamp(directory / artefact)
    return stamp is not None and stamp["inputs"] != make_stamp(recipe, directory, artefact)["inputs"]


def _command(recipe: Experiment, artefact: str) -> str:
    """The command that makes an artefact."""
    return " ".join(filter(None, ("wsdcast", recipe.FOLDER, COMMANDS[artefact])))


def _difference(stored: dict[str, Any], current: dict[str, Any], recipe: Experiment, artefact: str, fingerprint: str = "") -> str:
    """The first difference between the stored stamp of an artefact and its current one, in words; empty if they agree.

    A key that an older version did not have counts as having its default value.
    """
    upgraded: Experiment | None = None
    with suppress(UserError):  # this version may not accept the recipe
        upgraded = checked(stored["recipe"], "", type(recipe))
    if stored["hash"] == current["hash"] or (upgraded and upgraded.parts(artefact) == recipe.parts(artefact)):
        changed = next(iter(recipe.upstream(artefact)), "the source files")
        if fingerprint and recipe.upstream(artefact):
            changed = "the model file or the initial states"
        return "" if stored["inputs"] == current["inputs"] else f"other inputs ({changed} changed since)"
    content = upgraded.dump() | upgraded.parts(artefact) if upgraded else stored["recipe"]
    for section, now in recipe.parts(artefact).items():
        before = content.get(section)
        if before == now:
            continue
        if not isinstance(now, dict) or not isinstance(before, dict):
            return f"another recipe ({section}: {_shown(before)} there, {_shown(now)} here)"
        for key in now:
            if before.get(key) != now[key]:
                return f"another recipe ({section}.{key}: {_shown(before.get(key))} there, {_shown(now[key])} here)"
    return "another recipe (of another version of wsdcast)"


def _shown(value: Any) -> Any:
    return "nothing" if value is None else value
