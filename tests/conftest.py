"""Shared fixtures and helpers: tiny recipes, run directories of the image benchmark, and random wind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import wsdcast  # noqa: F401  (imported first, because it sets how torch's threads wait)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="real wind is not part of the repository; expected in ../shared/data")

TINY = """
name: tiny
data: {grid: 16x8, days: 30}
moments: {widths: [8, 8], steps: 4, batch: 4}
generator: {widths: [8, 8], steps: 4, batch: 4}
rollout: {members: 3, nfe: 2, starts: 2, days: 0.5}
"""

TRAINS = "any_forecast bench context docs domain errors examples images_scores inpaint inpaint_choices inpaint_classes inpaint_memory "
TRAINS += "inpaint_networks inpaint_scores inpaint_study missing peak pinned planet plot report resume rollout sources stages study "
TRAINS += "study_choices tails training traps forecast_layouts odd_sources scores gpu_rehearsal development site wheel overrides "
TRAINS += "path_runs starts study_variants inpaint_variants inpaint_stochastic"
"""Test files that train or roll out networks, or otherwise take more than a few seconds. ``make test-fast`` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in TRAINS.split():
            item.add_marker("trains")


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
    from wsdcast.images.pipeline import run

    directory = tmp_path_factory.mktemp("inpaint")
    (directory / "tiny.yaml").write_text(TINY_IMAGES)
    assert [summary.stage for summary in run(directory / "tiny.yaml", directory / "run")] == [f"inpaint {stage}" for stage in IMAGE_STAGES]
    return directory


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


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
