"""Analyses of open data: addresses, indices, transfer from mirrors that fail in every way, and the record made from them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import wind_of
from servers import Files, serve
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.sources import open_data
from wsdcast.data.sources.layout import fields_of, order_of, values_of
from wsdcast.data.sources.mirrors import are_messages
from wsdcast.data.sources.open_data import MissingError, fetch, newest
from wsdcast.data.sources.open_data_layouts import ATTRIBUTION, ROOTS, SYSTEMS, paths_of, ranges_of, roots_of
from wsdcast.data.sources.opening import REMOTE, open_dataset
from wsdcast.runs.errors import UserError

pytest.importorskip("eccodes")

from grib_messages import COLUMNS, ROWS, message
from open_data_mirror import publish, wind_at

TIME = np.datetime64("2026-06-02T06", "ns")
STEP = np.timedelta64(6, "h")


@dataclass
class Mirror:
    """A local server in the place of the public mirrors."""

    root: Path
    url: str
    handler: type[Files]
    cache: Path
    patch: pytest.MonkeyPatch

    def requests(self, path: Path) -> int:
        return self.handler.requests[str(path.relative_to(self.root))]

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def roots(self, *urls: str) -> None:
        for system in SYSTEMS:
            self.patch.setenv(f"WSDCAST_{system.upper()}_ROOTS", ",".join(urls))

    def clock(self, text: str) -> None:
        self.patch.setattr(open_data, "_now", lambda: datetime.fromisoformat(text))

    def cached(self) -> list[str]:
        return sorted(path.name for path in self.cache.rglob("*") if path.is_file())


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("WSDCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(
        REMOTE,
        "retry_config",
        {"max_retries": 3, "backoff": {"init_backoff": timedelta(seconds=0.01), "max_backoff": timedelta(seconds=0.02)}},
    )
    (tmp_path / "mirror").mkdir()
    with serve(tmp_path / "mirror") as (url, handler):
        result = Mirror(tmp_path / "mirror", url, handler, tmp_path / "cache", monkeypatch)
        result.roots(url)
        result.clock("2026-06-03T00:40")
        yield result


def read(path: Path) -> np.ndarray:
    with open_dataset(str(path)) as dataset:
        wind = wind_of(dataset)
        rows = order_of(wind.u)[0]
        assert rows.size == wind.sizes["latitude"]
        return np.concatenate([values_of(wind[name], np.array([0])) for name in "uv"])


def assert_is_wind(path: Path, time: np.datetime64) -> None:
    np.testing.assert_allclose(read(path), wind_at(time), atol=1e-4)


ADDRESSES = {
    ("gfs", "2026-06-02T06"): "gfs.20260602/06/atmos/gfs.t06z.pgrb2.0p25.f000",
    ("gfs", "2021-03-23T00"): "gfs.20210323/00/atmos/gfs.t00z.pgrb2.0p25.f000",
    ("gfs", "2021-03-22T18"): "gfs.20210322/18/gfs.t18z.pgrb2.0p25.f000",
    ("ifs", "2026-06-02T06"): "20260602/06z/ifs/0p25/oper/20260602060000-0h-oper-fc.grib2",
    ("ifs", "2026-05-12T06"): "20260512/06z/ifs/0p25/oper/20260512060000-0h-oper-fc.grib2",
    ("ifs", "2026-05-12T00"): "20260512/00z/ifs/0p25/oper/20260512000000-0h-oper-fc.grib2",
    ("ifs", "2026-05-11T18"): "20260511/18z/ifs/0p25/scda/20260511180000-0h-scda-fc.grib2",
    ("ifs", "2026-05-11T12"): "20260511/12z/ifs/0p25/oper/20260511120000-0h-oper-fc.grib2",
    ("ifs", "2025-01-01T06"): "20250101/06z/ifs/0p25/scda/20250101060000-0h-scda-fc.grib2",
}


def test_addresses():
    for (system, time), address in ADDRESSES.items():
        index = f"{address}.idx" if system == "gfs" else address.replace(".grib2", ".index")
        assert paths_of(system, np.datetime64(time, "ns")) == (address, index)


@pytest.mark.parametrize("time", [time for system, time in ADDRESSES if system == "ifs"])
def test_the_same_bytes_as_with_ecmwf_opendata(mirror, tmp_path, time):
    """ECMWF's own package finds the fields at the same addresses of the same mirrors."""
    opendata = pytest.importorskip("ecmwf.opendata", reason="needs `pip install ecmwf-opendata`")
    assert tuple(opendata.Client(source=name).source.url for name in ("google", "aws", "ecmwf")) == ROOTS["ifs"]
    publish(mirror.root, "ifs", np.datetime64(time, "ns"))
    request = {"date": time[:10], "time": int(time[11:]), "step": 0, "type": "fc", "param": ["10u", "10v"]}
    opendata.Client(source=mirror.url).retrieve(request, target=str(tmp_path / "wind"))
    (fetched,) = fetch("ifs", [np.datetime64(time)])
    assert fetched.read_bytes() == (tmp_path / "wind").read_bytes()


GFS_INDEX = b"""\
1:0:d=2026060206:PRMSL:mean sea level:anl:
2.1:1000:d=2026060206:UGRD:planetary boundary layer:anl:
2.2:1000:d=2026060206:VGRD:planetary boundary layer:anl:
3.1:2500:d=2026060206:UGRD:10 m above ground:anl:
3.2:2500:d=2026060206:VGRD:10 m above ground:anl:
4:4100:d=2026060206:UGRD:100 m above ground:anl:
"""


def test_indices():
    """A message of GFS ends at the next other offset. The last one ends with the file."""
    assert ranges_of("gfs", GFS_INDEX) == [(2500, 4100)]
    assert ranges_of("gfs", b"1:0:d=2026060206:VGRD:10 m above ground:anl:\n2:70:d=2026060206:UGRD:10 m above ground:anl:\n") == [
        (0, 70),
        (70, None),
    ]
    analysis = {"type": "fc", "levtype": "sfc", "step": "0"}
    fields = [
        analysis | {"param": "10v", "_offset": 900, "_length": 80},
        analysis | {"param": "10u", "_offset": 100, "_length": 70},
        analysis | {"param": "10u", "_offset": 1, "_length": 1, "step": "3"},
        analysis | {"param": "100u", "_offset": 2, "_length": 1},
        analysis | {"param": "10v", "_offset": 3, "_length": 1, "type": "pf"},
    ]
    lines = [json.dumps(field).encode() for field in fields]
    assert ranges_of("ifs", b"\n".join(lines)) == [(100, 170), (900, 980)]
    with pytest.raises(ValueError, match="has no 10 m wind u"):
        ranges_of("ifs", lines[0])
    with pytest.raises(ValueError, match="has no 10 m wind u and v"):
        ranges_of("gfs", GFS_INDEX[:43])
    for system, damaged in (
        ("ifs", lines[0][:-5]),
        ("ifs", b"[1]"),
        ("gfs", b""),
        ("gfs", b"<html>"),
        ("gfs", b"1:x:d=1:UGRD:a:b:"),
        ("gfs", b"\xff"),
    ):
        with pytest.raises(ValueError, match="its index cannot be read"):
            ranges_of(system, damaged)


@pytest.mark.parametrize(("system", "shared", "count"), [("gfs", False, 1), ("gfs", True, 1), ("ifs", False, 2)])
def test_only_the_wind_is_fetched_and_only_once(mirror, system, shared, count):
    """Ranges that touch are one request. In IFS there is a field between u and v."""
    path = publish(mirror.root, system, TIME, shared=shared)
    (fetched,) = fetch(system, [TIME])
    assert_is_wind(fetched, TIME)
    assert len(mirror.handler.ranges) == count
    asked = sum(int(last) + 1 - int(first) for first, last in (text[6:].split("-") for text in mirror.handler.ranges))
    assert fetched.stat().st_size == asked < path.stat().st_size - 100
    before = mirror.handler.requests.copy()
    assert fetch(system, [TIME]) == [fetched]
    assert mirror.handler.requests == before
    assert mirror.cached() == [f"{system}-2026-06-02T06.grib2"]


def test_many_times_in_order(mirror):
    times = TIME + STEP * np.arange(20)
    for time in times:
        publish(mirror.root, "ifs", time)
    for path, time in zip(fetch("ifs", times[::-1]), times[::-1], strict=True):
        assert_is_wind(path, time)


@pytest.mark.parametrize("fault", [503, 429, 500, "cut"])
@pytest.mark.parametrize("which", ["index", "file"])
def test_three_failures_are_waited_out(mirror, fault, which):
    path = publish(mirror.root, "gfs", TIME)
    name = mirror.name(path) + (".idx" if which == "index" else "")
    if fault == "cut":
        mirror.handler.cut[name] = 3
    else:
        mirror.patch.setattr(mirror.handler, "status", fault)
        mirror.handler.failures[name] = 3
    (fetched,) = fetch("gfs", [TIME])
    assert_is_wind(fetched, TIME)
    assert mirror.handler.requests[name] == (4 if which == "index" else 5)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shift(path: Path) -> None:
    path.write_bytes(b"\0" * 8 + path.read_bytes())


def replace_wind(path: Path) -> None:
    """The file is one with fields in another order."""
    index = Path(f"{path}.idx")
    lines = index.read_text().replace("UGRD:planetary", "X").replace("UGRD:10 m above ground", "Y").splitlines()
    index.write_text("\n".join(line.replace(":X boundary layer", ":UGRD:10 m above ground") for line in lines) + "\n")


def damage_index(path: Path) -> None:
    Path(f"{path}.idx").write_text("no index")


FAULTS = {
    "shortened": (shorten, "its file is shorter than its index says"),
    "shifted": (shift, "there are no whole GRIB messages where its index says"),
    "others": (replace_wind, "its index and its file disagree: where the wind should be is v at 2026-06-02T06:00"),
    "index": (damage_index, "its index cannot be read"),
    "away": (Path.unlink, "not there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_at_one_mirror_is_taken_from_the_next(mirror, tmp_path, fault):
    damage, reason = FAULTS[fault]
    damage(publish(mirror.root, "gfs", TIME))
    with pytest.raises(MissingError) as error:
        fetch("gfs", [TIME])
    assert str(error.value) == f"gfs: the analysis of 2026-06-02T06:00 cannot be fetched ({mirror.url}: {reason})"
    assert error.value.times == [TIME]
    assert mirror.cached() == []
    publish(tmp_path / "second", "gfs", TIME)
    mirror.roots(mirror.url, f"file://{tmp_path}/second")
    assert_is_wind(*fetch("gfs", [TIME]), TIME)


def test_what_whole_messages_are():
    u, v = message(np.zeros((ROWS, COLUMNS))), message(np.ones((ROWS, COLUMNS)))
    assert are_messages(u)
    assert are_messages(u + v)
    length_of_zero = b"GRIB" + bytes(12)
    for content in (b"", u[:-1], u + v[:-1], u[1:], u + b" ", u + length_of_zero, u + length_of_zero + b"7777"):
        assert not are_messages(content)


def test_messages_of_another_time_are_refused(mirror):
    publish(mirror.root, "ifs", TIME, valid=TIME - 4 * STEP)
    with pytest.raises(MissingError, match="where the wind should be is u at 2026-06-01T06:00, v at 2026-06-01T06:00"):
        fetch("ifs", [TIME])


def test_a_range_that_is_cut_short(mirror, tmp_path):
    path = publish(mirror.root, "gfs", TIME)
    mirror.handler.short[mirror.name(path)] = 1
    with pytest.raises(MissingError, match="its file is shorter than its index says"):
        fetch("gfs", [TIME])
    assert_is_wind(*fetch("gfs", [TIME]), TIME)


def test_a_mirror_that_does_not_answer_is_asked_last_from_then_on(mirror, tmp_path):
    times = TIME + STEP * np.arange(3)
    for time in times:
        publish(tmp_path / "second", "gfs", time)
        mirror.handler.failures[f"{paths_of('gfs', time)[1]}"] = 99
    mirror.patch.setattr(mirror.handler, "status", 503)
    mirror.patch.setattr(open_data, "CONNECTIONS", 1)
    mirror.roots(mirror.url, f"file://{tmp_path}/second")
    for path, time in zip(fetch("gfs", times), times, strict=True):
        assert_is_wind(path, time)
    assert mirror.handler.requests == {paths_of("gfs", TIME)[1]: 4}


def test_missing_analyses_are_named_and_the_others_kept(mirror):
    times = TIME + STEP * np.arange(10)
    publish(mirror.root, "gfs", times[1])
    with pytest.raises(MissingError) as error:
        fetch("gfs", times)
    assert error.value.times == [times[0], *times[2:]]
    assert "nor can 2026-06-02T18:00, 2026-06-03T00:00, 2026-06-03T06:00, 2026-06-03T12:00, 2026-06-03T18:00 and 3 more" in str(error.value)
    assert mirror.cached() == ["gfs-2026-06-02T12.grib2"]


def test_no_network_at_all_is_one_line(mirror):
    mirror.roots("http://127.0.0.1:9", "http://127.0.0.1:10")
    reasons = r"\(http://127.0.0.1:9: no connection; http://127.0.0.1:10: no connection\)"
    with pytest.raises(UserError, match=f"gfs: the analysis of 2026-06-02T06:00 cannot be fetched from any mirror {reasons}"):
        fetch("gfs", TIME + STEP * np.arange(100))
    with pytest.raises(UserError, match=f"ifs: the newest cycle cannot be fetched from any mirror {reasons}"):
        newest("ifs")


def test_without_eccodes_nothing_is_fetched(mirror):
    mirror.patch.setattr(open_data, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gfs: reading GRIB needs `pip install 'wsdcast\[grib\]'`"):
        fetch("gfs", [TIME])


def test_a_server_that_stays_busy_is_named(mirror):
    path = publish(mirror.root, "gfs", TIME)
    mirror.patch.setattr(mirror.handler, "status", 503)
    mirror.handler.failures[mirror.name(path)] = 99
    with pytest.raises(UserError, match="503 Service Unavailable"):
        fetch("gfs", [TIME])


def test_a_cached_file_that_is_not_whole_is_fetched_again(mirror):
    path = publish(mirror.root, "gfs", TIME)
    (fetched,) = fetch("gfs", [TIME])
    whole = fetched.read_bytes()
    fetched.with_suffix(".1.partial").write_bytes(whole[:100])  # as after kill -9
    for damaged in (whole[:-1], b"", whole[:50]):
        fetched.write_bytes(damaged)
        assert fetch("gfs", [TIME]) == [fetched]
        assert fetched.read_bytes() == whole
    assert mirror.requests(path) == 4 * 2


def test_other_mirrors_have_a_cache_of_their_own(mirror, tmp_path):
    publish(mirror.root, "gfs", TIME)
    publish(tmp_path / "second", "gfs", TIME)
    (first,) = fetch("gfs", [TIME])
    mirror.roots(f"file://{tmp_path}/second")
    assert fetch("gfs", [TIME]) != [first]
    mirror.patch.delenv("WSDCAST_GFS_ROOTS")
    assert open_data._cache("gfs") == mirror.cache / "gfs"
    mirror.patch.setenv("WSDCAST_CACHE", str(first))
    with pytest.raises(UserError, match="WSDCAST_CACHE names another directory"):
        fetch("gfs", [TIME])


def test_addresses_of_mirrors_that_cannot_be_used(mirror):
    mirror.roots("s3://bucket")
    with pytest.raises(UserError, match="WSDCAST_GFS_ROOTS: 's3://bucket' does not begin with http://, https:// or file://"):
        newest("gfs")
    mirror.roots(" https://a/b/ ", "", "http://c")
    assert roots_of("gfs") == ("https://a/b", "http://c")
    mirror.roots("http://[")
    with pytest.raises(UserError, match="cannot be used"):
        newest("gfs")
    with pytest.raises(UserError, match="'era5': open data of analyses are gfs and ifs"):
        newest("era5")


def test_the_newest_complete_cycle(mirror):
    """The clock is past midnight: the newest cycles are of the day before. One is not there yet, one has an index alone."""
    moment = np.datetime64("2026-06-03T00", "ns")
    for system in SYSTEMS:
        for back in (1, 2, 3, 4):
            publish(mirror.root, system, moment - back * STEP)
        assert newest(system) == open_data.Newest(moment - STEP, [moment])
        path = mirror.root / paths_of(system, moment - STEP)[0]
        path.unlink()
        assert newest(system) == open_data.Newest(moment - 2 * STEP, [moment, moment - STEP])
        shorten(mirror.root / paths_of(system, moment - 2 * STEP)[0])
        (mirror.root / paths_of(system, moment - 3 * STEP)[1]).write_text("")
        assert newest(system).time == moment - 4 * STEP
        publish(mirror.root, system, moment)
        assert newest(system) == open_data.Newest(moment, [])
        mirror.clock("2026-06-05T05:59")
        assert newest(system).time == moment
        assert len(newest(system).skipped) == 8
        mirror.clock("2026-06-05T06:00")
        with pytest.raises(UserError, match=f"{system}: no cycle of the last two days is complete.*2026-06-03T06:00.*not there"):
            newest(system)
        mirror.clock("2026-06-03T00:40")


def test_a_cycle_that_is_complete_at_the_second_mirror(mirror, tmp_path):
    moment = np.datetime64("2026-06-03T00", "ns")
    publish(mirror.root, "ifs", moment).unlink()
    publish(tmp_path / "second", "ifs", moment)
    mirror.roots(mirror.url, "http://127.0.0.1:9", f"file://{tmp_path}/second")
    assert newest("ifs").time == moment


TIMES = np.datetime64("2026-05-08T18", "ns") + STEP * np.arange(36)  # IFS changes its streams in this period


def prepare(tmp_path: Path, system: str, run: str = "run", **changes: Any) -> Any:
    return wsdcast.prepare(source=system, grid="8x5", run=tmp_path / run, **{"start": "2026-05-08T13", "end": "2026-05-17T17"} | changes)


def assert_holds(path: Path, times: np.ndarray) -> None:
    with xr.open_zarr(path) as store:
        np.testing.assert_array_equal(store.time.values, times)
        for index, time in enumerate(times):
            for channel, name in enumerate(("10m_u_component_of_wind", "10m_v_component_of_wind")):
                np.testing.assert_allclose(store[name].values[index], wind_at(time)[channel], atol=0.003)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_record_is_prepared_and_appended_to(mirror, tmp_path, system):
    for time in TIMES:
        publish(mirror.root, system, time)
    summary = prepare(tmp_path, system)
    assert_holds(tmp_path / "run/analysis.zarr", TIMES)
    assert summary.facts["attribution"] == ATTRIBUTION[system]
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        assert store.attrs["attribution"] == ATTRIBUTION[system]
    mirror.handler.requests.clear()
    assert "current" in prepare(tmp_path, system).facts
    later = TIMES[-1] + STEP * np.arange(1, 4)
    for time in later:
        publish(mirror.root, system, time)
    mirror.clock("2026-05-18T14:00")
    summary = prepare(tmp_path, system, append=True, end=None)
    assert not mirror.handler.requests  # the end of the recipe is reached
    assert "nothing newer" in summary.facts["current"]
    summary = prepare(tmp_path, system, append=True, end="2026-06-01")
    assert f"the newest cycle of {system} is 2026-05-18T06:00; not complete yet: 2026-05-18T12:00" in summary.facts["notes"]
    assert_holds(tmp_path / "run/analysis.zarr", np.concatenate([TIMES, later]))
    assert sum(str(TIMES[0])[:10].replace("-", "") in name for name in mirror.handler.requests) == 0
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        assert store.attrs["attribution"] == ATTRIBUTION[system]


def test_another_system_is_appended_with_its_attribution(mirror, tmp_path):
    for time in TIMES:
        publish(mirror.root, "gfs", time)
    prepare(tmp_path, "gfs")
    for time in TIMES[-2:]:
        publish(mirror.root, "ifs", time)
    publish(mirror.root, "ifs", TIMES[-1] + STEP)
    prepare(tmp_path, "ifs", append=True, end="2026-05-17T18")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        assert store.attrs["attribution"] == f"{ATTRIBUTION['gfs']}; {ATTRIBUTION['ifs']}"
        assert store.sizes["time"] == TIMES.size + 1


def test_a_missing_cycle_is_named_and_becomes_a_gap_only_when_asked(mirror, tmp_path):
    for time in np.delete(TIMES, [15, 24]):
        publish(mirror.root, "gfs", time)
    with pytest.raises(
        UserError, match=r"2026-05-12T12:00 cannot be fetched .*not there\), nor can 2026-05-14T18:00; --skip (\S*) "
    ) as error:
        prepare(tmp_path, "gfs")
    assert not (tmp_path / "run/analysis.zarr").exists()
    skip = str(error.value).split("--skip ")[1].split()[0]
    assert skip == "2026-05-12T12,2026-05-14T18"
    summary = prepare(tmp_path, "gfs", skip=skip.split(","))
    assert "gaps by --skip: 2026-05-12T12:00, 2026-05-14T18:00" in summary.facts["notes"]
    assert_holds(tmp_path / "run/analysis.zarr", np.delete(TIMES, [15, 24]))


def test_periods_that_cannot_be(mirror, tmp_path):
    with pytest.raises(UserError, match=r"gfs needs the first time to fetch: --start, or data.start in the recipe"):
        prepare(tmp_path, "gfs", start=None)
    with pytest.raises(UserError, match="there is no analysis to fetch from 2026-05-08T18:00 to 2026-05-08T12:00"):
        prepare(tmp_path, "gfs", end="2026-05-08T14")


@pytest.mark.slow
def test_killed_while_fetching_and_repeated_it_gives_the_same_bytes(mirror, tmp_path):
    for time in TIMES:
        publish(mirror.root, "gfs", time)
    goes_on, answer = Event(), mirror.handler.answer

    def answer_later(self: Files, body: bool) -> None:
        if self.path.endswith(paths_of("gfs", TIMES[20])[1]):
            goes_on.wait()
        answer(self, body)

    mirror.patch.setattr(mirror.handler, "answer", answer_later)
    how = ["--grid", "8x5", "--start", str(TIMES[0])[:13], "--end", str(TIMES[-1])[:13]]
    command = [sys.executable, "-m", "wsdcast", "prepare", "--source", "gfs", *how, "--run"]
    process = subprocess.Popen([*command, str(tmp_path / "run")])
    while len(mirror.cached()) < 15:
        assert process.poll() is None
        sleep(0.05)
    process.kill()
    process.wait()
    kept = len(mirror.cached())
    goes_on.set()
    mirror.handler.requests.clear()
    subprocess.run([*command, str(tmp_path / "run")], check=True, stdout=subprocess.DEVNULL)
    assert sum(name.endswith(".idx") for name in mirror.handler.requests) <= TIMES.size - kept + 8  # unfinished ones at most
    subprocess.run([*command, str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL)
    first, second = (
        {path.relative_to(tmp_path / run): path.read_bytes() for path in (tmp_path / run).rglob("*") if path.is_file()}
        for run in ("run", "whole")
    )
    assert first == second


def test_on_the_command_line(mirror, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for time in TIMES:
        publish(mirror.root, "ifs", time)
    how = ["--grid", "8x5", "--run", "run", "--start", "2026-05-08T18", "--end", "2026-05-17"]
    checked = CliRunner().invoke(app, ["prepare", "--check", "ifs", *how, "--json"])
    assert checked.exit_code == 2  # the last cycle of that day is not there
    assert "2026-05-17T18:00 cannot be fetched" in checked.stderr
    assert len(checked.stderr.splitlines()) == 1
    how[-1] = "2026-05-17T12"
    checked = CliRunner().invoke(app, ["prepare", "--check", "ifs", *how, "--json"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["facts"]["steps"] == "36 at 00, 06, 12 and 18 UTC, 0 gaps"
    assert not Path("run").exists()
    before = mirror.handler.requests.copy()
    prepared = CliRunner().invoke(app, ["prepare", "--source", "ifs", *how])
    assert prepared.exit_code == 0, prepared.output
    assert mirror.handler.requests == before
    assert_holds(Path("run/analysis.zarr"), TIMES)


UPPER = ("10m_u_component_of_wind", "temperature@850", "geopotential@500", "mean_sea_level_pressure")


def add_upper(path: Path, system: str, time: np.datetime64) -> dict[str, np.ndarray]:
    """Add three fields to a published analysis and its index. Return the fields by channel, geopotential in m2 s-2."""
    day, clock = str(time).replace("-", "").split("T")
    when = {"dataDate": int(day[:8]), "dataTime": int(clock[:2]) * 100}
    random = np.random.default_rng(5)
    fields = {name: random.normal(mean, std, (5, 8)) for name, mean, std in zip(UPPER[1:], (275, 5700, 101000), (8, 90, 900), strict=True)}
    pressure = "prmsl" if system == "gfs" else "msl"
    on_level = {"typeOfLevel": "isobaricInhPa"}
    keys = [{"shortName": "t", **on_level, "level": 850}, {"shortName": "gh", **on_level, "level": 500}, {"shortName": pressure}]
    index = path.with_suffix(".index") if system == "ifs" else path.with_name(path.name + ".idx")
    texts = {"gfs": ("TMP:850 mb", "HGT:500 mb", "PRMSL:mean sea level"), "ifs": (("t", "850"), ("gh", "500"), ("msl", ""))}[system]
    for field, key, text in zip(fields.values(), keys, texts, strict=True):
        content, offset = message(field, **when, **key), path.stat().st_size
        with path.open("ab") as file:
            file.write(content)
        line = f"9:{offset}:d={day[:8]}{clock[:2]}:{text}:anl:"
        if system == "ifs":
            place = {"levtype": "pl", "levelist": text[1]} if text[1] else {"levtype": "sfc"}
            line = json.dumps({"type": "fc", "step": "0", "param": text[0], "_offset": offset, "_length": len(content)} | place)
        with index.open("a") as file:
            file.write(f"{line}\n")
    return fields | {"geopotential@500": 9.80665 * fields["geopotential@500"]}


@pytest.mark.parametrize("system", SYSTEMS)
def test_any_variable_of_an_analysis_is_fetched(mirror, system):
    path = publish(mirror.root, system, TIME)
    fields = add_upper(path, system, TIME) | {UPPER[0]: wind_at(TIME)[0]}
    (fetched,) = fetch(system, [TIME], UPPER)
    assert fetched.stat().st_size < path.stat().st_size
    read_fields = fields_of(open_dataset(str(fetched), UPPER), UPPER)
    assert set(read_fields) == {(name,) for name in UPPER}
    for name in UPPER:
        np.testing.assert_allclose(values_of(read_fields[(name,)], np.array([0]))[0], fields[name], rtol=1e-5, atol=1e-4)
    count = len(mirror.handler.ranges)
    assert fetch(system, [TIME], UPPER) == [fetched]  # from the cache
    assert len(mirror.handler.ranges) == count
    assert fetch(system, [TIME]) != [fetched]  # the wind alone has a file of its own
    assert newest(system, UPPER).time == TIME


def test_variables_that_an_analysis_lacks_are_named(mirror):
    publish(mirror.root, "gfs", TIME)
    with pytest.raises(UserError, match=r"gfs: its open data have no toa_incident_solar_radiation; they have 10m_u_component_of_wind, "):
        fetch("gfs", [TIME], ("toa_incident_solar_radiation",))
    with pytest.raises(MissingError, match=r"its index has no temperature@850, geopotential@500, mean_sea_level_pressure"):
        fetch("gfs", [TIME], UPPER)
