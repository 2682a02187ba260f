"""The record of a source: its problems are listed by name, and its wind is read in blocks, each chunk once."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime

import numpy as np
import pytest
import xarray as xr
from conftest import six_hourly, wind_dataset

from wsdcast.data.sources.blocks import close_all, read_block
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.sources.pieces import SourceRecord
from wsdcast.data.sources.record import open_record
from wsdcast.runs.errors import UserError
from wsdcast.verification.truth import open_truth

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0)


@pytest.fixture
def wind() -> xr.Dataset:
    return wind_dataset(six_hourly("2020-01-01", 6), LATITUDES, LONGITUDES)


def read(record: SourceRecord) -> np.ndarray:
    """All of a record, (time, channel, latitude, longitude)."""
    out = np.full((record.times.size, 2, *record.grid.shape), np.nan, np.float32)
    for block in record.blocks():
        for name, values in read_block(block):
            channel = record.channels.index(name)
            assert np.isnan(out[block.first : block.last, channel]).all()  # nothing twice
            out[block.first : block.last, channel] = values
    assert np.isfinite(out).all()
    return out


def test_files_are_sorted_and_joined_and_gaps_stay(tmp_path, wind):
    wind.isel(time=[4, 5]).to_netcdf(tmp_path / "a.nc")
    wind.isel(time=[0, 1, 2]).to_netcdf(tmp_path / "b.nc")
    for pattern in (tmp_path, tmp_path / "*.nc"):
        record = open_record(str(pattern), tmp_path)
        assert record.problems == record.misfits == []
        np.testing.assert_array_equal(record.times, wind.time.values[[0, 1, 2, 4, 5]])
        np.testing.assert_array_equal(read(record)[:, 0], wind.u10.values[[0, 1, 2, 4, 5]])


@pytest.mark.parametrize("pattern", ["", "**", "**/*.nc"])
def test_directories_inside_a_directory_are_read_and_each_file_once(tmp_path, wind, pattern):
    """`**` matches directories as well as the files in them. A file of static fields alone is not left out."""
    for name in ("u/2020", "v", ".partial"):
        (tmp_path / name).mkdir(parents=True)
    wind[["u10"]].to_netcdf(tmp_path / "u/2020/wind.nc")
    wind[["v10"]].to_netcdf(tmp_path / "v/wind.nc")
    wind.to_netcdf(tmp_path / ".partial/wind.nc")
    xr.Dataset({"lsm": wind.u10[0].assign_attrs(units="1")}).to_netcdf(tmp_path / "static.nc")
    record = open_record(f"{tmp_path}/{pattern}", tmp_path)
    assert (record.problems, record.notes, list(record.static)) == ([], [], ["land_sea_mask"])
    np.testing.assert_array_equal(read(record)[:, 0], wind.u10)


def test_a_static_field_is_not_on_another_grid_if_there_is_no_other(tmp_path, wind):
    xr.Dataset({"lsm": wind.u10[0].assign_attrs(units="1")}).to_netcdf(tmp_path / "static.nc")
    record = open_record(str(tmp_path), tmp_path)
    assert record.notes == []
    assert "has none of 10 m wind u, 10 m wind v; looked for" in record.problems[0]


def test_a_file_of_an_archive_is_named_by_the_archive_and_its_name_in_there(tmp_path, wind):
    """And not by the directory in which it was unpacked, which is gone when the user reads the message."""
    wind[["v10"]].rename(v10="tp").to_netcdf(tmp_path / "accum.nc")
    wind.v10[3, 2, 2] = np.inf
    wind.to_netcdf(tmp_path / "instant.nc")
    for number in (1, 2):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.write(tmp_path / "instant.nc", "instant.nc")
            archive.write(tmp_path / "accum.nc", "accum.nc")
            archive.writestr("cut.nc", b"\x89HDF and no more" if number == 1 else b"no NetCDF")
    archives = [f"{tmp_path}/{number}.zip" for number in (1, 2)]
    record = open_record(f"{tmp_path}/*.zip", tmp_path / "scratch")
    assert record.notes[:1] == [
        f"2 of its files have none of the variables and are left out: {archives[0]}: accum.nc, {archives[1]}: accum.nc"
    ]
    assert record.problems[0].startswith(f"{archives[0]}: cut.nc: cannot be read as NetCDF")
    assert record.problems[1].startswith(f"{archives[1]}: cut.nc: neither NetCDF nor GRIB")
    assert record.problems[2].endswith(f"in {archives[0]}: instant.nc and in {archives[1]}: instant.nc")
    (tmp_path / "2.zip").unlink()
    with pytest.raises(UserError, match=f"^{re.escape(archives[0])}: instant.nc: missing or infinite values"):
        read(open_record(archives[0], tmp_path / "scratch"))


def test_what_is_odd_about_files_and_times_is_noted(tmp_path, wind):
    """A file may have colons in its name, as those named after their time; only what is before the first was in the note."""
    wind.isel(time=[4, 5]).to_netcdf(tmp_path / "a.nc")
    hours = np.array([0, 1, 6, 12, 13], dtype="timedelta64[h]")
    wind_dataset(np.datetime64("2020-01-01", "ns") + hours, LATITUDES, LONGITUDES).to_netcdf(tmp_path / "b.nc")
    forecast = wind_dataset(six_hourly("2020-01-03", 2), LATITUDES, LONGITUDES)
    forecast.assign_coords(step=("time", hours[[0, 2]])).to_netcdf(tmp_path / "c.nc")
    wind.rename(u10="a", v10="b").to_netcdf(tmp_path / "2020-01-01T06:00.nc")
    record = open_record(str(tmp_path), tmp_path)
    assert record.problems == []
    assert record.notes == [
        f"1 of its files have none of the variables and are left out: {tmp_path}/2020-01-01T06:00.nc",
        f"1 of its files are forecasts, not analyses: {tmp_path}/c.nc",
        "2 of 9 times are at other hours (01:00, 13:00) and left out",
    ]
    wind.to_netcdf(tmp_path / "wind.nc")
    assert open_record(str(tmp_path / "wind.nc"), tmp_path).notes == []
    wind.isel(time=slice(None, None, -1)).to_netcdf(tmp_path / "backwards.nc")
    assert open_record(str(tmp_path / "backwards.nc"), tmp_path).notes == ["times are not in order; they are sorted"]


@pytest.mark.parametrize("period", [{}, {"end": datetime(2019, 1, 1)}, {"start": datetime(2021, 1, 1)}], ids=str)
def test_a_record_without_a_time_says_whether_the_period_is_why(tmp_path, wind, period):
    wind = wind if period else wind.assign_coords(time=wind.time + np.timedelta64(1, "h"))
    wind.to_netcdf(tmp_path / "wind.nc")
    words = (
        "UTC in the period from data.start to data.end" if period else "UTC; of means over hours, as at 00:30, take instantaneous values"
    )
    assert open_record(str(tmp_path), tmp_path, **period).problems == [f"none of its times lies at 00, 06, 12 or 18 {words}"]


@pytest.mark.parametrize(("number", "problems"), [(1, 0), (2, 1)])
def test_no_state_must_follow_another_where_one_is_enough(tmp_path, wind, number, problems):
    wind.isel(time=slice(None, None, 2)).to_netcdf(tmp_path / "wind.nc")
    assert len(open_record(str(tmp_path), tmp_path, in_a_row=number).problems) == problems


@pytest.mark.parametrize("hour", [5, 6])
def test_a_period_may_be_chosen(tmp_path, wind, hour):
    wind.to_netcdf(tmp_path / "wind.nc")
    record = open_record(str(tmp_path), tmp_path, datetime(2020, 1, 1, hour), datetime(2020, 1, 2))
    assert [str(time)[8:13] for time in record.times] == ["01T06", "01T12", "01T18", "02T00"]
    np.testing.assert_array_equal(read(record)[:, 1], wind.v10.values[1:5])


@pytest.mark.parametrize("chunk", [1, 5, 7, 24, 100])
def test_blocks_end_where_chunks_do(tmp_path, monkeypatch, chunk):
    """Hourly chunks of any length, with a gap: blocks cover all steps in order, and no chunk is in two of them."""
    hourly = np.delete(np.datetime64("2020-01-01", "ns") + np.timedelta64(1, "h") * np.arange(300), slice(100, 115))
    dataset = wind_dataset(hourly, LATITUDES, LONGITUDES)
    dataset.to_netcdf(tmp_path / "wind.nc", encoding={name: {"chunksizes": (chunk, 7, 8)} for name in ("u10", "v10")})
    monkeypatch.setattr("wsdcast.data.sources.pieces.BLOCK_BYTES", 8 * 7 * 8 * 10)  # ten steps, and forty at most
    record = open_record(str(tmp_path / "wind.nc"), tmp_path)
    blocks = list(record.blocks())
    assert [block.first for block in blocks] == [0, *(block.last for block in blocks[:-1])]
    assert blocks[-1].last == record.times.size
    places = np.flatnonzero(hourly.astype("datetime64[h]").astype(int) % 6 == 0)
    chunks = [set((places[block.first : block.last] // chunk).tolist()) for block in blocks]
    assert sum(map(len, chunks)) == len(set().union(*chunks))
    assert max(block.last - block.first for block in blocks) <= max(10, -(-chunk // 6) + 10)
    np.testing.assert_array_equal(read(record)[:, 0], dataset.u10.values[places])


def test_a_chunk_too_large_to_be_read_at_once_is_split(tmp_path, monkeypatch):
    dataset = wind_dataset(six_hourly("2020-01-01", 100), LATITUDES, LONGITUDES)
    dataset.to_netcdf(tmp_path / "wind.nc", encoding={name: {"chunksizes": (100, 7, 8)} for name in ("u10", "v10")})
    monkeypatch.setattr("wsdcast.data.sources.pieces.BLOCK_BYTES", 8 * 7 * 8 * 10)
    record = open_record(str(tmp_path / "wind.nc"), tmp_path)
    assert [block.last - block.first for block in record.blocks()] == [40, 40, 20]
    np.testing.assert_array_equal(read(record)[:, 0], dataset.u10.values)


def with_units(dataset: xr.Dataset, units: str) -> xr.Dataset:
    return dataset.assign(u10=dataset.u10.assign_attrs(units=units))


def numbered(dataset: xr.Dataset) -> xr.Dataset:
    time = xr.Variable("time", np.arange(6), {"units": "days since 2020-01-01", "calendar": "360_day"})
    return dataset.assign_coords(time=time)


FAULTS = {
    "has none of 10 m wind u, 10 m wind v; looked for": lambda ds: ds.rename(u10="u100", v10="v100"),
    "has no 10 m wind v; looked for": lambda ds: ds.rename(v10="v100"),
    "u10 has units 'm/min'; expected m s-1": lambda ds: with_units(ds, "m/min"),
    "u10 has units ''; expected m s-1": lambda ds: with_units(ds, ""),
    "not a global grid": lambda ds: ds.isel(longitude=slice(0, 4)),
    "leave out a pole": lambda ds: ds.isel(latitude=slice(0, 4)),
    "u10 has a dimension 'level' of length 2": lambda ds: ds.expand_dims(level=[1, 2]),
    "u10 has a dimension 'number' of length 3": lambda ds: ds.expand_dims(number=[0, 1, 2], axis=1),
    "u10 has no coordinate 'latitude'": lambda ds: ds.rename(latitude="y"),
    "u10 has no coordinate 'time'": lambda ds: ds.rename(time="t").drop_vars("t"),
    "on no regular grid: 'latitude' is not one of its dimensions; bring it to a global grid": lambda ds: ds.rename(
        latitude="y"
    ).assign_coords(latitude=("y", LATITUDES)),
    "2 times occur twice, the first 2020-01-01T06": lambda ds: ds.isel(time=[0, 1, 1, 2, 2, 3]),
    "no dates of the standard calendar": numbered,
    "none of its times lies at 00, 06, 12 or 18 UTC": lambda ds: ds.assign_coords(time=ds.time + np.timedelta64(1, "h")),
    "none of its 3 times at 00, 06, 12 or 18 UTC is followed by one 6 h later": lambda ds: ds.isel(time=slice(None, None, 2)),
    "several variables are eastward_wind at 10 m": lambda ds: xr.Dataset(
        {name: ds.u10.assign_coords(height=10.0).assign_attrs(standard_name="eastward_wind") for name in ("a", "b")}
    ),
}


@pytest.mark.filterwarnings("ignore:.*calendar")
@pytest.mark.parametrize("message", FAULTS)
def test_unusable_sources_are_refused_by_name(tmp_path, wind, message):
    FAULTS[message](wind).to_netcdf(tmp_path / "wind.nc")
    (problem,) = open_record(str(tmp_path / "wind.nc"), tmp_path).problems
    assert message in problem
    assert "\n" not in problem


@pytest.mark.parametrize(("count", "named"), [(3, 3), (60, 3)])
def test_only_the_first_problems_of_many_are_in_the_line(tmp_path, count, named):
    """Sixty bad files gave a line of 5 kB."""
    for number in range(count):
        (tmp_path / f"{number:02d}.nc").write_bytes(b"CDF")
    record = open_record(str(tmp_path), tmp_path)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path))}: {count} problems: ") as refused:
        record.require_no_problems(str(tmp_path))
    assert str(refused.value).count(".nc: ") == named
    assert str(refused.value).endswith("; `wsdcast prepare --check` lists all") == (count > named)


@pytest.mark.parametrize("bad", ["units", "cut"])
def test_a_variable_in_a_file_that_cannot_be_read_is_not_called_absent(tmp_path, wind, bad):
    with_units(wind, "m/min")[["u10"]].to_netcdf(tmp_path / "u.nc")
    if bad == "cut":
        (tmp_path / "u.nc").write_bytes((tmp_path / "u.nc").read_bytes()[:1000])
    wind[["v10"]].to_netcdf(tmp_path / "v.nc")
    (problem,) = open_record(str(tmp_path), tmp_path).problems
    assert problem.startswith(f"{tmp_path}/u.nc: ")
    (tmp_path / "u.nc").unlink()
    assert open_record(str(tmp_path), tmp_path).problems[0].startswith("has no 10 m wind u; looked for ")


def test_all_problems_are_listed_at_once(tmp_path, wind):
    with_units(wind, "m/min").to_netcdf(tmp_path / "a.nc")
    wind.isel(longitude=slice(0, 4)).to_netcdf(tmp_path / "b.nc")
    wind.isel(time=[0, 0]).to_netcdf(tmp_path / "c.nc")
    (tmp_path / "d.nc").write_bytes(b"CDF\x05 and then nothing that makes sense")
    (tmp_path / "e.grib").write_bytes(b"")
    problems = open_record(str(tmp_path), tmp_path).problems
    expected = [
        "units 'm/min'",
        "not a global grid",
        "cannot be read as NetCDF",
        "neither NetCDF nor GRIB",
        "occur twice",
    ]
    assert len(problems) == len(expected)
    for problem, words, file in zip(problems, expected, ["a.nc", "b.nc", "d.nc", "e.grib", "c.nc"], strict=True):
        assert words in problem
        assert file in problem


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "missing or infinite values"),
        (np.inf, r"missing or infinite values \(-[\d.]+ to inf m/s\)"),
        (-121.0, r"absurd values \(-121 to [\d.]+ m/s\)"),
        (1e20, r"absurd values \(-[\d.]+ to 1e\+20 m/s\)"),
    ],
)
def test_impossible_values_are_refused_with_their_time(tmp_path, wind, value, words):
    wind.v10[3, 2, 1] = value
    wind.to_netcdf(tmp_path / "wind.nc")
    with pytest.raises(UserError, match=rf"wind.nc: {words} in 10 m wind v at 2020-01-01T18"):
        read(open_record(str(tmp_path), tmp_path))


def test_a_lost_chunk_is_not_calm_weather(tmp_path, wind):
    """For a missing chunk a Zarr store returns its fill value, which may be zero."""
    wind.to_zarr(tmp_path / "wind.zarr", zarr_format=2, encoding={"u10": {"chunks": (2, 7, 8)}, "v10": {"_FillValue": 0.0}})
    (tmp_path / "wind.zarr/u10/1.0.0").unlink()
    (tmp_path / "wind.zarr/u10/.zarray").write_text((tmp_path / "wind.zarr/u10/.zarray").read_text().replace('"NaN"', "0.0"))
    import zarr

    zarr.consolidate_metadata(tmp_path / "wind.zarr")
    with pytest.raises(UserError, match=r"(the same value everywhere|missing).* in 10 m wind u at 2020-01-01T12 and 1 more"):
        read(open_record(str(tmp_path / "wind.zarr"), tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["wind.nc", "wind.zarr"])
def test_a_source_may_grow_while_it_is_read_but_not_change_its_times(tmp_path, wind, name):
    """A file that another program replaces between opening and reading had its new states under the old times, or a traceback."""
    path = tmp_path / name

    def write(dataset: xr.Dataset) -> None:
        dataset.to_netcdf(path) if name == "wind.nc" else dataset.to_zarr(path, mode="w", zarr_format=2)

    def readers() -> list[Callable[[], np.ndarray]]:
        record = open_record(str(path), tmp_path)
        truth = open_truth(str(path), tmp_path, record.times[0])
        return [lambda: read(record), lambda: truth.read(np.arange(4))]

    for later in (wind, wind.isel(time=slice(1, 5)), wind.isel(time=slice(2))):
        write(wind.isel(time=slice(4)))
        for reads in readers():
            write(later)
            if later is wind:
                np.testing.assert_array_equal(reads()[:, 0], wind.u10.values[:4])
            else:
                with pytest.raises(UserError, match=f"{name}: its times changed while it was read; run the command again"):
                    reads()
            close_all()


def test_variables_of_one_file_with_other_times_are_refused(tmp_path, wind):
    """Both are along a coordinate of time. The values of the second were read at the positions of the first one's times."""
    later = wind.v10.rename(time="valid_time").isel(valid_time=slice(1, None))
    wind[["u10"]].assign(v10=later).to_netcdf(tmp_path / "wind.nc")
    assert open_record(str(tmp_path), tmp_path).problems == [f"{tmp_path}/wind.nc: v10 has other times than u10"]


def test_another_grid_in_a_later_file_is_refused(tmp_path, wind):
    wind.isel(time=[0, 1]).to_netcdf(tmp_path / "a.nc")
    wind_dataset(six_hourly("2021-01-01", 2), LATITUDES, np.arange(0.0, 360.0, 30.0)).to_netcdf(tmp_path / "b.nc")
    (problem,) = open_record(str(tmp_path), tmp_path).problems
    assert problem == f"{tmp_path}/b.nc: its grid (12x7) differs from that of the files before it (8x7)"


def test_rounded_coordinates_are_the_same_grid(tmp_path, wind):
    wind.isel(time=[0, 1]).to_netcdf(tmp_path / "a.nc")
    later = wind.isel(time=[2, 3])
    later.assign_coords(longitude=later.longitude.astype("f4") + np.float32(1e-5)).to_netcdf(tmp_path / "b.nc")
    assert open_record(str(tmp_path), tmp_path).problems == []


def test_missing_files_and_damaged_archives_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_record(str(tmp_path / "none.nc"), tmp_path)
    with pytest.raises(UserError, match="nothing to read in a directory"):
        open_record(str(tmp_path), tmp_path)
    (tmp_path / "wind.zip").write_bytes(b"PK\x03\x04 and no more")
    (problem,) = open_record(str(tmp_path / "wind.zip"), tmp_path / "scratch").problems
    assert "wind.zip: cannot be unpacked" in problem
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    record = open_record(str(tmp_path / "empty.zip"), tmp_path / "scratch")
    assert record.problems == [f"{tmp_path}/empty.zip: has no NetCDF or GRIB file in it"]


def test_grib_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "wind.grib").write_bytes(b"GRIB and so on")
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(UserError, match=r"pip install 'wsdcast\[grib\]'"):
        open_dataset(str(tmp_path / "wind.grib"))


def test_a_damaged_grib_file_is_refused(tmp_path):
    (tmp_path / "wind.grib").write_bytes(b"GRIB and so on")
    with pytest.raises(UserError, match=r"wind.grib: cannot be read as GRIB"):
        open_dataset(str(tmp_path / "wind.grib"))
