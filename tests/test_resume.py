"""Tests that preparing can be stopped at any moment and continued, and that a store can grow, with the same bytes in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from conftest import TINY, six_hourly, wind_dataset

import wsdcast
from wsdcast.data.store import building, shards
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError
from wsdcast.runs.unfinished import marks_of

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)
RECIPE = "name: r\ndata: {source: files/*.nc, grid: 8x4, validation_from: 2020-03-01, test_from: 2020-03-10}"


def bytes_of(store: Path, metadata: bool = True) -> dict[str, bytes]:
    """Return all files, with or without the group's metadata, which name the source of the wind."""
    files = (path for path in store.rglob("*") if path.is_file() and (metadata or path.parent != store))
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


@pytest.fixture
def months(tmp_path, monkeypatch) -> xr.Dataset:
    """Write ninety days to three files. Shards have sixteen steps, so there are 23, and the last is not full."""
    monkeypatch.chdir(tmp_path)
    for module in (shards, building):
        monkeypatch.setattr(module, "SHARD", 16)
    wind = wind_dataset(six_hourly("2020-01-01", 360), LATITUDES, LONGITUDES)
    Path("files").mkdir()
    for number, part in enumerate((slice(0, 125), slice(125, 250), slice(250, 360))):
        wind.isel(time=part).to_netcdf(f"files/{number}.nc")
    Path("r.yaml").write_text(RECIPE)
    return wind


def prepare(run: str, **options) -> Path:
    wsdcast.prepare("r.yaml", run, **options)
    return Path(run) / "analysis.zarr"


def names_in(run: str) -> list[str]:
    return sorted(path.name for path in Path(run).iterdir())


@pytest.mark.slow
def test_a_prepare_killed_at_any_moment_continues_to_the_same_store(tmp_path):
    """Runs are killed with SIGKILL when shards appear, until one finishes. Every run adds shards. The bytes are those of a single run."""
    hours = np.datetime64("2020-01-01", "ns") + np.timedelta64(6, "h") * np.arange(6000)
    wind_dataset(hours, LATITUDES, LONGITUDES).to_netcdf(tmp_path / "wind.nc")
    how = ["--grid", "8x4", "-o", "name=wind"]  # by default the name is that of the directory
    command = [sys.executable, "-m", "wsdcast", "prepare", "--source", str(tmp_path / "wind.nc"), *how, "--run"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    slow = "import time\nfrom wsdcast.data.store import shards\nwrite = shards.regridded\n"
    slow += "def regridded(*arguments):\n    time.sleep(0.1)\n    return write(*arguments)\nshards.regridded = regridded\n"
    slow += "from wsdcast.data.sources import pieces\npieces.BLOCK_BYTES = 8 * 7 * 8 * 64\nfrom wsdcast.cli import app\napp()\n"
    kills, marks = 0, tmp_path / "run/.analysis.partial.marks"
    while not (tmp_path / "run/analysis.zarr").exists():
        before = len(list(marks.glob("*"))) if marks.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", slow, *command[3:], str(tmp_path / "run")], stdout=subprocess.DEVNULL)
        while process.poll() is None and (not marks.exists() or len(list(marks.glob("*"))) < before + 5):
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        assert kills < 12
    assert kills >= 2
    assert bytes_of(tmp_path / "run/analysis.zarr") == bytes_of(tmp_path / "whole/analysis.zarr")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["analysis.zarr"]


def test_a_prepare_killed_just_before_the_end_continues(months, monkeypatch):
    """If all shards are written but not the statistics, no wind is read again."""
    expected = bytes_of(prepare("whole"))
    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.data.store.building.training_statistics", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("run")
    (Path("run") / ".analysis.partial.zarr/10m_u_component_of_wind/c/3/0/0.1234.partial").write_bytes(b"half a shard")
    monkeypatch.setattr("wsdcast.data.store.shards.read_block", lambda block: pytest.fail("read again"))
    assert bytes_of(prepare("run")) == expected


def test_a_damaged_file_loses_no_finished_blocks(months, monkeypatch):
    """The file is named and earlier shards are kept. After it is replaced, only the shards that need it are made."""
    expected = bytes_of(prepare("whole"), metadata=False)
    good = Path("files/1.nc").read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2 :] = b""  # the second half is missing
    Path("files/1.nc").write_bytes(damaged)
    with pytest.raises(UserError, match=r"files/1.nc: cannot be read as NetCDF"):
        prepare("run")
    # This damage is not seen on opening: values that wind cannot have.
    part = months.isel(time=slice(125, 250))
    part.assign(u10=part.u10.where(part.time != part.time[60], 999.0)).to_netcdf("files/1.nc")
    monkeypatch.setattr("wsdcast.data.sources.pieces.BLOCK_BYTES", 8 * 7 * 8 * 16)
    monkeypatch.setattr("wsdcast.data.store.shards.SHARDS_PER_GRAPH", 1)
    with pytest.raises(UserError, match=r"files/1.nc: absurd values .*999 m/s\) in 10 m wind u at 2020-02-16T06"):
        prepare("run")
    written = {path.name for path in Path("run/.analysis.partial.marks").iterdir()} - {"claim.json"}
    assert written == {str(shard) for shard in range(11)}
    Path("files/1.nc").write_bytes(good)
    read: list[int] = []
    original = shards.write_shard
    monkeypatch.setattr(shards, "write_shard", lambda *arguments: read.append(arguments[1]) or original(*arguments))
    assert bytes_of(prepare("run"), metadata=False) == expected
    assert read == list(range(7, 23))  # shards 0 to 6 need only file 0, and 7 needs both


def test_a_replaced_file_with_other_values_changes_the_packing_of_all_shards(months, monkeypatch):
    """Shards of the other files were packed with the unit of the first sample, and must not be kept with the new one."""
    Path("r.yaml").write_text(RECIPE.replace("files/*.nc", "files/*.nc, variables: [2m_temperature]"))
    temperature = (months.u10 + 280).assign_attrs(units="K").to_dataset(name="t2m")
    for number, part in enumerate((slice(0, 125), slice(125, 250), slice(250, 360))):
        temperature.isel(time=part).to_netcdf(f"files/{number}.nc")
    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.data.store.building.training_statistics", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("run")
    temperature["t2m"] += 15
    temperature.isel(time=part).to_netcdf("files/2.nc")
    assert bytes_of(prepare("run"), metadata=False) == bytes_of(prepare("whole"), metadata=False)


def test_marks_without_a_store_are_ignored(months, monkeypatch):
    """A run was killed after the store got its name but before its marks were removed. If that store is deleted, all is made again."""
    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.weather.stages.prepare.shutil.rmtree", lambda *arguments, **options: None)
        expected = bytes_of(prepare("run"))
    assert names_in("run") == [".analysis.partial.marks", "analysis.zarr"]
    Path("run/analysis.zarr").rename("before.zarr")
    assert bytes_of(prepare("run")) == expected
    assert names_in("run") == ["analysis.zarr"]


def test_an_unfinished_store_of_another_recipe_is_not_lost(months, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.data.store.building.training_statistics", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare("run")
    marks = names_in("run/.analysis.partial.marks")
    with pytest.raises(UserError, match=r"is unfinished and of another recipe; finish it with that one, or discard it with --overwrite"):
        prepare("run", grid="12x6")
    assert names_in("run/.analysis.partial.marks") == marks
    assert open_analysis(prepare("run", grid="12x6", overwrite=True)).grid.name == "12x6"
    assert names_in("run") == ["analysis.zarr"]


@pytest.mark.slow
def test_a_simulated_planet_continues_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (shards, building):
        monkeypatch.setattr(module, "SHARD", 16)
    Path("r.yaml").write_text(TINY)
    expected = bytes_of(prepare("whole"))
    written: list[int] = []

    def failing(store, shard, mark, parts):
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        written.append(shard)
        return shards.write_shard(store, shard, mark, parts)

    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.data.store.building.write_shard", failing)
        with pytest.raises(OSError, match="No space"):
            prepare("run")
    written.clear()
    monkeypatch.setattr("wsdcast.data.store.building.write_shard", lambda *all: written.append(all[1]) or shards.write_shard(*all))
    assert bytes_of(prepare("run")) == expected
    assert written == [4, 5, 6, 7]


@pytest.mark.parametrize("links", [True, False])
def test_a_finished_shard_is_taken_over_by_a_link_or_a_copy_until_its_mark_is_outdated(tmp_path, monkeypatch, links):
    finished, store = tmp_path / "finished.zarr", tmp_path / "new.zarr"
    files = [parent / name / "c/3/0/0" for parent in (finished, store) for name in ("u", "v")]
    for file in files[:3]:
        file.parent.mkdir(parents=True)
        file.write_text("old" if store in file.parents else file.parts[-5])
    marks_of(store).mkdir()
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: Path("nowhere").stat())
    assert not shards.is_written(store, ["u"], 3, "digest")  # it has no mark
    shards.link_shard(store, ["u", "v"], finished, 3, "digest")
    assert [file.read_text() for file in files[2:]] == ["u", "v"]
    assert [file.stat().st_nlink for file in files] == [1 + links] * 4
    assert shards.is_written(store, ["u", "v"], 3, "digest")
    assert not shards.is_written(store, ["u", "v", "w"], 3, "digest")
    shards.remove_outdated(store, ["u", "v"], ["other", "other", "other", "digest"])
    assert files[2].exists()
    shards.remove_outdated(store, ["u"], ["digest"] * 3 if links else ["digest"] * 3 + ["other"])
    assert [file.exists() for file in files] == [True, True, False, True]


def test_fewer_shards_of_more_channels_are_made_at_the_same_time():
    assert [shards.shards_per_graph(channels) for channels in (1, 2, 3, 8, 24)] == [8, 4, 2, 1, 1]


def test_newer_months_are_appended(months):
    """The finished store is unchanged until the longer one is complete. Split and statistics stay, so the networks remain valid."""
    Path("later").mkdir()
    Path("files/2.nc").rename("later/2.nc")
    Path("r.yaml").write_text(RECIPE.replace("03-10", "02-20").replace("03-01", "02-10"))
    store = prepare("run")
    before, attributes = bytes_of(store), json.loads((store / "zarr.json").read_text())["attributes"]
    inode = (store / "10m_u_component_of_wind/c/3/0/0").stat().st_ino
    Path("later/2.nc").rename("files/2.nc")
    with pytest.raises(UserError, match="add newer times with --append"):
        prepare("run")
    assert bytes_of(store) == before
    summary = wsdcast.prepare(run="run", append=True)  # with the recipe of the store
    assert "110 times appended to 250" in summary.facts["notes"]
    assert names_in("run") == ["analysis.zarr"]
    record = open_analysis(store)
    np.testing.assert_array_equal(record.times, months.time.values)
    whole = prepare("whole")
    np.testing.assert_array_equal(record.states[:], open_analysis(whole).states[:])
    full = {f"{name}/c/{shard}/0/0" for name in DEFAULT for shard in range(250 // 16)}
    assert all((store / name).read_bytes() == before[name] for name in full)
    assert (store / "10m_u_component_of_wind/c/3/0/0").stat().st_ino == inode  # linked, not copied
    after = json.loads((store / "zarr.json").read_text())["attributes"]
    assert after["normalisation"] == attributes["normalisation"]
    assert json.loads(after["wsdcast"])["id"] == json.loads(attributes["wsdcast"])["id"]
    assert (after["validation_from"], after["test_from"]) == (attributes["validation_from"], attributes["test_from"])
    assert wsdcast.prepare("r.yaml", "run").facts == {"current": "run/analysis.zarr"}
    assert "nothing newer" in wsdcast.prepare(run="run", append=True).facts["current"]


@pytest.fixture
def grown(months) -> Path:
    """Return a store of two months with the default split. The third month is in ``2.nc``."""
    Path("r.yaml").write_text("name: r\ndata: {source: files/*.nc, grid: 8x4}")
    Path("files/2.nc").rename("2.nc")
    return prepare("run")


def test_statistics_are_marked_as_stale_or_computed_again(grown):
    before = open_analysis(grown)
    assert not before.statistics_are_stale
    summary = wsdcast.prepare(run="run", source="2.nc", append=True)
    stale = open_analysis(grown)
    assert stale.statistics_are_stale
    assert "--append --recompute" in summary.facts["statistics"]
    np.testing.assert_array_equal(stale.mean, before.mean)
    assert stale.test_from == before.test_from
    Path("2.nc").rename("files/2.nc")
    identity = json.loads(json.loads((grown / "zarr.json").read_text())["attributes"]["wsdcast"])["id"]
    wsdcast.prepare(run="run", append=True, recompute=True)
    fresh = open_analysis(grown)
    assert not fresh.statistics_are_stale
    assert fresh.test_from > before.test_from
    assert bytes_of(grown, metadata=False) == bytes_of(prepare("whole"), metadata=False)
    np.testing.assert_array_equal(fresh.std, open_analysis(Path("whole/analysis.zarr")).std)
    assert json.loads(json.loads((grown / "zarr.json").read_text())["attributes"]["wsdcast"])["id"] != identity


def test_appending_killed_keeps_the_finished_store(grown, monkeypatch):
    before = bytes_of(grown)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wsdcast.prepare(run="run", source="2.nc", append=True)
    assert bytes_of(grown) == before
    wsdcast.prepare(run="run", source="2.nc", append=True)
    assert open_analysis(grown).times.size == 360


def test_appending_goes_on_with_a_source_that_was_replaced(grown, months, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.data.store.building.add_variables", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wsdcast.prepare(run="run", source="2.nc", append=True)
    wind_dataset(months.time.values[250:], LATITUDES, LONGITUDES).to_netcdf("2.nc")  # other values, as it has another number of them
    wsdcast.prepare(run="run", source="2.nc", append=True)
    Path("2.nc").rename("files/2.nc")
    np.testing.assert_array_equal(open_analysis(grown).states[:], open_analysis(prepare("whole")).states[:])


def test_room_that_was_enough_at_the_beginning_is_enough_to_go_on(months, monkeypatch):
    """The whole size was needed again, so that a run that was killed could not go on. Linked shards take no room."""
    Path("r.yaml").write_text("name: r\ndata: {source: files/*.nc, grid: 32x16}")
    Path("files/2.nc").rename("2.nc")
    store = prepare("run")
    with monkeypatch.context() as patch:
        patch.setattr("wsdcast.data.store.building.add_variables", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wsdcast.prepare(run="run", source="2.nc", append=True)
    files = [path.stat() for path in Path("run/.analysis.partial.zarr").rglob("*") if path.is_file()]
    assert sum(file.st_nlink > 1 for file in files) == 2 * (250 // 16)
    needed = 2 * 2 * 110 * 32 * 16 - sum(file.st_size for file in files if file.st_nlink == 1)
    for free in (needed - 1, needed):
        monkeypatch.setattr("wsdcast.runs.resources.shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if free < needed:
            with pytest.raises(UserError, match="on disk, but only"):
                wsdcast.prepare(run="run", source="2.nc", append=True)
        else:
            wsdcast.prepare(run="run", source="2.nc", append=True)
    assert open_analysis(store).times.size == 360


def test_impossible_appends_are_refused(grown, tmp_path):
    for options, message in (
        ({"run": "none"}, "nothing can be appended to it"),
        ({"run": "run", "source": "2.nc", "grid": "12x6"}, "was made with grid 8x4; 12x6 cannot be appended"),
        ({"run": "run", "source": "planet"}, "a simulated record cannot be appended to"),
    ):
        with pytest.raises(UserError, match=message):
            wsdcast.prepare(append=True, **options)
    with pytest.raises(UserError, match="--recompute needs --append"):
        wsdcast.prepare("r.yaml", "run", recompute=True)


def test_earlier_times_cannot_be_appended(months):
    Path("files/0.nc").rename("0.nc")
    prepare("run")
    Path("0.nc").rename("files/0.nc")
    wind_dataset(six_hourly("2020-04-01", 3), LATITUDES, LONGITUDES).to_netcdf("files/3.nc")
    summary = wsdcast.prepare(run="run", append=True)
    assert "125 times that the store lacks are earlier than its end and left out" in summary.facts["notes"]
    assert open_analysis(Path("run/analysis.zarr")).times.size == 235 + 3


def test_a_store_of_many_years_has_hundreds_of_files(tmp_path):
    """The 93,544 steps of all of ERA5 are 183 shards of each component. A store has one file per shard."""
    assert -(-93544 // shards.SHARD) == 183
    wind = wind_dataset(six_hourly("2020-01-01", 1100), LATITUDES, LONGITUDES)
    wind.to_netcdf(tmp_path / "wind.nc")
    wsdcast.prepare(source=str(tmp_path / "wind.nc"), grid="8x4", run=tmp_path / "run")
    files = list((tmp_path / "run/analysis.zarr/10m_u_component_of_wind/c").rglob("0/0/0"))
    assert len(files) == 1
    assert len(list((tmp_path / "run/analysis.zarr/10m_u_component_of_wind/c").glob("*"))) == 3
