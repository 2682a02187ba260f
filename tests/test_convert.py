"""Members as NetCDF, Zarr and GRIB 2: the same values, members and lead times when they are read back, by us and by other tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import commands
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.variables import DEFAULT
from wsdcast.output.fields import open_fields
from wsdcast.output.grib2 import BITS
from wsdcast.runs.errors import UserError

GRID = Grid.regular("16x9")
HOUR = np.timedelta64(1, "h")
STARTS = np.datetime64("2020-02-01T06", "ns") + 24 * HOUR * np.arange(2)
LEADS = (HOUR * np.arange(6, 66, 6)).astype("timedelta64[ns]")
AXES = ("time", "number", "prediction_timedelta", "latitude", "longitude")
WIND = np.random.default_rng(0).normal(0, 9, (2, STARTS.size, 3, LEADS.size, *GRID.shape)).astype(np.float32)
WIND[:, 0, 1, 4:] = np.nan  # a member that was stopped

needs_cdo = pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo is not installed")


def made() -> xr.Dataset:
    coordinates = dict(zip(AXES, (STARTS, np.array([1, 2, 3]), LEADS, GRID.latitude, GRID.longitude), strict=True))
    store = xr.Dataset({name: (AXES, field) for name, field in zip(DEFAULT, WIND, strict=True)}, coordinates)
    return store.assign_attrs(attribution="made up", other="not kept")


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("convert") / "f.zarr"
    made().transpose("longitude", ...).sortby("latitude").to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


def members_of(row: int) -> np.ndarray:
    """(member, lead, channel, latitude, longitude)."""
    return np.moveaxis(WIND[:, row], 0, 2)


def test_zarr_is_our_layout(forecast, tmp_path):
    summary = wsdcast.convert(forecast, "zarr", tmp_path / "o.zarr")
    assert summary.written == {str(tmp_path / "o.zarr"): "members, zarr"}
    group = zarr.open_group(tmp_path / "o.zarr", mode="r")
    for name in DEFAULT:
        assert group[name].metadata.dimension_names == AXES
        assert group[name].chunks == (1, 3, 8, *GRID.shape)
    with xr.open_zarr(tmp_path / "o.zarr", decode_timedelta=True, chunks=None) as stored:
        assert stored["time"].standard_name == "forecast_reference_time"
        xr.testing.assert_equal(stored, made())
        assert stored.attrs["attribution"] == "made up"
        assert "other" not in stored.attrs
        assert stored[DEFAULT[0]].attrs == {
            "standard_name": "eastward_wind",
            "long_name": "10 m eastward wind",
            "units": "m s-1",
        }
    found = open_forecast(str(tmp_path / "o.zarr"))
    np.testing.assert_array_equal(found.read(1), members_of(1))


def test_netcdf_is_one_file_for_each_initial_time(forecast, tmp_path):
    summary = wsdcast.convert(forecast, "netcdf", tmp_path / "o.nc")
    assert [Path(path).name for path in summary.written] == ["o-2020-02-01T06.nc", "o-2020-02-02T06.nc"]
    for row, path in enumerate(summary.written):
        with netCDF4.Dataset(path) as file:
            for name, standard in (("u10", "eastward_wind"), ("v10", "northward_wind")):
                assert file[name].dimensions == ("time", "realization", "latitude", "longitude")
                assert file[name].ncattrs() == ["_FillValue", "standard_name", "long_name", "units"]
                assert file[name].standard_name == standard
            hours = (STARTS[row] + LEADS - STARTS[row]) / HOUR
            assert file["time"].units == f"hours since 2020-02-0{row + 1} 06:00:00"
            np.testing.assert_array_equal(file["time"][:], hours)
            assert file["time"].standard_name == "time"
            np.testing.assert_array_equal(file["forecast_period"][:], hours)
            assert file["forecast_period"].standard_name == "forecast_period"
            assert file["forecast_reference_time"].shape == ()
            assert file["forecast_reference_time"].standard_name == "forecast_reference_time"
            assert file["realization"][:].tolist() == [1, 2, 3]
            assert file.Conventions == "CF-1.11"
            assert file.attribution == "made up"
        found = open_forecast(path)
        np.testing.assert_array_equal(found.times, STARTS[[row]])
        np.testing.assert_array_equal(found.leads, LEADS)
        np.testing.assert_array_equal(found.read(0), members_of(row))


def test_one_initial_time_keeps_the_name(forecast, tmp_path):
    wsdcast.convert(forecast, "netcdf", tmp_path / "o.nc")
    wsdcast.convert(str(tmp_path / "o-2020-02-02T06.nc"), "netcdf", tmp_path / "again.nc")
    assert (tmp_path / "again.nc").exists()
    with (
        xr.open_dataset(tmp_path / "again.nc", decode_timedelta=True) as again,
        xr.open_dataset(tmp_path / "o-2020-02-02T06.nc", decode_timedelta=True) as first,
    ):
        np.testing.assert_array_equal(again["v10"], first["v10"])


def test_the_same_forecast_gives_the_same_bytes(forecast, tmp_path):
    for name in ("a", "b"):
        wsdcast.convert(forecast, "netcdf", tmp_path / name / "o.nc")
    assert (tmp_path / "a/o-2020-02-01T06.nc").read_bytes() == (tmp_path / "b/o-2020-02-01T06.nc").read_bytes()


# GRIB 2.


def messages_of(path: Path) -> list[tuple[dict[str, object], np.ndarray]]:
    eccodes = pytest.importorskip("eccodes")
    keys = [
        "shortName",
        "dataDate",
        "dataTime",
        "step",
        "perturbationNumber",
        "numberOfForecastsInEnsemble",
        "productDefinitionTemplateNumber",
        "typeOfLevel",
        "level",
        "edition",
        "gridType",
        "bitsPerValue",
    ]
    found = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            eccodes.codes_set(handle, "missingValue", 1e30)
            values = eccodes.codes_get_values(handle).reshape(eccodes.codes_get(handle, "Nj"), eccodes.codes_get(handle, "Ni"))
            found.append(({key: eccodes.codes_get(handle, key) for key in keys}, np.where(values == 1e30, np.nan, values)))
            eccodes.codes_release(handle)
    return found


def packing_error(field: np.ndarray) -> float:
    """Half of the step that 16 bits need for the range of a field."""
    span = np.nanmax(field) - np.nanmin(field)
    return 2.0 ** np.ceil(np.log2(span / (2**BITS - 1))) / 2 + 1e-6


def test_grib_has_a_message_for_each_field_of_each_member(forecast, tmp_path):
    summary = wsdcast.convert(forecast, "grib2", tmp_path / "o.grib2")
    assert summary.facts["left out"] == "12 fields of members that were stopped"
    assert "error at most 0.001 m/s" in summary.facts["packing"]
    messages = messages_of(tmp_path / "o.grib2")
    assert len(messages) == 2 * 2 * 3 * 10 - 12
    seen = set()
    for keys, values in messages:
        place = tuple(keys[name] for name in ("shortName", "dataDate", "perturbationNumber", "step"))
        seen.add(place)
        channel, row = ("10u", "10v").index(place[0]), [20200201, 20200202].index(place[1])
        expected = WIND[channel, row, place[2] - 1, place[3] // 6 - 1]
        assert np.abs(values - expected).max() <= packing_error(expected) <= 0.001
        assert keys["dataTime"] == 600
        assert keys["numberOfForecastsInEnsemble"] == 3
        assert (keys["productDefinitionTemplateNumber"], keys["edition"], keys["gridType"]) == (1, 2, "regular_ll")
        assert (keys["typeOfLevel"], keys["level"]) == ("heightAboveGround", 10)
    assert len(seen) == len(messages)


def test_our_own_reader_finds_the_same_forecast_in_grib(forecast, tmp_path):
    wsdcast.convert(forecast, "grib2", tmp_path / "o.grib2")
    found = open_forecast(str(tmp_path / "o.grib2"))
    np.testing.assert_array_equal(found.times, STARTS)
    np.testing.assert_array_equal(found.leads, LEADS)
    for row in range(2):
        np.testing.assert_allclose(found.read(row), members_of(row), atol=0.001)


def test_cfgrib_finds_the_same_forecast_in_grib(forecast, tmp_path):
    cfgrib = pytest.importorskip("cfgrib", reason="cfgrib is not installed")
    wsdcast.convert(forecast, "grib2", tmp_path / "o.grib2")
    found = cfgrib.open_dataset(str(tmp_path / "o.grib2"), indexpath="", decode_timedelta=True)
    found = found.transpose("time", "number", "step", "latitude", "longitude")
    np.testing.assert_array_equal(found["number"], [1, 2, 3])
    np.testing.assert_array_equal(found["step"], LEADS)
    np.testing.assert_array_equal(found["time"], STARTS)
    for name, field in zip(("u10", "v10"), WIND, strict=True):
        np.testing.assert_allclose(found[name], field, atol=0.001)


def test_masked_points_are_missing_in_grib(tmp_path):
    store = made().isel(time=[0], number=[0])
    for name in DEFAULT:
        store[name][..., 2, 3] = np.nan
    store.to_zarr(tmp_path / "f.zarr", zarr_format=2)
    wsdcast.convert(str(tmp_path / "f.zarr"), "grib2", tmp_path / "o.grib2")
    for _, values in messages_of(tmp_path / "o.grib2"):
        assert np.isnan(values).sum() == 1
        assert np.isnan(values[2, 3])


def test_names_of_members_become_numbers(tmp_path):
    store = made().assign_coords(number=["a", "b", "c"])
    store.to_netcdf(tmp_path / "f.nc")
    wsdcast.convert(str(tmp_path / "f.nc"), "grib2", tmp_path / "o.grib2")
    assert {keys["perturbationNumber"] for keys, _ in messages_of(tmp_path / "o.grib2")} == {0, 1, 2}
    wsdcast.convert(str(tmp_path / "f.nc"), "zarr", tmp_path / "o.zarr")
    assert open_fields(str(tmp_path / "o.zarr")).numbers.tolist() == [0, 1, 2]
    store.assign_coords(number=[1, 2, 255]).to_netcdf(tmp_path / "g.nc")
    wsdcast.convert(str(tmp_path / "g.nc"), "grib2", tmp_path / "p.grib2")
    assert {keys["perturbationNumber"] for keys, _ in messages_of(tmp_path / "p.grib2")} == {0, 1, 2}


# Regions.


@pytest.mark.parametrize(
    ("region", "degrees"),
    [((150, -30, -150, 30), [157.5, 180, 202.5]), ((-30, -30, 30, 30), [-22.5, 0, 22.5]), ((-180, -30, 180, 30), None)],
)
def test_a_region_in_every_format(forecast, tmp_path, region, degrees):
    degrees = np.arange(-180, 180, 22.5) if degrees is None else np.array(degrees)
    columns = [int(np.flatnonzero(GRID.longitude == degree % 360)[0]) for degree in degrees]
    expected = members_of(0)[..., 3:6, :][..., columns]
    for to, suffix in (("zarr", "zarr"), ("netcdf", "nc"), ("grib2", "grib2")):
        (path, *_) = wsdcast.convert(forecast, to, tmp_path / f"o.{suffix}", region=region).written
        found = open_fields(path)
        assert found.latitude.tolist() == [22.5, 0, -22.5]
        order = np.argsort(found.longitude % 360), np.argsort(degrees % 360)
        np.testing.assert_allclose(found.longitude[order[0]] % 360, (degrees % 360)[order[1]], atol=1e-6)
        np.testing.assert_allclose(found.read(0, slice(0, 10))[..., order[0]], expected[..., order[1]], atol=0.001)
    with netCDF4.Dataset(tmp_path / "o-2020-02-01T06.nc") as file:
        np.testing.assert_array_equal(file["longitude"][:], degrees)


def test_a_region_of_a_regional_store(forecast, tmp_path):
    wsdcast.convert(forecast, "zarr", tmp_path / "part.zarr", region=(-50, -50, 50, 50))
    wsdcast.convert(str(tmp_path / "part.zarr"), "netcdf", tmp_path / "less.nc", region=(-25, 20, 0, 30))
    found = open_fields(str(tmp_path / "less-2020-02-02T06.nc"))
    assert found.longitude.tolist() == [-22.5, 0]
    np.testing.assert_array_equal(found.read(0, slice(0, 10)), members_of(1)[..., 3:4, [15, 0]])
    wsdcast.convert(forecast, "zarr", tmp_path / "east.zarr", region=(45, -50, 170, 50))
    assert open_fields(str(tmp_path / "east.zarr")).longitude.tolist() == [45, 67.5, 90, 112.5, 135, 157.5]


@pytest.mark.parametrize("west", [-180, -0.5, 0, 170])
def test_longitudes_of_a_region_begin_between_minus_180_and_180(tmp_path, west):
    """Those of one from 180 E were up to 505, and a single one at 0.5 W was 359.5."""
    for columns in (1, 2, 15):
        longitude = west + 22.0 * np.arange(columns)
        store = made().isel(time=[0], number=[0], prediction_timedelta=[0], longitude=slice(columns))
        store.assign_coords(longitude=longitude % 360).sortby("longitude").to_netcdf(tmp_path / f"{columns}.nc")
        found = open_fields(str(tmp_path / f"{columns}.nc"))
        np.testing.assert_allclose(found.longitude, longitude)
        np.testing.assert_array_equal(found.read(0), members_of(0)[:1, :1, ..., :columns])


@pytest.mark.parametrize("rounding", [-5e-5, 5e-5])
def test_a_region_has_its_bounds_and_each_meridian_once(tmp_path, rounding):
    """Coordinates are off by what files round. Oracle: the longitudes that lie between the bounds after whole turns."""
    store = made().isel(time=[0], number=[0], prediction_timedelta=[0])
    store = store.assign_coords(latitude=store["latitude"] + rounding, longitude=store["longitude"] + rounding)
    store.to_netcdf(tmp_path / "f.nc")
    bounds = [(0, 45), (-45, 0), (180, 225), (-180, -135), (202.5, 247.5), (157.5, -157.5), (337.5, 22.5), (-10, 10), (10, 10.5)]
    bounds += [(0, 360), (-180, 180), (22.5, 0), (337.5, 315), (360, 45), (-22.5, -44)]
    for west, east in bounds:
        end = east if east > west else east + 360
        turned = GRID.longitude + 360 * np.arange(-2, 3)[:, None]
        columns = np.flatnonzero(((turned >= west) & (turned <= end)).any(axis=0))
        region = (west, -22.5, east, 45)
        if not columns.size:
            with pytest.raises(UserError, match="no grid point"):
                open_fields(str(tmp_path / "f.nc"), region)
            continue
        found = open_fields(str(tmp_path / "f.nc"), region)
        np.testing.assert_allclose(found.latitude, [45 + rounding, 22.5 + rounding, rounding, -22.5 + rounding])
        first = west - 360 if west > 180 else west
        off = found.longitude - rounding
        np.testing.assert_allclose(off, first + np.sort((GRID.longitude[columns] - first) % 360), atol=1e-6, err_msg=str(region))
        order = (np.rint(off / 22.5) % 16).astype(int)
        np.testing.assert_array_equal(found.read(0), members_of(0)[:1, :1, :, 2:6][..., order])
    with pytest.raises(UserError, match="no grid point"):
        open_fields(str(tmp_path / "f.nc"), (0, 1, 45, 3))


# Other programs.


@needs_cdo
@pytest.mark.parametrize("command", ["convert", "products"])
@pytest.mark.parametrize("region", [None, (150, -30, -150, 30)])
def test_cdo_opens_it_without_a_warning(forecast, tmp_path, command, region):
    if command == "convert":
        written = wsdcast.convert(forecast, "netcdf", tmp_path / "o.nc", region=region).written
        written |= wsdcast.convert(forecast, "grib2", tmp_path / "o.grib2", region=region).written
    else:
        written = wsdcast.products(forecast, tmp_path / "o.nc", region=region, window_hours=12).written
    for path in written:
        for verb in ("sinfo", "info"):
            done = subprocess.run(["cdo", "-s", verb, path], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), path
            if verb == "sinfo" and not path.endswith("grib2"):
                assert "time : 10 steps" in done.stdout
                assert "ForecastRefTime =  2020-02-0" in done.stdout


@needs_cdo
def test_cdo_reads_the_same_values(forecast, tmp_path):
    wsdcast.convert(forecast, "netcdf", tmp_path / "o.nc")
    files = [str(tmp_path / name) for name in ("o-2020-02-02T06.nc", "picked.nc")]
    subprocess.run(["cdo", "-s", "-sellevidx,2", "-selname,v10", "-seltimestep,3", *files], check=True)
    with netCDF4.Dataset(files[1]) as file:
        np.testing.assert_array_equal(file["v10"][0, 0], WIND[1, 1, 1, 2])


# What cannot be done.


refused = partial(commands.refused, "convert")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "netcdf", "--out", "o.grib2"], "--out o.grib2: netcdf needs a name that ends in .nc or .nc4"),
        (["--to", "grib2", "--out", "o.nc"], "--out o.nc: grib2 needs a name that ends in .grib2"),
        (["--to", "zarr", "--out", "o.zarr", "--region", "1,1,3,3"], "--region 1,1,3,3: no grid point of"),
        *(
            (["--to", "zarr", "--out", "o.zarr", f"--region={region}"], f"--region {region}: its west and east are one meridian")
            for region in ("0,30,0,72", "0,0,0,0", "180,-90,-180,90", "360,-90,0,90")
        ),
        (["--to", "zarr", "--out", "o.zarr", "--region", "a"], "--region 'a': expected W,S,E,N"),
        (["--to", "zarr", "--out", "o.zarr", "--region", "-181,1,3,3"], "--region -181,1,3,3: expected W,S,E,N in degrees"),
        (["--to", "zarr", "--out", "o.zarr", "--region", "nan,1,3,3"], "expected W,S,E,N in degrees"),
    ],
)
def test_mistakes_end_in_one_line(forecast, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(forecast, *arguments)
    assert not list(tmp_path.iterdir())


def test_what_grib_cannot_hold_is_one_line(forecast, tmp_path, monkeypatch):
    uneven = made().assign_coords(latitude=np.sort(np.random.default_rng(0).uniform(-90, 90, 9))[::-1]).isel(latitude=slice(2, 5))
    uneven.to_zarr(tmp_path / "u.zarr", zarr_format=2)
    assert "its latitudes are not in equal steps" in refused(tmp_path / "u.zarr", "--to", "grib2", "--out", tmp_path / "o.grib2")
    many = made().isel(number=np.zeros(255, int), time=[0], prediction_timedelta=[0]).assign_coords(number=np.arange(255))
    many.to_zarr(tmp_path / "m.zarr", zarr_format=2)
    assert "has 255 members; GRIB 2 counts at most 254" in refused(tmp_path / "m.zarr", "--to", "grib2", "--out", tmp_path / "o.grib2")
    monkeypatch.setitem(sys.modules, "eccodes", None)
    assert "--to grib2 needs `pip install 'wsdcast[grib]'`" in refused(forecast, "--to", "grib2", "--out", tmp_path / "o.grib2")
    assert not (tmp_path / "o.grib2").exists()


def test_nothing_is_replaced_unasked(forecast, tmp_path):
    (tmp_path / "o.zarr").mkdir()
    (tmp_path / "o.zarr/mine").write_text("mine")
    arguments = ["convert", forecast, "--to", "zarr", "--out", str(tmp_path / "o.zarr"), "--overwrite"]
    assert "o.zarr: is a directory, and no Zarr store" in refused(*arguments[1:])
    assert (tmp_path / "o.zarr/mine").read_text() == "mine"
    (tmp_path / "o.zarr/zarr.json").write_text("{}")
    assert "o.zarr: is there already" in refused(*arguments[1:-1])
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert not (tmp_path / "o.zarr/mine").exists()
    (tmp_path / "o.nc").mkdir()
    wsdcast.convert(forecast, "zarr", tmp_path / "one.zarr", region=(-1, 0, 1, 0))
    assert "o.grib2: is a directory" in refused(forecast, "--to", "grib2", "--out", _directory(tmp_path / "o.grib2"), "--overwrite")


def _directory(path: Path) -> Path:
    path.mkdir()
    return path
