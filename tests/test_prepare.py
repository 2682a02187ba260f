"""Tests of prepared records: gaps, splits, and real wind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import SHARED, needs_shared, six_hourly, wind_dataset

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.steps import STEP
from wsdcast.data.store.analysis import Analysis, open_analysis, split
from wsdcast.data.store.states import PackedStates
from wsdcast.data.store.zarr_store import SCALE, wind_packing
from wsdcast.runs.artefact import resolve
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS
from wsdcast.runs.overrides import Overridden
from wsdcast.weather.recipe import Recipe, load_recipe


def record_of(times: np.ndarray, validation_from: str, test_from: str) -> Analysis:
    wind = np.zeros((times.size, 2, 2, 4), np.int16)
    ones = np.ones(2, np.float32)
    parts = np.datetime64(validation_from, "ns"), np.datetime64(test_from, "ns")
    return Analysis(PackedStates(wind, wind_packing(2)), times, Grid.regular("4x2"), ones, ones, ones, *parts)


@pytest.fixture
def gappy() -> np.ndarray:
    """Return 30 six-hourly times. Steps 8 and 20 of 32 are missing."""
    return np.delete(six_hourly("2020-01-01", 32), [8, 20])


def test_no_sample_straddles_a_gap_or_a_split(gappy):
    record = record_of(gappy, "2020-01-04", "2020-01-06T12")
    for part in ("train", "validation", "test"):
        for steps in (1, 3):
            found = set(record.now(part, steps).tolist())
            inside = record.part(part)
            for index in range(1, gappy.size):
                window = slice(index - 1, index + steps + 1)
                whole = index + steps < gappy.size and inside[window].all() and (np.diff(gappy[window]) == STEP).all()
                assert (index in found) == whole
    # Training has the steps 0 to 7 and 9 to 11, so the current state can be 1 to 6, or 10.
    assert record.now("train").tolist() == [1, 2, 3, 4, 5, 6, 9]


def test_parts_are_disjoint_and_complete(gappy):
    record = record_of(gappy, "2020-01-04", "2020-01-06T12")
    parts = np.stack([record.part(part) for part in ("train", "validation", "test")])
    assert (parts.sum(axis=0) == 1).all()
    assert gappy[parts[0]].max() < gappy[parts[1]].min() < gappy[parts[1]].max() < gappy[parts[2]].min()


def test_a_record_too_short_for_a_sample_is_refused():
    assert record_of(six_hourly("2020-01-01", 2), "2021-01-01", "2021-01-01").now("train").size == 0


@pytest.mark.parametrize(("steps", "parts"), [(6, (3, 0, 3)), (20, (16, 1, 3)), (30, (24, 3, 3)), (100, (80, 10, 10))])
def test_by_default_the_test_split_is_a_tenth_and_three_steps_at_least(steps, parts):
    """So a truth of a few days can be prepared without dates of splits."""
    times = six_hourly("2020-01-01", steps)
    validation, test = split(times, None, None)
    assert ((times < validation).sum(), ((times >= validation) & (times < test)).sum(), (times >= test).sum()) == parts


def test_validation_may_be_empty(gappy):
    record = record_of(gappy, "2020-01-06T12", "2020-01-06T12")
    assert not record.part("validation").any()
    assert record.now("validation").size == 0


def test_files_are_regridded_joined_and_keep_their_gap(tmp_path, monkeypatch, gappy):
    monkeypatch.chdir(tmp_path)
    latitudes, longitudes = np.linspace(-90, 90, 13), np.arange(-180.0, 180.0, 15.0)
    wind = wind_dataset(gappy, latitudes, longitudes)
    wind.isel(time=slice(15, None)).to_netcdf("a.nc")
    wind.isel(time=slice(0, 15)).to_netcdf("b.nc")
    wsdcast.prepare(source="*.nc", grid="12x7", run="run")
    record = open_analysis(Path("run/analysis.zarr"))
    np.testing.assert_array_equal(record.times, gappy)
    ordered = wind.assign_coords(longitude=wind.longitude % 360).sortby("longitude").isel(latitude=slice(None, None, -1))
    expected = regrid(ordered.v10.values, Grid.regular("24x13"), Grid.regular("12x7"))
    np.testing.assert_allclose(record.states[:][:, 1], expected, atol=SCALE / 2 + 1e-5)


def test_without_a_recipe_it_is_that_of_the_store(tmp_path):
    """The same command is current, and a changed key changes nothing else: a record of files does not become a simulated planet."""
    wind_dataset(six_hourly("2020-01-01", 40), np.linspace(90, -90, 7), np.arange(0, 360, 30.0)).to_netcdf(tmp_path / "wind.nc")
    run = tmp_path / "run"
    wsdcast.prepare(source=tmp_path / "wind.nc", grid="8x4", run=run)
    assert not wsdcast.prepare(run=run).written
    with pytest.raises(UserError, match=r"data.method: conservative there, bilinear here"):
        wsdcast.prepare(run=run, method="bilinear")
    summary = wsdcast.prepare(run=run, start="2020-01-02", overwrite=True)
    assert summary.facts["source"] == str(tmp_path / "wind.nc")
    assert open_analysis(run / "analysis.zarr").times.size == 36
    # Another source gets nothing of what was chosen for the record before it.
    later = wind_dataset(six_hourly("2021-01-01", 40), np.linspace(90, -90, 7), np.arange(0, 360, 30.0))
    later.to_netcdf(tmp_path / "later.nc")
    wsdcast.prepare(source=tmp_path / "later.nc", grid="8x4", run=run, overwrite=True)
    np.testing.assert_array_equal(open_analysis(run / "analysis.zarr").times, later.time)


@pytest.mark.parametrize(
    ("directory", "recipe", "name"),
    [
        ("runs/ifs", None, "ifs"),
        ("my data", None, "planet"),
        ("runs/ifs", Overridden(None, {"data.grid": "8x4"}), "ifs"),
        ("runs/ifs", Overridden(None, {"name": "mine"}), "mine"),
        ("runs/ifs", "planet", "planet"),
    ],
)
def test_real_wind_has_the_name_of_its_run_directory_if_nothing_else_names_it(tmp_path, monkeypatch, directory, recipe, name):
    """It was called planet, as the simulated one, in reports and model cards. A directory may have a name that no recipe can have."""
    monkeypatch.chdir(tmp_path)
    wind_dataset(six_hourly("2020-01-01", 30), np.linspace(78.75, -78.75, 8), 22.5 * np.arange(16)).to_netcdf("wind.nc")
    wsdcast.prepare(recipe, directory, source="wind.nc")
    assert resolve(None, directory, Recipe, ANALYSIS)[0].name == name
    assert "current" in wsdcast.prepare(run=directory).facts
    assert resolve(None, directory, Recipe, ANALYSIS)[0].name == name


def test_a_store_is_not_replaced_by_what_is_made_of_it(prepared, tmp_path):
    shutil.copytree(prepared / "run/analysis.zarr", tmp_path / "run/analysis.zarr")
    for source in (tmp_path / "run/analysis.zarr", tmp_path / "run"):
        with pytest.raises(UserError, match=r"analysis.zarr: is .*analysis.zarr, which this command reads; choose another --run"):
            wsdcast.prepare("planet", tmp_path / "run", source=source, grid="8x4", overwrite=True)
    assert open_analysis(tmp_path / "run/analysis.zarr").grid == open_analysis(prepared / "run/analysis.zarr").grid


def test_recipe_times_may_name_a_zone(tmp_path):
    (tmp_path / "r.yaml").write_text("name: r\ndata: {test_from: '2020-01-01T02:00:00+02:00'}")
    assert str(load_recipe(tmp_path / "r.yaml").data.test_from) == "2020-01-01 00:00:00"


@needs_shared
@pytest.mark.parametrize("grid", ["64x32", "240x121"])
def test_real_wind_is_prepared(tmp_path, grid):
    """The whole real record is prepared at 64x32. The paper's 240x121 uses the same code."""
    source = SHARED / "wind" / "*.nc"
    wsdcast.prepare("gfs", tmp_path / "run", source=str(source), grid=grid)
    record = open_analysis(tmp_path / "run/analysis.zarr")
    assert record.times.size == 174 + 187
    runs = np.split(record.times, np.flatnonzero(np.diff(record.times) != STEP) + 1)
    assert [run.size for run in runs] == [60, 114, 1, 10, 112, 64]
    assert record.part("test").sum() == 64
    assert record.now("train").size == 58 + 112 + 0 + 8 + 110
    assert record.now("test").size == 62
    with xr.open_dataset(sorted((SHARED / "wind").glob("*.nc"))[0]) as first:
        field = first.u10[5].values
    source_grid, weights = Grid.regular("360x181"), Grid.regular("360x181").area_weights[:, None]
    assert (record.states[5][0] * record.grid.area_weights[:, None]).mean() == pytest.approx((field * weights).mean(), abs=1e-4)
    np.testing.assert_allclose(record.states[5][0], regrid(field, source_grid, record.grid), atol=SCALE / 2 + 1e-5)
    assert 4 < record.std.min() < record.std.max() < 8
