"""No command replaces what it reads by what it writes, however the two are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import invoke, refused
from random_forecast import made, written

from wsdcast.runs.errors import UserError
from wsdcast.runs.inputs import require_no_directories, require_no_input

READS = "which this command reads; choose another name"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """Return a run directory, run, in the working directory, with a forecast. There are also one.nc, its first initial time, and links."""
    monkeypatch.chdir(tmp_path)
    made().to_zarr(tmp_path / "run/forecast.zarr", zarr_format=2)
    made().isel(time=[0]).to_netcdf(tmp_path / "one.nc")
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "link.zarr").symlink_to("run/forecast.zarr")
    (tmp_path / "link.nc").symlink_to("one.nc")
    written(tmp_path / "places.csv")
    (tmp_path / "model-card.md").write_text("# of one.nc")
    (tmp_path / "climate.nc").write_text("not read before the names are compared")
    stations = "time,station,latitude,longitude,units,speed\n2020-02-01T06,A,10,10,m/s,5\n"
    written(tmp_path / "run/station_scores.csv", stations)
    return tmp_path / "run"


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        f"{command} {forecast} --to zarr --out {out} --region 0,30,40,72 --overwrite"
        for command in ("convert", "products")
        for forecast, out in (
            ("run", "run/forecast.zarr"),
            ("run", "./run/../run/forecast.zarr"),
            ("run", "link/forecast.zarr"),
            ("run", "link.zarr"),
            ("link.zarr", "run/forecast.zarr"),
            ("link", "run/forecast.zarr/inside.zarr"),
            ("one.nc", "one.nc/inside.zarr"),
        )
    ]
    + [
        "convert one.nc --to netcdf --out one.nc --overwrite",
        "convert link.nc --to netcdf --out one.nc --overwrite",
        "convert run --to netcdf --out run/forecast.zarr/inside.nc",
        "products one.nc --out one.nc --overwrite",
        "products run --at places.csv --out ./places.csv --overwrite",
        "products run --at places.csv --out run/forecast.zarr/places.csv",
        "products one.nc --climatology climate.nc --out climate.nc --overwrite",
        "forecast-page one.nc --out one.nc",
        "forecast-page one.nc --out link.nc",
        "forecast-page one.nc --out model-card.md",
        "forecast-page run --initial one.nc --out one.nc",
        "forecast-page run --out run/forecast.zarr/page.html",
    ],
)
def test_an_output_that_is_read_or_lies_in_what_is_read_is_refused(run, command):
    before = contents(run.parent)
    assert READS in (line := refused(*command.split()))
    assert line.startswith("wsdcast: --out ")
    assert contents(run.parent) == before


def test_an_output_that_holds_what_is_read_is_refused(run):
    run.rename("run.zarr")
    before = contents(run.parent)
    assert "--out run.zarr: holds run.zarr/forecast.zarr, which" in refused("convert", "run.zarr", "--to", "zarr", "--out", "run.zarr")
    assert contents(run.parent) == before


def test_a_table_of_observations_is_not_replaced_by_the_scores_at_its_stations(run):
    before = contents(run.parent)
    line = refused("score", "run", "--stations", "link/station_scores.csv", "--overwrite")
    assert "run/station_scores.csv: is link/station_scores.csv, which this command reads; choose another --run" in line
    assert contents(run.parent) == before


def test_a_url_is_no_file_in_the_working_directory(run):
    require_no_input([run.parent], ["https://example.org/one.nc"])
    with pytest.raises(UserError, match=f"{re.escape(str(run.parent))}: holds one.nc, {READS}"):
        require_no_input([run.parent], ["one.nc"])


def test_only_a_directory_in_the_place_of_a_file_is_refused(run):
    Path("report.html").mkdir()
    require_no_directories(run, run / "forecast.zarr", Path("one.nc"), Path("new.html"))
    with pytest.raises(UserError, match=r"^report\.html: is a directory, where a file is to be written; move it away$"):
        require_no_directories(Path("one.nc"), Path("report.html"))


@pytest.mark.parametrize("command", ["convert run --to zarr --out run/part.zarr", "products alone --out alone/products.nc"])
def test_outputs_next_to_what_is_read_are_written(run, command):
    Path("alone").mkdir()
    Path("one.nc").rename("alone/one.nc")  # a directory stands for the file in it
    before = contents(run.parent)
    assert invoke(*command.split()) == (0, "")
    assert contents(run.parent).items() > before.items()
