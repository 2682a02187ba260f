"""The numbers of a tiny forecast, its scores and two tiny studies equal stored ones. The page on the schema lists what the files hold.

Moving or renaming code must not change the numbers. A commit that changes on purpose what is computed, or the recipes below, writes new
numbers with ``python tests/test_pinned.py`` and says why. Do not write new ones after a failure that nobody can explain.

The wind is a formula and not the simulated planet. The planet's flow is chaotic, so another processor or BLAS simulates other weather.
Training amplifies rounding errors too, but little in four steps. :data:`TOLERANCE` allows for that.
"""

from __future__ import annotations

import itertools
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
from conftest import six_hourly, undrawn, wind_dataset
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app

STORED = Path(__file__).parent / "pinned/numbers.json"
TOLERANCE = 1e-3
"""Relative to each number, plus the same share of the mean absolute value in its list, for numbers near zero."""
WHOLE = 40
"""Variables with at most this many values are stored completely."""
TOGETHER = ("forecast", "prediction_timedelta", "region")
"""Larger variables are stored as means: for each combination of these dimensions, and for each label of every other dimension."""

# Only this test uses these recipes, so that changes of shared recipes do not change the numbers.
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


PAGES = ("study.weather.write_study_page", "study.images.write_image_study_page")


def wind() -> xr.Dataset:
    """Return a month of waves that travel along latitude circles, with noise. They have no symmetry between poles or components."""
    times, latitudes, longitudes = six_hourly("2020-01-01", 120), np.arange(78.75, -90, -22.5), np.arange(0.0, 360.0, 22.5)
    noise = wind_dataset(times, latitudes, longitudes) / 4
    hour, east, north = np.arange(120)[:, None, None] * 6, np.deg2rad(longitudes), np.deg2rad(latitudes)[:, None]
    jet = 12 * np.sin(2 * north) ** 2 + 3 * np.sin(north)
    u = jet * (1 + 0.5 * np.sin(2 * east - hour / 30)) + 4 * np.cos(3 * east + hour / 50)
    v = 6 * np.cos(north) * np.sin(4 * east - hour / 20) - 3 * np.cos(east + hour / 70) * np.sin(north)
    return noise.assign(u10=noise["u10"] + u, v10=noise["v10"] + v).assign_coords(noise.coords)


def write_all(directory: Path) -> None:
    """Write the forecast, the scores and the studies."""
    wind().to_netcdf(directory / "wind.nc")
    (directory / "wind.yaml").write_text(WIND.replace("wind.nc", str(directory / "wind.nc")))
    (directory / "images.yaml").write_text(IMAGES)
    for stage in (wsdcast.prepare, wsdcast.train, wsdcast.rollout, wsdcast.score, wsdcast.study_nfe):
        stage(directory / "wind.yaml", directory / "wind")
    for words in (("prepare", "--recipe", str(directory / "images.yaml")), ("study",)):
        done = CliRunner().invoke(app, ["inpaint", *words, "--run", str(directory / "images")], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr


def read(directory: Path) -> dict[str, Any]:
    """Return the numbers to compare, by file."""
    by_file = {}
    with xr.open_zarr(directory / "wind/forecast.zarr", consolidated=False, decode_timedelta=True) as forecast:
        by_file["wind/forecast.zarr"] = numbers(forecast.load())
    for name in ("wind/scores.nc", "wind/study.nc", "images/study.nc"):
        with xr.open_dataset(directory / name, decode_timedelta=True) as dataset:
            by_file[name] = numbers(dataset.load())
    return by_file


def numbers(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the labels of the coordinates, and the dimensions, the number of finite values and values of each variable.

    Variables with measured times are left out.
    """
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
    """Return a label of an axis. Numbers are rounded, because their last digit does not matter."""
    return float(f"{label:.6g}") if isinstance(label, (int, float, np.number)) and not isinstance(label, np.timedelta64) else str(label)


def differences(current: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return one line for each difference."""
    lines = [f"{name}: there is none" if name not in current else f"{name}: new" for name in sorted(current.keys() ^ expected.keys())]
    for file in sorted(current.keys() & expected.keys()):
        ours, theirs = current[file], expected[file]
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


@pytest.fixture(scope="module", autouse=True)
def without_pages():
    """Write empty pages and an empty animation, because drawing them takes as long as computing the numbers."""
    with undrawn("animation", "report"), pytest.MonkeyPatch.context() as patched:
        for page in PAGES:
            patched.setattr(f"wsdcast.{page}", lambda path, *arguments, **more: path.write_text(""))
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("pinned")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_all(directory)
    return directory


def test_numbers_equal_the_stored_ones(directory):
    assert not (lines := differences(read(directory), json.loads(STORED.read_text()))), "\n".join(lines)


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
    """Return the names on the page with their dimensions and units, by section and table."""
    page: dict[str, dict[str, dict[str, tuple[set[str], str]]]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        tables = page[section.splitlines()[0]] = {}
        for part in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
            names = tables[part.splitlines()[0]] = {}
            for line in re.findall(r"^\| (`.*) \|$", part, re.MULTILINE):
                first, *cells = (cell.strip() for cell in line.split(" |"))
                assert cells[-1], f"{first} has no sentence"
                endings = re.findall(r"`(\w+)`", cells.pop(0)) if part.startswith("Variables") else []
                dimensions = set(re.findall(r"\w+", cells[0])) if len(cells) > 1 else set()
                for name, ending in itertools.product(re.findall(r"`(\w+)`", first), ("", *endings)):
                    # A skill has no units, even if its score has.
                    units = "" if len(cells) == 1 else "1" if "skill" in ending else cells[1]
                    assert f"{name}{ending}" not in names, f"{name}{ending} is there twice"
                    names[f"{name}{ending}"] = (dimensions | ENDINGS.get(ending, set()), units)
    return page


@pytest.fixture(scope="module")
def files(directory, tmp_path_factory) -> dict[str, list[xr.Dataset]]:
    """Return files of each kind by their section on the page. Together they have every name that a file can have, except those of FID."""
    copy = tmp_path_factory.mktemp("schema") / "run"
    shutil.copytree(directory, copy)
    wind, images = copy / "wind", copy / "images"
    datasets: dict[str, list[xr.Dataset]] = {}

    def add(section: str, path: Path) -> None:
        with xr.open_dataset(path) as dataset:  # closed at once, because the next run replaces the file
            datasets.setdefault(section, []).append(dataset.load())

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
            options = [word for key in (f"samples={samples}", "contexts=4", "nfe=2") for word in ("-o", f"sample.{key}")]
            for stage in ("sample", "score"):
                inpaint(stage, *options, "--overwrite")
            add("`scores.nc` of images", images / "scores.nc")
    return datasets


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
        write_all(Path(directory))
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
