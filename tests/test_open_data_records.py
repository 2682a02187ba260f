"""Records made from analyses of open data: prepared, appended to, with gaps, killed and repeated, and with other variables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
import xarray as xr
from servers import Files
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.sources.layout import fields_of, values_of
from wsdcast.data.sources.open_data import MissingError, fetch, newest
from wsdcast.data.sources.open_data_layouts import ATTRIBUTION, SYSTEMS, paths_of
from wsdcast.data.sources.opening import open_dataset
from wsdcast.runs.errors import UserError

pytest.importorskip("eccodes")

from grib_messages import message
from open_data_mirror import (
    STEP,
    TIME,
    mirror_fixture,  # noqa: F401  (the tests take it by the name mirror)
    publish,
    wind_at,
)

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
    assert f"the newest cycle of {system} is 2026-05-18T06; not complete yet: 2026-05-18T12" in summary.facts["notes"]
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
    with pytest.raises(UserError, match=r"2026-05-12T12 cannot be fetched .*not there\), nor can 2026-05-14T18; --skip (\S*) ") as error:
        prepare(tmp_path, "gfs")
    assert not (tmp_path / "run/analysis.zarr").exists()
    skip = str(error.value).split("--skip ")[1].split()[0]
    assert skip == "2026-05-12T12,2026-05-14T18"
    summary = prepare(tmp_path, "gfs", skip=skip.split(","))
    assert "gaps by --skip: 2026-05-12T12, 2026-05-14T18" in summary.facts["notes"]
    assert_holds(tmp_path / "run/analysis.zarr", np.delete(TIMES, [15, 24]))


def test_periods_that_cannot_be(mirror, tmp_path):
    with pytest.raises(UserError, match=r"gfs needs the first time to fetch: --start, or data.start in the recipe"):
        prepare(tmp_path, "gfs", start=None)
    with pytest.raises(UserError, match="there is no analysis to fetch from 2026-05-08T18 to 2026-05-08T12"):
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
    how += ["-o", "name=gfs"]  # by default the name is that of the directory
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
    assert "2026-05-17T18 cannot be fetched" in checked.stderr
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
    assert newest(system, UPPER)[0] == TIME


def test_variables_that_an_analysis_lacks_are_named(mirror):
    publish(mirror.root, "gfs", TIME)
    with pytest.raises(UserError, match=r"gfs: its open data have no toa_incident_solar_radiation; they have 10m_u_component_of_wind, "):
        fetch("gfs", [TIME], ("toa_incident_solar_radiation",))
    with pytest.raises(MissingError, match=r"its index has no temperature@850, geopotential@500, mean_sea_level_pressure"):
        fetch("gfs", [TIME], UPPER)
