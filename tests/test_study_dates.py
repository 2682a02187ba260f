"""The initial times of a study: all settings share them, also after the record has grown, and groups of them have the same statistics."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset
from rollouts import loaded

import wsdcast
from wsdcast.study import evaluation
from wsdcast.study.evaluation import evaluate
from wsdcast.weather.forecast import running
from wsdcast.weather.samplers import sampler_of

RECIPE = """
name: r
data: {source: files/*.nc, grid: 8x4, validation_from: 2020-01-21, test_from: 2020-01-26}
moments: {widths: [8, 8], steps: 2, batch: 4}
generator: {widths: [8, 8], steps: 3, batch: 4}
study: {seeds: [0], priors: [standard], ablations: [], nfe: [2], rollout_nfe: [2], members: 2, starts: 4, rollout_starts: 3,
        leads: [6, 12]}
"""


@pytest.fixture
def grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_study_page: None) -> Path:
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


def test_groups_of_initial_times_have_the_statistics_of_all_at_once(rolled_out, monkeypatch):
    """Five initial times of three members, in batches of six: memory is that of two initial times, and the bits are those of five."""
    recipe, record, networks = loaded(rolled_out / "run")
    sampler, starts = sampler_of(networks, recipe.rollout), record.starts(5, 2)
    together: list[int] = []
    ensembles = evaluation.ensembles

    def counted(*arguments, **options):
        together.append(len(arguments[3]))
        return ensembles(*arguments, **options)

    monkeypatch.setattr(evaluation, "ensembles", counted)
    monkeypatch.setattr(running, "at_once", lambda batch, device: batch)  # as with one thread
    in_groups = evaluate(record, networks, sampler, starts, (6, 12), members=3, seed=0, batch=6)
    assert together == [2, 2, 1]
    together.clear()
    monkeypatch.setattr(evaluation, "groups", lambda rows, *others: [rows])
    at_once = evaluate(record, networks, sampler, starts, (6, 12), members=3, seed=0, batch=6)
    assert together == [5]
    xr.testing.assert_identical(in_groups, at_once)
