"""Analyses of open data: addresses, indices, and transfer from mirrors that fail in every way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsdcast.data.sources import open_data
from wsdcast.data.sources.mirrors import are_messages
from wsdcast.data.sources.open_data import MissingError, fetch, newest
from wsdcast.data.sources.open_data_layouts import ROOTS, SYSTEMS, paths_of, ranges_of, roots_of
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError

pytest.importorskip("eccodes")

from grib_messages import COLUMNS, ROWS, message
from open_data_mirror import (
    STEP,
    TIME,
    assert_is_wind,
    mirror_fixture,  # noqa: F401  (the tests take it by the name mirror)
    publish,
)

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
    assert ranges_of("gfs", GFS_INDEX, DEFAULT) == [(2500, 4100)]
    assert ranges_of("gfs", b"1:0:d=2026060206:VGRD:10 m above ground:anl:\n2:70:d=2026060206:UGRD:10 m above ground:anl:\n", DEFAULT) == [
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
    assert ranges_of("ifs", b"\n".join(lines), DEFAULT) == [(100, 170), (900, 980)]
    with pytest.raises(ValueError, match="has no 10m_u_component_of_wind"):
        ranges_of("ifs", lines[0], DEFAULT)
    with pytest.raises(ValueError, match="has no 10m_u_component_of_wind, 10m_v_component_of_wind"):
        ranges_of("gfs", GFS_INDEX[:43], DEFAULT)
    for system, damaged in (
        ("ifs", lines[0][:-5]),
        ("ifs", b"[1]"),
        ("gfs", b""),
        ("gfs", b"<html>"),
        ("gfs", b"1:x:d=1:UGRD:a:b:"),
        ("gfs", b"\xff"),
    ):
        with pytest.raises(ValueError, match="its index cannot be read"):
            ranges_of(system, damaged, DEFAULT)


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
    "others": (replace_wind, "its index and its file disagree: in the file is 10 m wind v at 2026-06-02T06"),
    "index": (damage_index, "its index cannot be read"),
    "away": (Path.unlink, "not there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_at_one_mirror_is_taken_from_the_next(mirror, tmp_path, fault):
    damage, reason = FAULTS[fault]
    damage(publish(mirror.root, "gfs", TIME))
    with pytest.raises(MissingError) as error:
        fetch("gfs", [TIME])
    assert str(error.value) == f"gfs: the analysis of 2026-06-02T06 cannot be fetched ({mirror.url}: {reason})"
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
    with pytest.raises(MissingError, match="in the file is 10 m wind u at 2026-06-01T06, 10 m wind v at 2026-06-01T06"):
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
    assert "nor can 2026-06-02T18, 2026-06-03T00, 2026-06-03T06, 2026-06-03T12, 2026-06-03T18 and 3 more" in str(error.value)
    assert mirror.cached() == ["gfs-2026-06-02T12.grib2"]


def test_no_network_at_all_is_one_line(mirror):
    mirror.roots("http://127.0.0.1:9", "http://127.0.0.1:10")
    reasons = r"\(http://127.0.0.1:9: no connection; http://127.0.0.1:10: no connection\)"
    with pytest.raises(UserError, match=f"gfs: the analysis of 2026-06-02T06 cannot be fetched from any mirror {reasons}"):
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
        assert newest(system) == (moment - STEP, [moment])
        path = mirror.root / paths_of(system, moment - STEP)[0]
        path.unlink()
        assert newest(system) == (moment - 2 * STEP, [moment, moment - STEP])
        shorten(mirror.root / paths_of(system, moment - 2 * STEP)[0])
        (mirror.root / paths_of(system, moment - 3 * STEP)[1]).write_text("")
        assert newest(system)[0] == moment - 4 * STEP
        publish(mirror.root, system, moment)
        assert newest(system) == (moment, [])
        mirror.clock("2026-06-05T05:59")
        assert newest(system)[0] == moment
        assert len(newest(system)[1]) == 8
        mirror.clock("2026-06-05T06:00")
        with pytest.raises(UserError, match=f"{system}: no cycle of the last two days is complete.*2026-06-03T06.*not there"):
            newest(system)
        mirror.clock("2026-06-03T00:40")


def test_a_cycle_that_is_complete_at_the_second_mirror(mirror, tmp_path):
    moment = np.datetime64("2026-06-03T00", "ns")
    publish(mirror.root, "ifs", moment).unlink()
    publish(tmp_path / "second", "ifs", moment)
    mirror.roots(mirror.url, "http://127.0.0.1:9", f"file://{tmp_path}/second")
    assert newest("ifs")[0] == moment
