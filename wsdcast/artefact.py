"""Artefacts: what each stage leaves in the run directory, complete or not at all, and stamped with the recipe it was made from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsdcast.errors import UserError
from wsdcast.recipe import DEFAULT, Recipe, checked, load_recipe

ANALYSIS, MOMENTS, GENERATOR = "analysis.zarr", "moments", "generator"
FORECAST, MOMENTS_FORECAST, ANIMATION = "forecast.zarr", "moments_forecast.zarr", "forecast.gif"
SCORES, REPORT = "scores.nc", "report.html"

SECTIONS = {
    ANALYSIS: ("data",),
    MOMENTS: ("data", "seed", "moments"),
    GENERATOR: ("data", "seed", "moments", "generator"),
    FORECAST: ("data", "seed", "moments", "generator", "rollout"),
    MOMENTS_FORECAST: ("data", "seed", "moments", "rollout"),
    SCORES: ("data", "seed", "moments", "generator", "rollout"),
}
"""The parts of a recipe that an artefact depends on; a change elsewhere leaves it current."""


@dataclass
class Summary:
    """What a stage did, for the table at its end or as JSON.

    Attributes:
        stage: its name.
        written: path of each artefact and what it holds; empty if all was current.
        facts: what else a person wants to know.
        scores: rows of the score table, for ``score`` alone.
    """

    stage: str
    written: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)


def resolve(recipe: str | Path | None, run: str | Path | None, upstream: str | None = None, **changes: Any) -> tuple[Recipe, Path]:
    """The recipe in force and the run directory.

    Without ``recipe`` it is the one that the newest artefact of the run directory up to ``upstream`` was made from, else the default;
    without ``run`` the directory is ``runs/<recipe name>``.

    Args:
        recipe: path or name of a recipe.
        run: the run directory.
        upstream: the last artefact that this stage reads.
        changes: keys to change, as for :meth:`Recipe.changed`.
    """
    found = load_recipe(recipe if recipe is not None else DEFAULT)
    directory = Path(run) if run is not None else Path("runs") / found.name
    if recipe is None and upstream is not None:
        chain = (ANALYSIS, GENERATOR, FORECAST)
        for artefact in chain[: chain.index(upstream) + 1]:
            if (stamp := read_stamp(directory / artefact)) is not None:
                found = stored_recipe(stamp, directory / artefact)
    return found.changed(**changes), directory


def make_stamp(recipe: Recipe, artefact: str) -> dict[str, Any]:
    """What an artefact says of its origin."""
    parts = {name: value for name, value in recipe.dump().items() if name in SECTIONS[artefact]}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return {"recipe": recipe.dump(), "hash": digest}


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
        return {"recipe": stamp["recipe"], "hash": stamp["hash"]}
    except (OSError, KeyError, ValueError, TypeError):
        raise UserError(f"{path}: in the place of an artefact, but not written by wsdcast; move it away") from None


def stored_recipe(stamp: dict[str, Any], path: Path) -> Recipe:
    """The recipe in a stamp.

    Raises:
        UserError: if another version of the package wrote keys that this one does not know.
    """
    return checked(stamp["recipe"], f"recipe of {path}")


def is_current(recipe: Recipe, directory: Path, artefact: str, overwrite: bool) -> bool:
    """Whether an artefact is there and made from this recipe; False means that it is to be made.

    Raises:
        UserError: if one made from another recipe is there and may not be overwritten, naming the first key that differs.
    """
    stamp = read_stamp(directory / artefact)
    if stamp is None:
        return False
    if stamp["hash"] == make_stamp(recipe, artefact)["hash"]:
        return True
    if overwrite:
        return False
    raise UserError(
        f"{directory / artefact} was made from another recipe ({_difference(stamp['recipe'], recipe, artefact)}); "
        "choose another --run, or replace it with --overwrite"
    )


def require(recipe: Recipe, directory: Path, artefact: str, command: str) -> Path:
    """Path of an artefact that an earlier stage left.

    Raises:
        UserError: if it is not there or was made from another recipe.
    """
    path = directory / artefact
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f"{path} is not there; run `wsdcast {command}` first, or choose the directory with --run")
    if stamp["hash"] != make_stamp(recipe, artefact)["hash"]:
        raise UserError(
            f"{path} was made from another recipe ({_difference(stamp['recipe'], recipe, artefact)}); "
            f"run `wsdcast {command}` again with this one, or choose another --run"
        )
    return path


def _difference(there: dict[str, Any], here: Recipe, artefact: str) -> str:
    now = here.dump()
    for section in SECTIONS[artefact]:
        if there.get(section) == now[section]:
            continue
        if not isinstance(now[section], dict):
            return f"{section}: {there.get(section)} there, {now[section]} here"
        for key in now[section]:
            if there[section].get(key) != now[section][key]:
                return f"{section}.{key}: {there[section].get(key)} there, {now[section][key]} here"
    return "a key that this version does not know"


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes its final name only when the block ends without an error.

    The old artefact of that name, if any, stays until then. A block that fails leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    _remove(partial)
    try:
        yield partial
        old = path.with_name(f".{path.stem}.old{path.suffix}")
        _remove(old)
        if path.is_dir():
            path.replace(old)  # a directory cannot be replaced in one go
        partial.replace(path)
        _remove(old)
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_space(directory: Path, size: int) -> None:
    """Refuse before hours are spent.

    Raises:
        UserError: if less than ``size`` bytes are free where ``directory`` is to be.
    """
    existing = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UserError(f"{directory}: needs {size / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free")
