"""The initial times of a study: all settings share them, also after the record has grown, and groups of them have the same statistics."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset

import wsdcast

RECIPE = """
name: r
data: {source: files/*.nc, grid: 8x4, validation_from: 2020-01-21, test_from: 2020-01-26}
moments: {widths: [8, 8], steps: 2, batch: 4}
generator: {widths: [8, 8], steps: 3, batch: 4}
study: {seeds: [0], priors: [standard], ablations: [], nfe: [2], rollout_nfe: [2], members: 2, starts: 4, rollout_starts: 3,
        leads: [6, 12]}
"""


@pytest.fixture
def grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run directory that was studied, and then got ten more days of its test split."""
    monkeypatch.chdir(tmp_path)
    wind = wind_dataset(six_hourly("2020-01-01", 160), np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0))
    Path("files").mkdir()
    wind.isel(time=slice(0, 120)).to_netcdf("files/0.nc")
    Path("r.yaml").write_text(RECIPE)
    wsdcast.prepare("r.yaml", "run")
    wsdcast.study_nfe("r.yaml", "run")
    wind.isel(time=slice(120, 160)).to_netcdf("files/1.nc")
    wsdcast.prepare("r.yaml", "run", append=True)
    return Path("run")


def test_settings_share_their_initial_times_after_the_record_has_grown(grown):
    """Stored statistics of the shorter record are not mixed with those of the longer one."""
    shutil.copytree(grown, "fresh", symlinks=True)
    for path in Path("fresh/study").rglob("*.nc"):
        path.unlink()
    for run in ("run", "fresh"):
        wsdcast.study_nfe("r.yaml", run, nfe=[2, 4], rollout_nfe=[2, 4])
    with xr.open_dataset("run/study.nc") as studied, xr.open_dataset("fresh/study.nc") as fresh:
        assert studied["starts_6h"] == 4
        xr.testing.assert_identical(studied.drop_attrs(), fresh.drop_attrs())
