"""Tests of inputs that once broke the code. Each must give the right wind or an error of one line."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import SHARED, TINY, needs_shared, six_hourly, wind_dataset
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.sources.blocks import read_block
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record
from wsdcast.data.store.analysis import open_analysis
from wsdcast.runs.errors import UserError
from wsdcast.runs.locks import alone
from wsdcast.weather.recipe import load_recipe

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)


def wind(count: int = 40, start: str = "2020-01-01", seed: int = 0) -> xr.Dataset:
    return wind_dataset(six_hourly(start, count), LATITUDES, LONGITUDES, seed)


def read(source: str) -> tuple[SourceRecord, np.ndarray]:
    record = open_record(source, Path("scratch"))
    assert record.problems == []
    out = np.full((record.times.size, 2, *record.grid.shape), np.nan, np.float32)
    for block in record.blocks():
        for name, values in read_block(block):
            out[block.first : block.last, record.channels.index(name)] = values
    return record, out


def refused(source: str) -> str:
    """Return the only problem of a source."""
    (problem,) = open_record(source, Path("scratch")).problems
    return problem


def pack(path: Path, *datasets: xr.Dataset) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, dataset in enumerate(datasets):
            dataset.to_netcdf("member.nc")
            archive.write("member.nc", f"{number}/data_0.nc")
            Path("member.nc").unlink()


def test_archives_and_members_of_the_same_name_stay_apart(directory):
    first, second, third = wind(40), wind(40, "2020-02-01", 1), wind(44, "2020-03-01", 2)
    pack(directory / "a/download.zip", first)
    pack(directory / "b/download.zip", second, third)
    _, values = read("*/download.zip")
    np.testing.assert_array_equal(values[:, 0], np.concatenate([part.u10.values for part in (first, second, third)]))


def test_files_unpacked_from_a_replaced_archive_are_not_read(directory):
    pack(directory / "wind.zip", wind(seed=0))
    read("wind.zip")  # leaves its files in scratch, like a killed run
    pack(directory / "wind.zip", wind(seed=1))
    np.testing.assert_array_equal(read("wind.zip")[1][:, 0], wind(seed=1).u10.values)


def test_an_archive_that_the_disk_has_no_room_for_is_not_unpacked(directory, monkeypatch):
    with zipfile.ZipFile("big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.nc", b"\0" * 3_000_000)
        archive.writestr("notes.txt", b"\0" * 3_000_000)  # is not unpacked
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 2_900_000))
    assert re.fullmatch(r"scratch/\w{8}-big.zip: needs 3 MB on disk, but only 2.9 MB are free", refused("big.zip"))
    assert not [path for path in Path("scratch").rglob("*") if path.is_file()]
    # A directory of the archive that says less than there is: no more than that is read.
    Path("big.zip").write_bytes(Path("big.zip").read_bytes().replace(struct.pack("<I", 3_000_000), struct.pack("<I", 30)))
    assert refused("big.zip") == "big.zip: cannot be unpacked (Bad CRC-32 for file 'big.nc')"


def test_a_mistake_leaves_no_directory(directory):
    with pytest.raises(UserError, match="no such file"):
        wsdcast.prepare(source="none.nc", run="run")
    wind(60).isel(longitude=slice(0, 3)).to_netcdf("wind.nc")
    with pytest.raises(UserError, match="not a global grid"):
        wsdcast.prepare(source="wind.nc", run="run")
    assert not Path("run").exists()


def test_a_second_prepare_at_the_same_time_is_refused(directory):
    wind(60).to_netcdf("wind.nc")
    with alone(directory / "run"), pytest.raises(UserError, match="another wsdcast command is at work in run"):
        wsdcast.prepare(source="wind.nc", grid="8x4", run="run")
    wsdcast.prepare(source="wind.nc", grid="8x4", run="run")


@pytest.mark.parametrize("chunks", [(20, 3, 4), (20, 7, 4), (20, 7, 8)])
def test_a_lost_chunk_of_any_shape_is_noticed(directory, chunks):
    """A lost chunk is filled with zeros. This is noticed whether it spans the globe or only a part of it."""
    wind().to_zarr("wind.zarr", zarr_format=2, encoding={name: {"chunks": chunks, "_FillValue": None} for name in ("u10", "v10")})
    sorted(Path("wind.zarr/u10").glob("1.*"))[-1].unlink()
    metadata = Path("wind.zarr/u10/.zarray")
    metadata.write_text(metadata.read_text().replace('"fill_value": null', '"fill_value": 0.0'))
    zarr.consolidate_metadata("wind.zarr")
    with pytest.raises(UserError, match=r"one value throughout|the same value everywhere|missing"):
        read("wind.zarr")


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
def test_classic_files_that_were_cut_off_are_refused(directory, form):
    """The NetCDF library pads the missing part with zeros."""
    wind().to_netcdf("wind.nc", format=form)
    content = Path("wind.nc").read_bytes()
    Path("wind.nc").write_bytes(content[: -7 * 8 * 2])
    assert "wind.nc: cannot be read as NetCDF, it was cut off: " in refused("wind.nc")
    Path("wind.nc").write_bytes(content)
    np.testing.assert_array_equal(read("wind.nc")[1][:, 1], wind().v10.values)


FAULTS = {
    "rows are missing between latitudes 60 and -30": lambda ds: ds.isel(latitude=[0, 1, 4, 5, 6]),
    "u10 is at a height of 100 m, not 10 m": lambda ds: ds.assign_coords(heightAboveGround=100.0),
    "2 of its 40 times are missing": lambda ds: ds.assign_coords(time=np.where(np.arange(40) < 2, np.datetime64("NaT"), ds.time.values)),
    "valid_time_start or valid_time_stop is no date: now": lambda ds: ds.assign_attrs(valid_time_stop="now"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_of_a_source_are_named(directory, message):
    FAULTS[message](wind()).to_netcdf("wind.nc")
    assert message in refused("wind.nc")


@pytest.mark.parametrize(("stop", "steps"), [("2020", 40), ("2020-01", 40), ("2020-01-05", 20), ("2020-01-05T06:00:00Z", 18), (2020, 40)])
def test_a_year_a_month_or_a_day_means_all_of_it(directory, stop, steps):
    wind().assign_attrs(valid_time_start="2020", valid_time_stop=stop).to_netcdf("wind.nc")
    assert read("wind.nc")[0].times.size == steps


def test_the_end_of_a_period_is_the_end_of_that_day(directory):
    Path("r.yaml").write_text("name: r\ndata: {start: 2020-01-02, end: 2020-01-05}")
    data = load_recipe("r.yaml").data
    assert (data.start, data.end.date(), data.end.hour) == (datetime(2020, 1, 2), datetime(2020, 1, 5).date(), 23)
    wind().to_netcdf("wind.nc")
    assert open_record("wind.nc", directory, data.start, data.end).times.size == 16


def test_chunks_of_stores_with_alternating_times_are_read_once(directory, monkeypatch):
    """One store has 00 and 12 UTC, the other 06 and 18, newest first. Blocks hold both, and no chunk is in two blocks."""
    whole = wind(120)
    for name, first in (("a", 0), ("b", 1)):
        part = whole.isel(time=slice(first, None, 2)).isel(time=slice(None, None, -1))
        part.to_zarr(f"{name}.zarr", zarr_format=2, encoding={variable: {"chunks": (10, 7, 8)} for variable in ("u10", "v10")})
    monkeypatch.setattr("wsdcast.data.sources.pieces.BLOCK_BYTES", 8 * 7 * 8 * 10)
    record, values = read("*.zarr")
    np.testing.assert_array_equal(values[:, 0], whole.u10.values)
    chunks = [
        (reading.channels, reading.address, index)
        for block in record.blocks()
        for reading in block.readings
        for index in np.unique(reading.indices // 10).tolist()
    ]
    assert len(chunks) == len(set(chunks)) == 2 * 2 * 6


def test_a_repeated_column_and_a_rounded_zero_of_longitude_are_accepted(directory):
    whole = wind()
    cyclic = xr.concat([whole, whole.isel(longitude=[0]).assign_coords(longitude=[360.0])], "longitude")
    cyclic.to_netcdf("cyclic.nc")
    np.testing.assert_array_equal(read("cyclic.nc")[1][:, 0], whole.u10.values)
    rounded = whole.assign_coords(longitude=(LONGITUDES + 180) % 360 - 180).sortby("longitude")
    rounded = rounded.assign_coords(longitude=rounded.longitude.where(rounded.longitude != 0, -1e-11))
    rounded.isel(time=slice(0, 20)).to_netcdf("b.nc")
    whole.isel(time=slice(20, 40)).to_netcdf("c.nc")
    np.testing.assert_array_equal(read("[bc].nc")[1][:, 0], whole.u10.values)


def test_times_that_are_off_by_microseconds_are_rounded(directory):
    whole = wind()
    whole.assign_coords(time=whole.time.values + np.timedelta64(1, "us") * ((np.arange(40) % 3) - 1)).to_netcdf("wind.nc")
    record, _ = read("wind.nc")
    np.testing.assert_array_equal(record.times, whole.time.values)


def test_versions_with_other_names_are_merged(directory):
    """Neither version is called 1, so the first one takes precedence."""
    whole = wind()
    both = xr.concat([whole.where(whole.time < whole.time[30]), whole], "expver").assign_coords(expver=["era5", "era5t"])
    both.to_netcdf("wind.nc")
    np.testing.assert_array_equal(read("wind.nc")[1][:, 0], whole.u10.values)


def test_damaged_static_fields_and_archives_are_refused(directory):
    whole = wind()
    whole["lsm"] = (("latitude", "longitude"), np.random.default_rng(0).random((7, 8)))
    whole.to_zarr("wind.zarr", zarr_format=3, consolidated=False)
    Path("wind.zarr/lsm/c/0/0").write_bytes(b"xxxx")
    assert "wind.zarr: its static fields cannot be read" in refused("wind.zarr")
    pack(directory / "wind.zip", whole)
    content = bytearray((directory / "wind.zip").read_bytes())
    content[60:80] = b"\xff" * 20
    (directory / "wind.zip").write_bytes(content)
    assert "wind.zip: cannot be unpacked" in refused("wind.zip")


def test_a_static_field_on_another_grid_is_left_out(directory):
    wind().to_netcdf("wind.nc")
    coarse = {"latitude": [60.0, 0.0, -60.0], "longitude": [0.0, 90.0, 180.0, 270.0]}
    xr.Dataset({"lsm": (tuple(coarse), np.eye(3, 4))}, coarse).to_netcdf("a.nc")
    record = open_record("*.nc", directory)
    assert record.problems == []
    assert record.static == {}
    assert any("land_sea_mask is on another grid and left out" in note for note in record.notes)


@pytest.mark.parametrize("source", ["", "~nosuchuser/x.nc"])
def test_sources_without_a_file_are_refused(directory, source):
    wind().to_netcdf("wind.nc")
    with pytest.raises(UserError, match="no such file"):
        open_record(source, directory)


def test_check_refuses_one_step_and_options_that_it_does_not_use(directory):
    wind(1).to_netcdf("wind.nc")
    result = CliRunner().invoke(app, ["prepare", "--check", "wind.nc", "--json"])
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert any("a record of 1 steps is too short" in problem for problem in problems)
    result = CliRunner().invoke(app, ["prepare", "--check", "wind.nc", "--append"])
    assert result.exit_code == 2
    allowed = "--recipe, -o, --run, --grid, --method, --start, --end and --skip"
    assert result.stderr == f"wsdcast: --check SOURCE can be used only with {allowed}\n"


@needs_shared
def test_check_of_a_real_single_step():
    source = str(SHARED / "formats/gfs_0p5deg_global_cfgrib_scalar_coords_1step.nc")
    assert any("too short" in problem for problem in wsdcast.check(source).problems)


def test_check_names_the_store_that_it_would_replace(directory):
    wind(60).to_netcdf("wind.nc")
    wsdcast.prepare(source="wind.nc", grid="8x4", run="run")
    assert "is made from it" in wsdcast.check("wind.nc", run="run", grid="8x4").facts["already there"]
    assert (
        "made from another recipe (data.grid: 8x4 there, 12x6 here)" in wsdcast.check("wind.nc", run="run", grid="12x6").facts["in the way"]
    )


def test_append_restores_a_store_after_a_kill_between_the_two_renamings(directory):
    wind(60).to_netcdf("a.nc")
    wind(20, "2020-01-16", 1).to_netcdf("b.nc")
    wsdcast.prepare(source="a.nc", grid="8x4", run="run")
    Path("run/analysis.zarr").rename("run/.analysis.old.zarr")
    wsdcast.prepare(source="b.nc", run="run", append=True)
    assert open_analysis(Path("run/analysis.zarr")).times.size == 80


@pytest.mark.usefixtures("without_animation", "without_report")
def test_states_that_were_appended_are_truth_of_the_next_score(directory):
    wind(60).to_netcdf("a.nc")
    wind(20, "2020-01-16", 1).to_netcdf("b.nc")
    Path("r.yaml").write_text(TINY.replace("{grid: 16x8, days: 30}", "{source: a.nc, grid: 8x4}").replace("days: 0.5", "days: 1"))
    wsdcast.prepare("r.yaml", "run")
    wsdcast.train(run="run", prior="standard")
    wsdcast.rollout(run="run", start="2020-01-14/2020-01-15T18/6h")
    for length, expected in ((60, [7, 6, 5, 4]), (80, [8, 8, 8, 8])):
        if length == 80:
            wsdcast.prepare(run="run", source="b.nc", append=True)
        wsdcast.score(run="run")
        with xr.open_dataset("run/scores.nc") as scores:
            assert scores["pairs"].values.tolist() == expected
            assert scores.attrs["record"].startswith(f"{length} states to ")


def test_computing_the_same_statistics_again_leaves_networks_current(directory):
    wind(60).to_netcdf("wind.nc")
    wsdcast.prepare(source="wind.nc", grid="8x4", run="run")
    before = Path("run/analysis.zarr/zarr.json").read_text()
    wsdcast.prepare(run="run", append=True, recompute=True)
    assert Path("run/analysis.zarr/zarr.json").read_text() == before


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_prepare_regrids_by_the_method_that_is_asked_for(directory, method):
    whole = wind(60)
    whole.to_netcdf("wind.nc")
    wsdcast.prepare(source="wind.nc", grid="12x6", method=method, run="run")
    expected = regrid(whole.u10.values, Grid(LATITUDES, LONGITUDES), Grid.regular("12x6"), method)
    np.testing.assert_allclose(open_analysis(Path("run/analysis.zarr")).states[:][:, 0], expected, atol=0.0026)


@pytest.mark.slow
def test_errors_of_worker_processes_are_one_line(directory):
    whole = wind(60)
    whole.u10[30, 2, 2] = np.nan
    whole.to_netcdf("wind.nc")
    command = [sys.executable, "-m", "wsdcast", "prepare", "--source", "wind.nc", "--grid", "8x4", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("wsdcast: wind.nc: missing or infinite values")
    assert done.stderr.count("\n") == 1


def test_a_store_of_another_version_is_refused(directory):
    zarr.create_group("run/analysis.zarr", zarr_format=2, attributes={"normalisation": {}})
    zarr.consolidate_metadata("run/analysis.zarr")
    with pytest.raises(UserError, match="not a store that `wsdcast prepare` wrote"):
        open_analysis(Path("run/analysis.zarr"))
