"""Helpers of the tests: reports of random scores and fields, and what is embedded in a page."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from wsdcast.data.grid import Grid
from wsdcast.data.variables import DEFAULT, SPEED
from wsdcast.report.page import write_report
from wsdcast.verification.metrics import BOTH, PROBABILITIES, VECTOR
from wsdcast.verification.regions import REGIONS
from wsdcast.verification.thresholds import THRESHOLDS

FACTS = {"recipe": "tiny", "hash": "0123456789abcdef", "model": "warm", "data": "planet", "grid": "16x8", "starts": "2", "members": "5"}


GRID = Grid.regular("16x8")
NAMES = ("wsdcast", "moments, past errors", "persistence", "climatology")


def random_scores(
    grid: Grid, starts: int, leads: int, names: tuple[str, ...] = NAMES, members: int = 5, further: tuple[str, ...] = ()
) -> xr.Dataset:
    """Return random numbers with the names and axes of ``scores.nc``; ``further`` variables besides the wind."""
    random = np.random.default_rng(1)
    time = np.datetime64("2020-01-01T06", "ns") + np.timedelta64(12, "h") * np.arange(starts)
    axes = {
        "forecast": list(names),
        "prediction_timedelta": np.timedelta64(6, "h").astype("timedelta64[ns]") * np.arange(1, leads + 1),
        "variable": [*DEFAULT, SPEED, BOTH, VECTOR, *further],
        "region": list(REGIONS),
        "rank": np.arange(members + 1),
        "wavenumber": np.arange(grid.longitude.size // 2 + 1),
        "threshold": list(THRESHOLDS),
        "probability": PROBABILITIES,
        "of": ["area", "forecast", "observed"],
        "reference": list(names[1:]),
        "bound": ["low", "high"],
    }

    def values(*dims: str) -> xr.DataArray:
        return xr.DataArray(random.uniform(0.5, 1.5, [len(axes[name]) for name in dims]), {name: axes[name] for name in dims}, dims)

    by = ("forecast", "prediction_timedelta", "variable", "region")
    scores = {name: values(*by) for name in ("crps_fair", "crps_standard", "rmse", "spread_skill")}
    scores |= {"energy_score": values("forecast", "prediction_timedelta", "region"), "power_deviation": values(*by[:3])}
    scores |= {"crps_fair_skill": values(*by, "reference"), "energy_score_skill": values(*by[:2], "region", "reference")}
    bounds = xr.DataArray([-0.1, 0.1], {"bound": axes["bound"]})
    scores |= {f"{name}_interval": field + bounds for name, field in scores.items() if name != "power_deviation"}
    scores["rank_histogram"] = values(*by, "rank") / (members + 1)
    scores["reliability"] = values(*by[:2], "region", "threshold", "probability", "of") / 20
    scores["power_ratio"] = values(*by[:3], "wavenumber")
    return xr.Dataset(scores).assign_coords(time=time)


def random_fields(grid: Grid, leads: int, members: int = 5) -> Callable[[int], tuple[Any, Any]]:
    """Return a function from the number of an initial time to random wind of the members and of the truth."""

    def fields(start: int) -> tuple[Any, Any]:
        random = np.random.default_rng(start)
        wind = random.normal(0, 6, (members + 1, leads, 2, *grid.shape)).astype(np.float32)
        return wind[1:], wind[0]

    return fields


def written(path: Path, scores: xr.Dataset, grid: Grid, fields: Any, *, on_earth: bool = True, **changes: Any) -> str:
    text = {"title": "Forecast: tiny", "facts": FACTS, "recipe": "name: tiny\n"} | changes
    write_report(path, scores, grid, fields, text["title"], text["facts"], text["recipe"], on_earth=on_earth)
    return path.read_text()


def embedded(page: str) -> dict[str, Any]:
    """Return the attributes of the Bokeh models on a page, by the name or the type of the model, in the order of their creation."""
    (text,) = re.findall(r"const docs_json = '(.*)';", page)
    (document,) = json.loads(html.unescape(text.replace("\\\\", "\\"))).values()
    models: dict[str, dict[int, Any]] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, list):
            return [visit(each) for each in value]
        if not isinstance(value, dict):
            return value
        if value.get("type") == "ndarray":
            order = {"little": "<", "big": ">"}[value["order"]]
            packed = base64.b64decode(value["array"]["data"])
            array = np.frombuffer(
                gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed, np.dtype(value["dtype"]).newbyteorder(order)
            )
            return array.reshape(value["shape"])
        if value.get("type") == "map":
            return {key: visit(each) for key, each in value["entries"]}
        visited = {key: visit(each) for key, each in value.items()}
        if "attributes" in visited:
            of_its_kind = models.setdefault(visited["attributes"].get("name") or visited["name"], {})
            of_its_kind[int(visited["id"].removeprefix("p"))] = visited["attributes"]
        return visited

    visit(document)
    return {name: [of_its_kind[number] for number in sorted(of_its_kind)] for name, of_its_kind in models.items()}


def from_greenwich(images: Any) -> np.ndarray:
    """Return images (..., row, column) of maps, whose first column is at 180 W, in the order of the grid."""
    return np.roll(images, np.shape(images)[-1] // 2, axis=-1)


def column_at(longitude: float) -> int:
    """Return the column of the grid that is nearest to a longitude, degrees from -180 to 360."""
    return int(np.abs((GRID.longitude - longitude + 180) % 360 - 180).argmin())


CHROMIUM = shutil.which("chromium")


WITHOUT_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def in_chromium(test):
    """Mark a test that needs a browser."""
    return pytest.mark.slow(WITHOUT_CHROMIUM(test))
