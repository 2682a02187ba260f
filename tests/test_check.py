"""``prepare --check`` lists all problems of a source and the cost of preparing it, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, needs_shared, six_hourly, wind_dataset
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.runs.errors import UserError
from wsdcast.verification.truth import open_truth

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)


def check(*arguments: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["prepare", "--check", *arguments, "--json"], catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def test_a_good_source_is_described(directory):
    times = np.delete(six_hourly("2020-01-01", 60), [8, 20, 21])
    wind = wind_dataset(times, LATITUDES, LONGITUDES)
    wind["lsm"] = (("latitude", "longitude"), np.ones((7, 8)))
    wind.to_netcdf("wind.nc")
    code, report = check("wind.nc", "--grid", "12x6")
    assert code == 0
    assert report["problems"] == []
    facts = report["facts"]
    assert facts["grid"] == "8x7 (longitudes x latitudes), rows from 90 to -90"
    assert facts["times"] == "2020-01-01T00 to 2020-01-15T18"
    assert facts["steps"] == "57 at 00, 06, 12 and 18 UTC, 2 gaps with 3 steps missing"
    assert facts["gaps from"] == "2020-01-03T00, 2020-01-06T00"
    assert facts["static fields"] == "land_sea_mask"
    assert facts["range of 10 m wind u"].startswith(
        f"{wind.u10.values.min():.2f} to {wind.u10.values.max():.2f} m/s in 57 steps read as a sample"
    )
    assert "runs/planet/analysis.zarr, 12x6, about 0.0148 MB in 2 files" in facts["would write"]
    assert "for one thread" in facts["would take"]
    assert sorted(path.name for path in directory.iterdir()) == ["wind.nc"]


@pytest.mark.parametrize(("grid", "finer"), [("16x9", True), ("16x7", False), ("8x6", False)])
def test_a_grid_finer_than_that_of_the_source_is_named(directory, grid, finer):
    wind_dataset(six_hourly("2020-01-01", 60), LATITUDES, LONGITUDES).to_netcdf("wind.nc")
    notes = check("wind.nc", "--grid", grid)[1]["facts"].get("note 1"), wsdcast.prepare(source="wind.nc", grid=grid).facts.get("notes")
    assert notes == 2 * (f"the grid {grid} is finer than 8x7 of the source, and regridding adds no detail" if finer else None,)


def test_an_option_is_no_source():
    result = CliRunner().invoke(app, ["prepare", "--check", "--recipe", "era5"])
    assert result.exit_code == 2
    assert "Invalid value for '--check': '--recipe' is an option; expected a source" in " ".join(result.stderr.replace("│", " ").split())


def test_all_problems_are_listed_together(directory):
    """The list has problems of metadata, of values and of the whole record. The exit code is 2."""
    Path("files").mkdir()
    wind = wind_dataset(six_hourly("2020-01-01", 9), LATITUDES, LONGITUDES)
    wind.isel(time=slice(0, 3)).to_netcdf("files/a.nc")
    absurd = (wind.v10[3:6] * 40).assign_attrs(wind.v10.attrs)  # older xarray drops them
    wind.isel(time=slice(3, 6)).assign(v10=absurd).to_netcdf("files/b.nc")
    broken = wind.isel(time=slice(6, 9)).assign_coords(time=wind.time[5:8].values)
    broken.u10[2, 3, 4] = np.nan
    broken.to_netcdf("files/c.nc")
    Path("files/d.nc").write_bytes(b"\x89HDF and no more")
    code, report = check("files")
    assert code == 2
    expected = (
        "files/d.nc: cannot be read as NetCDF",
        "1 times occur twice, the first 2020-01-02T06, in files/b.nc and in files/c.nc",
        "files/b.nc: absurd values",
        "files/c.nc: missing or infinite values",
    )
    for words in expected:
        assert any(words in problem for problem in report["problems"]), words
    shown = CliRunner().invoke(app, ["prepare", "--check", "files"], env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert f"{len(report['problems'])}, listed below" in shown.stdout
    assert f" {len(report['problems'])}. " in shown.stdout
    prepared = CliRunner().invoke(app, ["prepare", "--source", "files"])
    assert prepared.exit_code == 2
    assert prepared.stderr.startswith("wsdcast: files: 2 problems: ")  # prepare names the problems that it knows before it reads wind
    assert prepared.stderr.count("\n") == 1
    assert not Path("runs/planet/analysis.zarr").exists()
    with pytest.raises(UserError) as refused:
        open_truth("files", Path("scratch"), np.datetime64("2020-01-01"))
    assert f"wsdcast: {refused.value}\n" == prepared.stderr  # a truth is refused in the same words


def test_a_short_record_and_a_full_disk_are_problems(directory, monkeypatch):
    import shutil

    wind_dataset(six_hourly("2020-01-01", 5), LATITUDES, LONGITUDES).to_netcdf("wind.nc")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    code, report = check("wind.nc")
    assert code == 2
    assert "a record of 5 steps is too short" in report["problems"][0]
    assert "on disk, but only 1 bytes are free" in report["problems"][1]


def test_static_fields_that_the_recipe_names_and_the_source_lacks_are_a_problem(directory):
    """Preparing would work, and training would then be refused. Wind-only files of the Climate Data Store have no static fields."""
    wind = wind_dataset(six_hourly("2018-01-01", 60), LATITUDES, LONGITUDES)
    wind.assign(lsm=(("latitude", "longitude"), np.ones((7, 8)))).to_netcdf("wind.nc")
    names = "forcings.static=[land_sea_mask, geopotential_at_surface]"
    code, report = check("wind.nc", "--grid", "12x6", "-o", names)
    assert code == 2
    assert report["problems"] == [
        "forcings.static: the source has no geopotential_at_surface, which `wsdcast train` needs; -o forcings.static='[]' does without"
    ]
    assert check("wind.nc", "--grid", "12x6", "-o", "forcings.static=[land_sea_mask]")[0] == 0
    assert check("wind.nc", "--grid", "12x6")[0] == 0


def test_no_such_source_is_one_line(directory):
    result = CliRunner().invoke(app, ["prepare", "--check", "none.nc"])
    assert result.exit_code == 2
    assert result.stderr.startswith("wsdcast: source 'none.nc': no such file")


@needs_shared
def test_a_regional_file_with_odd_steps_has_both_problems_named():
    """It covers the Bay of Bengal in steps of 6, 5 and 1 h."""
    code, report = check(str(SHARED / "formats/era5_cdsnew_u10v10_bayofbengal_6h_30steps.nc"))
    assert code == 2
    assert "not a global grid: longitudes 80 to 98" in report["problems"][0]
    assert report["facts"]["note 1"] == "6 of 30 times are at other hours (23:00) and left out"
    assert report["facts"]["steps"] == "24 at 00, 06, 12 and 18 UTC, 0 gaps"


@needs_shared
def test_a_month_of_real_wind_is_described():
    code, report = check(str(SHARED / "wind/*.nc"), "--recipe", "gfs")
    assert code == 0
    assert report["facts"]["steps"] == "361 at 00, 06, 12 and 18 UTC, 5 gaps with 246 steps missing"
    ranges = [report["facts"][f"range of 10 m wind {component}"].partition(" in ")[0] for component in "uv"]
    assert ranges == ["-55.0 to 51.7 m/s", "-47.40 to 51.56 m/s"]
