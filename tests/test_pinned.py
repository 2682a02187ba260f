"""Numbers of a tiny forecast, its scores and two tiny studies, as they were before the package was laid out anew.

Code that is only moved or renamed must leave them as they are. Whoever changes on purpose what is computed, or the recipes below, renews
them by ``python tests/test_pinned.py``, in the same commit, which says why. A failure that nobody can explain is no reason to renew.

The wind is made here and not by the simulated planet. The planet's flow is chaotic, so another processor, or another BLAS, simulates other
weather. Training amplifies rounding too, but not by much in four steps: hence :data:`TOLERANCE`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app

STORED = Path(__file__).parent / "pinned/numbers.json"
TOLERANCE = 1e-3
"""Relative to a number, plus as much of the mean size of those that it is stored with, for numbers that cancel."""
WHOLE = 40
"""Variables of at most so many values are stored as they are."""
TOGETHER = ("forecast", "prediction_timedelta", "region")
"""Of larger variables, means are stored for each combination of these, and for each label of every other dimension."""

# Recipes of this test alone, so that no change of a shared one moves its numbers.
WIND = """
name: pinned
data: {source: wind.nc, grid: 16x8}
moments: {widths: [8, 8], steps: 4, batch: 4}
generator: {widths: [8, 8], steps: 4, batch: 4}
rollout: {members: 3, nfe: 2, starts: 2, days: 0.5}
study: {seeds: [0], priors: [warm, standard], ablations: [mean-only], nfe: [2, 4], rollout_nfe: [2], leads: [6, 12], starts: 3,
        rollout_starts: 2, members: 3}
"""
IMAGES = """
name: pinned
data: {count: 200, size: 16}
moments: {widths: [8, 8], steps: 4, batch: 4, attention: [1]}
generator: {widths: [8, 8], steps: 4, batch: 4, attention: [1]}
classifier: {steps: 4, batch: 8}
study: {seeds: [0], priors: [warm, standard], ablations: [mean-only], nfe: [2, 4], ablation_nfe: [2], solvers: [midpoint, dpm2],
        visible: [0.05, 0.5], visible_nfe: [2], visible_contexts: 4, contexts: 6, samples: 2, warmths: [0, 1]}
"""


def wind() -> xr.Dataset:
    """A month of waves that travel along latitude circles, with some noise; no symmetry between poles, directions or components."""
    times, latitudes, longitudes = six_hourly("2020-01-01", 120), np.arange(78.75, -90, -22.5), np.arange(0.0, 360.0, 22.5)
    noise = wind_dataset(times, latitudes, longitudes) / 4
    hour, east, north = np.arange(120)[:, None, None] * 6, np.deg2rad(longitudes), np.deg2rad(latitudes)[:, None]
    jet = 12 * np.sin(2 * north) ** 2 + 3 * np.sin(north)
    u = jet * (1 + 0.5 * np.sin(2 * east - hour / 30)) + 4 * np.cos(3 * east + hour / 50)
    v = 6 * np.cos(north) * np.sin(4 * east - hour / 20) - 3 * np.cos(east + hour / 70) * np.sin(north)
    return noise.assign(u10=noise["u10"] + u, v10=noise["v10"] + v).assign_coords(noise.coords)


def make(place: Path) -> None:
    """Run all of it in a directory."""
    wind().to_netcdf(place / "wind.nc")
    (place / "wind.yaml").write_text(WIND.replace("wind.nc", str(place / "wind.nc")))
    (place / "images.yaml").write_text(IMAGES)
    for stage in (wsdcast.prepare, wsdcast.train, wsdcast.rollout, wsdcast.score, wsdcast.study_nfe):
        stage(place / "wind.yaml", place / "wind")
    for words in (("prepare", "--recipe", str(place / "images.yaml")), ("study",)):
        done = CliRunner().invoke(app, ["inpaint", *words, "--run", str(place / "images")], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr


def read(place: Path) -> dict[str, Any]:
    """The numbers of what was made, by file."""
    found = {}
    with xr.open_zarr(place / "wind/forecast.zarr", consolidated=False, decode_timedelta=True) as forecast:
        found["wind/forecast.zarr"] = numbers(forecast.load())
    for name in ("wind/scores.nc", "wind/study.nc", "images/study.nc"):
        with xr.open_dataset(place / name, decode_timedelta=True) as dataset:
            found[name] = numbers(dataset.load())
    return found


def numbers(dataset: xr.Dataset) -> dict[str, Any]:
    """Labels of the coordinates, and of every variable that is no measured time its dimensions, how many values are finite, and values."""
    labels = {str(name): [in_json(label) for label in coordinate.values.ravel()] for name, coordinate in sorted(dataset.coords.items())}
    variables = {str(name): reduced(field) for name, field in sorted(dataset.data_vars.items()) if "seconds" not in str(name)}
    return {"labels": labels, "variables": variables}


def reduced(field: xr.DataArray) -> dict[str, Any]:
    if field.dtype.kind == "m":
        field = field / np.timedelta64(1, "h")
    finite = np.isfinite(field.values.astype(float))
    kept: dict[str, Any] = {"dims": ",".join(map(str, field.dims)), "finite": int(finite.sum())}
    if field.size <= WHOLE:
        return kept | {"values": listed(field.values)}
    joint = [name for name in field.dims if name in TOGETHER]
    for names in [joint] * bool(joint) + [[name] for name in field.dims if name not in TOGETHER]:
        others = tuple(axis for axis, name in enumerate(field.dims) if name not in names)
        total, count = np.where(finite, field.values, 0).sum(axis=others, dtype=float), finite.sum(axis=others)
        kept[",".join(map(str, names))] = listed(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return kept


def listed(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.ravel().astype(float)]


def in_json(label: Any) -> str | float:
    """A label of an axis. Latitudes and wavelengths are rounded: their last digit is no matter."""
    return float(f"{label:.6g}") if isinstance(label, (int, float, np.number)) and not isinstance(label, np.timedelta64) else str(label)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What is not as it was, a line each."""
    lines = [f"{name}: there is none" if name not in found else f"{name}: new" for name in sorted(found.keys() ^ expected.keys())]
    for file in sorted(found.keys() & expected.keys()):
        ours, theirs = found[file], expected[file]
        if ours["labels"] != theirs["labels"]:
            lines += [
                f"{file}: labels of {n}"
                for n in sorted({*ours["labels"], *theirs["labels"]})
                if ours["labels"].get(n) != theirs["labels"].get(n)
            ]
        for name in sorted({*ours["variables"], *theirs["variables"]}):
            one, other = (side["variables"].get(name, {}) for side in (ours, theirs))
            if one.keys() != other.keys():
                lines.append(f"{file}: {name} has {[*one]}, had {[*other]}")
                continue
            for part, before in other.items():
                if not isinstance(before, list):
                    if one[part] != before:
                        lines.append(f"{file}: {name}: {part} is {one[part]}, was {before}")
                    continue
                now, then = (np.array(side, dtype=float) for side in (one[part], before))
                size = np.nanmean(np.abs(then)) if np.isfinite(then).any() else 0.0
                if now.shape != then.shape or not np.allclose(now, then, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True):
                    lines.append(f"{file}: {name} by {part} is {one[part][:8]}, was {before[:8]}")
    return lines


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("pinned")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(place)
    return place


def test_numbers_are_what_they_were(place):
    assert not (lines := differences(read(place), json.loads(STORED.read_text()))), "\n".join(lines)


ENDINGS = {
    "_by_start": {"time"},
    "_by_seed": {"seed"},
    "_interval": {"bound"},
    "_skill": {"reference"},
    "_skill_interval": {"reference", "bound"},
    "_validation": set(),
    "_validation_by_seed": {"seed"},
}
"""Endings of names that docs/schema.md explains once, with the dimensions that they add."""


def documented(text: str) -> dict[str, dict[str, dict[str, tuple[set[str], str]]]]:
    """Names on the page on the schema with their dimensions and units, by section and table."""
    page: dict[str, dict[str, dict[str, tuple[set[str], str]]]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        tables = page[section.splitlines()[0]] = {}
        for part in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
            names = tables[part.splitlines()[0]] = {}
            for line in re.findall(r"^\| (`.*) \|$", part, re.MULTILINE):
                name, *cells = (cell.strip() for cell in line.split(" |"))
                name = name.strip("`")
                assert cells[-1], f"{name} has no sentence"
                endings = re.findall(r"`(\w+)`", cells.pop(0)) if part.startswith("Variables") else []
                dimensions = set(re.findall(r"\w+", cells[0])) if len(cells) > 1 else set()
                for ending in ("", *endings):
                    # A skill has no units, whatever the score has.
                    units = "" if len(cells) == 1 else "1" if "skill" in ending else cells[1]
                    assert f"{name}{ending}" not in names, f"{name}{ending} is there twice"
                    names[f"{name}{ending}"] = (dimensions | ENDINGS.get(ending, set()), units)
    return page


@pytest.fixture(scope="module")
def files(place, tmp_path_factory) -> dict[str, list[xr.Dataset]]:
    """Files of each kind by their section on the page; together they have every name that a file may have but those of FID."""
    copy = tmp_path_factory.mktemp("schema") / "run"
    shutil.copytree(place, copy)
    wind, images = copy / "wind", copy / "images"
    found: dict[str, list[xr.Dataset]] = {}

    def add(section: str, path: Path) -> None:
        with xr.open_dataset(path) as dataset:  # closed at once, because the next run replaces the file
            found.setdefault(section, []).append(dataset.load())

    def inpaint(*words: str) -> None:
        done = CliRunner().invoke(app, ["inpaint", *words, "--run", str(images)], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add("`scores.nc` of wind", wind / "scores.nc")
        with xr.open_zarr(wind / "forecast.zarr", decode_timedelta=True) as forecast:
            forecast.load().drop_attrs().where(forecast.latitude < 60).drop_encoding().to_netcdf(copy / "part.nc")
            forecast.drop_attrs().coarsen(latitude=2, longitude=2).mean().drop_encoding().to_netcdf(copy / "coarse.nc")
        with xr.open_dataset(copy / "wind.nc") as dataset:
            truth = dataset.load()
        truth["u10"][:20] = np.nan
        truth.where(truth.latitude < 60).to_netcdf(copy / "gaps.nc")
        wsdcast.score_forecast(str(copy / "part.nc"), str(copy / "gaps.nc"), copy / "part")
        add("`scores.nc` of wind", copy / "part/scores.nc")
        wsdcast.score_forecast(str(copy / "coarse.nc"), str(copy / "wind.nc"), copy / "coarse")  # the truth is on a finer grid
        add("`scores.nc` of wind", copy / "coarse/scores.nc")
        add("`study.nc` of wind", wind / "study.nc")
        wsdcast.study_nfe(copy / "wind.yaml", wind, priors=["warm", "standard", "features-only"], ablations=[])
        add("`study.nc` of wind", wind / "study.nc")
        add("`study.nc` of images", images / "study.nc")
        inpaint("study", "--recipe", str(copy / "images.yaml"), "--samples", "1", "--ablations", "", "--visible", "")
        add("`study.nc` of images", images / "study.nc")
        inpaint("train", "--recipe", str(copy / "images.yaml"))
        for samples in ("2", "1"):
            few = [word for key in (f"samples={samples}", "contexts=4", "nfe=2") for word in ("-o", f"sample.{key}")]
            for stage in ("sample", "score"):
                inpaint(stage, *few, "--overwrite")
            add("`scores.nc` of images", images / "scores.nc")
    return found


def test_the_schema_page_is_true(files):
    page = documented((Path(__file__).parents[1] / "docs/schema.md").read_text())
    assert page.keys() == files.keys()
    for section, datasets in files.items():
        tables = page[section]
        for kind, names_of in (("Coordinates", "coords"), ("Variables", "data_vars"), ("Attributes", "attrs")):
            present = {str(name) for dataset in datasets for name in getattr(dataset, names_of)}
            assert set(tables[kind]) == present, f"{section}, {kind}: {set(tables[kind]) ^ present}"
        for dataset in datasets:
            for name, field in dataset.variables.items():
                dimensions, units = (tables["Coordinates"] | tables["Variables"])[str(name)]
                assert dimensions == set(field.dims), f"{section}: {name} has {field.dims}"
                assert field.attrs.get("units", units) == units, f"{section}: {name} is in {field.attrs['units']}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory))
        files = read(Path(directory))
    rows = {
        file: {
            kind: "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in part.items()) + "}"
            for kind, part in parts.items()
        }
        for file, parts in files.items()
    }
    text = ",\n".join(
        f"{json.dumps(f)}: {{" + ",\n".join(f"{json.dumps(k)}: {t}" for k, t in parts.items()) + "}" for f, parts in rows.items()
    )
    STORED.write_text("{" + text + "}\n")
