"""Shared fixtures and helpers: tiny recipes, run directories made from them, and random wind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.main import get_command

import wsdcast  # imported first, because it sets how torch's threads wait
from wsdcast.data.planet.source import Planet
from wsdcast.data.sources.layout import Stored, fields_of
from wsdcast.data.variables import DEFAULT

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real wind is not part of the repository; expected in ../shared/data")

TINY = """
name: tiny
data: {grid: 16x8, days: 30}
moments: {widths: [8, 8], steps: 4, batch: 4}
generator: {widths: [8, 8], steps: 4, batch: 4}
rollout: {members: 3, nfe: 2, starts: 2, days: 0.5}
"""

ROLLOUT = TINY.replace("rollout: {members: 3, nfe: 2, starts: 2, days: 0.5}", "rollout: {members: 5, nfe: 2, starts: 4, days: 1}")

TRAINS = "any_forecast bench context docs domain errors examples images_scores inpaint inpaint_choices inpaint_classes inpaint_memory "
TRAINS += "rollout_kept rollout_times rollout_precision training_runs record_reading figures report_browser frechet image_features "
TRAINS += "inpaint_networks inpaint_scores inpaint_study missing peak pinned planet plot report resume rollout sources stages study "
TRAINS += "study_choices tails training traps forecast_layouts odd_sources scores gpu_rehearsal development site wheel overrides "
TRAINS += "path_runs starts study_variants model_file open_data products products_climatology products_places products_refused convert "
TRAINS += "stations forecast_page todays_forecast inpaint_variants inpaint_stochastic other_ways_to_train objectives products_variables "
TRAINS += "convert_variables forecast_page_variables 24_channels report_selector_browser past_states long_record noise_fields study_dates "
TRAINS += "no_waiting variables_forecast variables_stages open_data_records channels possible_rollouts fine_tuning crps_runs "
TRAINS += "objectives_study past_errors without_generator"
"""Test files that train or roll out networks, or otherwise take more than a few seconds. ``make test-fast`` leaves them out."""


_WEATHER: dict[tuple[Any, ...], tuple[list[np.ndarray], Iterator[np.ndarray]]] = {}


@pytest.fixture(scope="session", autouse=True)
def remembered_weather() -> Iterator[None]:
    """Simulate each planet once per process, because the spin-up is most of what a tiny record costs. Tests of the planet do without."""
    original = Planet.run

    def run(planet: Planet, seed: int = 0, **settings: float) -> Iterator[np.ndarray]:
        if settings or "test_planet.py" in os.environ.get("PYTEST_CURRENT_TEST", ""):
            yield from original(planet, seed, **settings)
        states, later = _WEATHER.setdefault((planet.settings, planet.mountains.tobytes(), seed), ([], original(planet, seed)))
        for index in count():
            if index == len(states):
                states.append(next(later))
            yield states[index]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Planet, "run", run)
        yield


@pytest.fixture(scope="session", autouse=True)
def remembered_commands() -> Iterator[None]:
    """Make the commands from their functions once, and not anew whenever a test runs one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("typer.testing._get_command", cache(get_command))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of files that train, and begin with them: short files last keep two processes busy until the end."""
    for item in items:
        if item.path.stem.removeprefix("test_") in TRAINS.split():
            item.add_marker("trains")
    items.sort(key=lambda item: item.get_closest_marker("trains") is None)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the tiny recipe, and a run directory that holds its prepared record. Tests must not change it."""
    directory = tmp_path_factory.mktemp("prepared")
    (directory / "tiny.yaml").write_text(TINY)
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    return directory


def new_run(prepared: Path, directory: Path, recipe: str = TINY) -> Path:
    """Return a new run directory in ``directory`` with a copy of the prepared record. The recipe, on the same data, is put next to it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tiny.yaml").write_text(recipe)
    shutil.copytree(prepared / "run/analysis.zarr", directory / "run/analysis.zarr")
    return directory / "run"


@pytest.fixture(scope="session")
def rolled_out(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a recipe, and its run directory after the rollout. Tests may score it, and must not change anything else."""
    directory = tmp_path_factory.mktemp("rolled_out")
    run = new_run(prepared, directory, ROLLOUT)
    wsdcast.train(directory / "tiny.yaml", run)
    wsdcast.rollout(run=run)
    return directory


@pytest.fixture(scope="session")
def reference_forecast(rolled_out: Path) -> xr.Dataset:
    """Return the forecast of ``rolled_out``, with which other forecasts of the same networks are compared."""
    return xr.open_zarr(rolled_out / "run/forecast.zarr", decode_timedelta=True).load()


@pytest.fixture
def trained_run(rolled_out: Path, tmp_path: Path) -> Path:
    """Return a run directory for one test, with links to the prepared record and the trained networks."""
    (tmp_path / "run").mkdir()
    for artefact in ("analysis.zarr", "moments", "predictions", "generator"):
        (tmp_path / "run" / artefact).symlink_to(rolled_out / "run" / artefact)
    return tmp_path / "run"


@pytest.fixture(scope="session")
def finished_run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory after all four stages. Tests may add figures to it, and must not change anything else."""
    directory = tmp_path_factory.mktemp("finished")
    run = new_run(prepared, directory, TINY.replace("starts: 2, days: 0.5", "starts: 3, days: 1"))
    wsdcast.run(directory / "tiny.yaml", run)
    return run


@contextmanager
def undrawn(*names: str) -> Iterator[None]:
    """Write empty files in place of an ``animation`` after a rollout and a ``report`` of scores, which take longer than these."""
    drawn = {"animation": ("rollout.animate", lambda forecast, truth, path, *arguments: path.write_bytes(b""))}
    drawn |= {"report": ("score_output.write_report", lambda path, *arguments, **more: path.write_text(""))}
    with pytest.MonkeyPatch.context() as patched:
        for name in names:
            patched.setattr(f"wsdcast.weather.stages.{drawn[name][0]}", drawn[name][1])
        yield


@pytest.fixture
def without_animation() -> Iterator[None]:
    with undrawn("animation"):
        yield


@pytest.fixture
def without_report() -> Iterator[None]:
    with undrawn("report"):
        yield


@pytest.fixture
def without_study_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write an empty page of a study of wind, because its figures take longer than a small study."""
    monkeypatch.setattr("wsdcast.study.weather.write_study_page", lambda path, *arguments: path.write_text(""))


IMAGE_STAGES = ("prepare", "train", "sample", "score")

TINY_IMAGES = """
name: tiny
data: {count: 200, size: 16}
moments: {widths: [8, 8], steps: 4, batch: 4, attention: [1]}
generator: {widths: [8, 8], steps: 4, batch: 4, attention: [1]}
classifier: {steps: 4, batch: 8}
sample: {contexts: 6, samples: 3, nfe: 4}
study: {seeds: [0, 1], nfe: [2, 4, 6], ablation_nfe: [2], solvers: [midpoint, dpm2], visible: [0.05, 0.5], visible_nfe: [2],
        visible_contexts: 4, contexts: 6, samples: 2, warmths: [0, 1]}
"""


@pytest.fixture(scope="session")
def inpainted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the tiny recipe of images and its run directory after all stages. Tests must not change it."""
    from wsdcast.images.pipeline import run_stages

    directory = tmp_path_factory.mktemp("inpaint")
    (directory / "tiny.yaml").write_text(TINY_IMAGES)
    summaries = run_stages(directory / "tiny.yaml", directory / "run")
    assert [summary.stage for summary in summaries] == [f"inpaint {stage}" for stage in IMAGE_STAGES]
    return directory


def wind_of(dataset: xr.Dataset) -> dict[str, Stored]:
    """Return the components of the 10 m wind as sources are read: u and v, (time, latitude, longitude)."""
    return {"uv"[DEFAULT.index(name)]: stored for (name,), stored in fields_of(dataset, DEFAULT).items()}


def wind_dataset(times: np.ndarray, latitudes: np.ndarray, longitudes: np.ndarray, seed: int = 0) -> xr.Dataset:
    """Return random wind with the standard deviation of real wind, on the given axes."""
    values = np.random.default_rng(seed).normal(0, 6, (2, times.size, latitudes.size, longitudes.size)).astype(np.float32)
    dimensions = ("time", "latitude", "longitude")
    attributes = {"units": "m s-1"}
    return xr.Dataset(
        {"u10": (dimensions, values[0], attributes), "v10": (dimensions, values[1], attributes)},
        coords={"time": times, "latitude": latitudes, "longitude": longitudes},
    )


def six_hourly(start: str, count: int) -> np.ndarray:
    return np.datetime64(start, "ns") + np.timedelta64(6, "h") * np.arange(count)
