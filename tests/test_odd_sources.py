"""Sources that broke other tools: they are read, or their fault is named. Absent values count as missing."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from commands import invoke
from conftest import six_hourly, wind_dataset, wind_of

import wsdcast
from wsdcast.data.sources.blocks import BadValuesError, read_block, repeated_extreme
from wsdcast.data.sources.classic_netcdf import required_size
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.sources.layout import STATIC_UNITS
from wsdcast.data.sources.opening import open_dataset
from wsdcast.data.sources.pieces import Record
from wsdcast.data.sources.record import open_record
from wsdcast.data.sources.space import order_of
from wsdcast.data.sources.units import size_of_speed
from wsdcast.runs.errors import UserError
from wsdcast.verification.truth import open_truth

LATITUDES, LONGITUDES = np.linspace(90, -90, 7), np.arange(0, 360, 30.0)


def wind(count: int = 40) -> xr.Dataset:
    return wind_dataset(six_hourly("2020-01-01", count), LATITUDES, LONGITUDES)


def looked_at(path: Path) -> Record:
    return open_record(str(path), path.parent / "scratch")


def store(path: Path, version: int, kind: str, fill: Any, sharded: bool = False) -> np.ndarray:
    """Wind in chunks of 4 times and half of the longitudes; values as they must be read back."""
    values = np.random.default_rng(0).normal(0, 6, (8, 7, 12))
    scale = {"scale_factor": 0.005} if kind == "i2" else {}
    raw = np.round(values / 0.005).astype(kind) if scale else values.astype(kind)
    group = zarr.open_group(path, mode="w", zarr_format=version)  # type: ignore[arg-type]
    axes = {"time": 6 * np.arange(8), "latitude": LATITUDES, "longitude": LONGITUDES}

    def array(name: str, data: np.ndarray, dimensions: tuple[str, ...], attributes: dict[str, Any], **how: Any) -> None:
        how |= {"dimension_names": dimensions} if version == 3 else {}
        attributes = attributes if version == 3 else {**attributes, "_ARRAY_DIMENSIONS": list(dimensions)}
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, attributes=attributes, **how)
        array[:] = data

    for name, axis in axes.items():
        array(name, axis, (name,), {"units": "hours since 2020-01-01"} if name == "time" else {}, chunks=axis.shape)
    how = {"chunks": (4, 7, 6), "fill_value": fill} | ({"shards": (8, 7, 12)} if sharded else {})
    for name in ("u10", "v10"):
        array(name, raw, tuple(axes), {"units": "m s-1", **scale}, **how)
    zarr.consolidate_metadata(path)
    return raw * scale.get("scale_factor", 1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fill", [0, np.nan, None, -32767])
@pytest.mark.parametrize("kind", ["f4", "i2"])
@pytest.mark.parametrize("version", [2, 3])
def test_an_absent_chunk_is_missing_under_any_fill_value(tmp_path, version, kind, fill):
    if kind == "i2" and fill is not None and np.isnan(fill):
        fill = 7
    values = store(tmp_path / "a.zarr", version, kind, fill)
    (tmp_path / "a.zarr/u10" / ("c/1/0/1" if version == 3 else "1.0.1")).unlink()
    opened = open_dataset(str(tmp_path / "a.zarr"))
    absent = np.zeros(values.shape, dtype=bool)
    absent[4:, :, 6:] = True
    np.testing.assert_array_equal(np.isnan(opened.u10.values), absent)
    np.testing.assert_allclose(opened.u10.values[~absent], values[~absent], rtol=1e-6)
    np.testing.assert_allclose(opened.v10.values, values, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_an_absent_chunk_inside_a_shard_is_missing(tmp_path):
    values = store(tmp_path / "a.zarr", 3, "f4", 0.0, sharded=True)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r+")["u10"]
    array[4:, :, 6:] = 0.0  # equal to the fill value: Zarr drops the chunk from its shard
    opened = open_dataset(str(tmp_path / "a.zarr")).u10.values
    assert np.isnan(opened[4:, :, 6:]).all()
    np.testing.assert_allclose(opened[:4], values[:4], rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_record_with_an_absent_chunk_is_refused_and_named(tmp_path):
    wind().chunk(time=8, longitude=6).to_zarr(tmp_path / "a.zarr", encoding={name: {"fill_value": 0.0} for name in ("u10", "v10")})
    (tmp_path / "a.zarr/v10/c/2/0/1").unlink()
    with pytest.raises(UserError, match=r"missing or infinite values in 10 m wind v at 2020-01-05T00:00"):
        wsdcast.prepare(source=str(tmp_path / "a.zarr"), grid="12x7", run=tmp_path / "run")


FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4"]


@pytest.mark.parametrize("unlimited", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_netcdf_file_that_is_cut_anywhere_is_refused(tmp_path, kind, unlimited):
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=kind) as file:
        for name, axis in {"time": 6.0 * np.arange(8), "latitude": LATITUDES, "longitude": LONGITUDES}.items():
            file.createDimension(name, None if unlimited and name == "time" else axis.size)
            file.createVariable(name, "f8", (name,))[:] = axis
        file["time"].units = "hours since 2020-01-01"
        file.title = "odd"
        for name in ("u10", "v10"):
            file.createVariable(name, "i2", ("time", "latitude", "longitude"))[:] = 7
            file[name].units = "m s-1"
    whole = path.read_bytes()
    if kind != "NETCDF4":
        assert len(whole) - 3 <= required_size(str(path)) <= len(whole)
    assert not looked_at(path).problems
    for share in (0.02, 0.3, 0.6, 0.9, 0.995):
        path.write_bytes(whole[: int(share * len(whole))])
        assert looked_at(path).problems, share


def test_the_size_of_a_lone_record_variable_is_not_padded(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", None)
        file.createVariable("a", "i1", ("time",))[:] = np.arange(5)
    size = (tmp_path / "a.nc").stat().st_size
    assert required_size(str(tmp_path / "a.nc")) in (size, size - 3)


@pytest.mark.parametrize("content", [b"CDF\x01", b"CDF\x05" + b"\xff" * 40, b"CDF\x02" + struct.pack(">iii", 1, 10, 10**9)])
def test_a_damaged_header_is_one_line(tmp_path, content):
    (tmp_path / "a.nc").write_bytes(content)
    assert "cannot be read as NetCDF" in looked_at(tmp_path / "a.nc").problems[0]


def test_monthly_means_by_hour_are_refused(tmp_path):
    days = np.array([f"2020-{month:02d}-01" for month in range(1, 13)], dtype="datetime64[ns]")
    times = (days[:, None] + np.timedelta64(6, "h") * np.arange(4)).ravel()
    wind_dataset(times, LATITUDES, LONGITUDES).to_netcdf(tmp_path / "a.nc")
    assert "means of a month by hour of day" in looked_at(tmp_path / "a.nc").problems[0]


@pytest.mark.parametrize(
    ("methods", "noted"),
    [
        ("time: mean", True),
        ("area: mean time: maximum", True),
        ("time: latitude: mean", True),
        ("time: median", True),
        ("area: mean time: point", False),
        ("time: point area: mean", False),
        ("realization: mean", False),
        ("realization: mean time: maximum", True),
        ("realization: median", False),
    ],
)
def test_values_of_an_interval_are_noted(tmp_path, methods, noted):
    dataset = wind()
    dataset.u10.attrs["cell_methods"] = methods
    dataset.to_netcdf(tmp_path / "a.nc")
    assert bool([note for note in looked_at(tmp_path / "a.nc").notes if "over an interval" in note]) is noted


@pytest.mark.parametrize(
    ("methods", "word"),
    [
        ("time: standard_deviation", "standard deviation"),
        ("realization: standard_deviation", "standard deviation"),
        ("area: variance", "variance"),
        ("time: latitude: range (interval: 1 hour)", "range"),
        ("time: maximum within days time: range over days", "range"),
        ("time: root_mean_square", "root mean square"),
        ("time: mean_absolute_value", "mean absolute value"),
        ("time: sd", "sd"),  # a step type of ecCodes
        ("realization: maximum", "maximum of members"),
        ("time: point ensemble_member: minimum (comment: of 50)", "minimum of members"),
        ("time: realization: maximum", "maximum of members"),
        ("Number: Max", "max of members"),
    ],
)
def test_a_spread_is_refused_by_name(tmp_path, methods, word):
    dataset = wind()
    dataset.u10.attrs["cell_methods"] = methods
    dataset.to_netcdf(tmp_path / "a.nc")
    (problem,) = looked_at(tmp_path / "a.nc").problems
    assert problem.endswith(f"a.nc: u10 is a {word} (cell_methods), not 10 m wind u")


def test_a_comment_of_cell_methods_is_no_method(tmp_path):
    dataset = wind()
    dataset.u10.attrs["cell_methods"] = "area: mean (interval: 1 km comment: standard_deviation: see u10_std)"
    dataset.to_netcdf(tmp_path / "a.nc")
    assert (looked_at(tmp_path / "a.nc").problems, looked_at(tmp_path / "a.nc").notes) == ([], [])


def test_repeated_extremes_far_from_other_values_are_named():
    values = np.random.default_rng(0).normal(0, 8, (10, 20, 30)).astype(np.float32)
    assert repeated_extreme(values) is None
    values[3, 2, 1] = values[5, 2, 1] = -99.99
    assert repeated_extreme(values) == (pytest.approx(-99.99), 2)
    values[values < -90] = 95.0
    assert repeated_extreme(values) == (95.0, 2)
    values[5, 2, 1] = 0.0  # one alone may be a storm
    assert repeated_extreme(values) is None
    assert repeated_extreme(np.zeros((1, 2, 2), dtype=np.float32)) is None


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("columns", [7, 12, 640, 1280])
def test_rounded_longitudes_are_equal_steps(digits, columns):
    exact = 360 / columns * np.arange(columns)
    array = xr.DataArray(np.zeros((3, columns)), coords={"latitude": [90.004, 0, -90.00001], "longitude": exact.round(digits)})
    grid = order_of(array)[2]
    np.testing.assert_array_equal(grid.latitude, [90, 0, -90])
    np.testing.assert_allclose(grid.longitude, exact, atol=1e-12 if np.abs(exact - exact.round(digits)).max() > 1e-6 else 1e-6)


def test_longitudes_that_are_not_equal_steps_stay_refused():
    array = xr.DataArray(np.zeros((3, 4)), coords={"latitude": [90.0, 0, -90], "longitude": [0, 90, 180.1, 270]})
    with pytest.raises(UserError, match="not a global grid"):
        order_of(array)


SPELLINGS = "m s-1, m s**-1, m/s, M/S, m s^-1, m s^{-1}, m.s-1, m*s-1, m/sec, ms-1, meter/second, metres per second, m s\u207b\u00b9"


@pytest.mark.parametrize("units", SPELLINGS.split(", "))
def test_all_spellings_of_metres_per_second_are_accepted(units):
    assert size_of_speed(units) == 1


@pytest.mark.parametrize("units", ["", "knots", "km/h", "m", "s-1", "m s-2", "cm/s", "mm/s", "m/min", "km s-1", "1"])
def test_other_units_are_refused(units):
    assert size_of_speed(units) != 1


def test_coordinates_are_known_by_their_units(tmp_path):
    dataset = wind().rename(latitude="g0_lat_1", longitude="x")
    dataset["g0_lat_1"].attrs["units"], dataset["x"].attrs["units"] = "degrees_north", "degreesE"
    dataset.to_netcdf(tmp_path / "a.nc")
    assert looked_at(tmp_path / "a.nc").grid.name == "12x7"  # type: ignore[union-attr]


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize(
    ("axis", "units", "expected"),
    [
        ("longitude", "degrees_west", "degrees_east"),
        ("longitude", "Degree_W", "degrees_east"),
        ("longitude", "degreesW", "degrees_east"),
        ("latitude", "degrees_south", "degrees_north"),
        ("latitude", "degree_S", "degrees_north"),
    ],
)
def test_degrees_west_and_south_are_refused(tmp_path, axis, units, expected, renamed):
    """CF knows neither, and some files have east and north under these units. The map would be a mirror image without a word."""
    name = "x" if renamed else axis
    dataset = wind().rename({axis: name} if renamed else {})
    dataset[name].attrs["units"] = units
    dataset.to_netcdf(tmp_path / "a.nc")
    assert looked_at(tmp_path / "a.nc").problems == [f"{tmp_path / 'a.nc'}: {name} has units '{units}'; expected {expected}"]
    forecast = dataset.isel(time=slice(1, 4)).rename(time="prediction_timedelta")
    forecast["prediction_timedelta"] = np.timedelta64(6, "h") * np.arange(1, 4)
    forecast.expand_dims(time=six_hourly("2020-01-01", 1)).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(UserError, match=f"{name} has units '{units}'; expected {expected}"):
        open_forecast(str(tmp_path / "f.nc"))


@pytest.mark.parametrize("units", ["degrees", "degree", "degrees_north", ""])
def test_other_units_of_latitude_are_read_as_degrees_north(tmp_path, units):
    dataset = wind()
    dataset["latitude"].attrs["units"] = units
    dataset.to_netcdf(tmp_path / "a.nc")
    assert looked_at(tmp_path / "a.nc").problems == []


def test_variables_that_cannot_be_decoded_are_left_out_unless_they_are_wind(tmp_path):
    dataset = wind()
    dataset["started"] = ("time", np.zeros(40), {"units": "seconds since 00:00:00"})
    dataset.to_netcdf(tmp_path / "a.nc")
    assert not looked_at(tmp_path / "a.nc").problems
    dataset = wind()
    dataset["u10"].attrs["units"] = "hours since 00:00:00"
    dataset.to_netcdf(tmp_path / "b.nc")
    assert "b.nc: cannot be read as NetCDF (u10: " in looked_at(tmp_path / "b.nc").problems[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("inner", ["", "wind.zarr/"])
def test_a_zarr_store_in_a_zip_is_read(tmp_path, inner):
    import zipfile

    wind().to_zarr(tmp_path / "wind.zarr")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted((tmp_path / "wind.zarr").rglob("*")):
            if path.is_file():
                archive.write(path, inner + str(path.relative_to(tmp_path / "wind.zarr")))
    assert not looked_at(tmp_path / "a.zip").problems
    np.testing.assert_array_equal(wind_of(open_dataset(str(tmp_path / "a.zip")))["u"].array, wind().u10)


@pytest.mark.parametrize("name", ["chunk", "tile", "lead_hours", "conversion", "can_be_constant"])
def test_attributes_of_a_file_say_nothing_of_how_it_is_read(tmp_path, name):
    """Variables may have attributes of any name. Those of a static field were once taken for our own."""
    dataset = wind()
    dataset["lsm"] = dataset.u10[0].drop_vars("time") / 20
    for array in dataset.values():
        array.attrs = {"units": "1" if array.name == "lsm" else "m s-1", name: "none"}
    dataset.to_netcdf(tmp_path / "a.nc")
    record = looked_at(tmp_path / "a.nc")
    assert (record.problems, record.notes) == ([], [])
    np.testing.assert_array_equal(record.static["land_sea_mask"], dataset.lsm)
    (block,) = record.blocks()
    np.testing.assert_array_equal(dict(read_block(block))["10m_u_component_of_wind"], dataset.u10)


STATIC = {  # name in the file, units, factor
    "land_sea_mask": [("lsm", "%", 0.01), ("land_sea_mask", "(0 - 1)", 1), ("lsm", None, 1)],  # CF: no units are those of a number
    "geopotential_at_surface": [("z", "m", 9.80665), ("z", "m2 s-2", 1)],
    "standard_deviation_of_orography": [("sdor", "mm", 1e-3)],
    "angle_of_sub_gridscale_orography": [("anor", "degrees", np.pi / 180), ("anor", "radians", 1), ("anor", "1", 1)],
    "slope_of_sub_gridscale_orography": [("slor", "~", 1)],
}


@pytest.mark.parametrize(("ours", "name", "units", "factor"), [(ours, *row) for ours, rows in STATIC.items() for row in rows])
def test_static_fields_are_converted(tmp_path, ours, name, units, factor):
    dataset = wind()
    field = 10 * np.random.default_rng(1).random((7, 12))
    dataset[name] = (("latitude", "longitude"), field, {} if units is None else {"units": units})
    dataset.to_netcdf(tmp_path / "a.nc")
    np.testing.assert_allclose(looked_at(tmp_path / "a.nc").static[ours], factor * field, rtol=1e-6)
    wsdcast.prepare(source=str(tmp_path / "a.nc"), grid="12x7", run=tmp_path / "run")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        np.testing.assert_allclose(store[ours], factor * field, rtol=1e-6)
        assert store[ours].attrs["units"] == STATIC_UNITS[ours]


@pytest.mark.parametrize(
    ("name", "units", "expected"), [("z", "ft", "m2 s-2"), ("z", "", "m2 s-2"), ("lsm", "m", "1"), ("anor", "", "radians")]
)
def test_a_static_field_in_unknown_units_is_left_out_with_a_note(tmp_path, name, units, expected):
    dataset = wind()
    dataset[name] = dataset["sdor"] = dataset.u10[0].drop_vars("time").assign_attrs(units=units)
    dataset["sdor"].attrs["units"] = "m"
    dataset.to_netcdf(tmp_path / "a.nc")
    record = looked_at(tmp_path / "a.nc")
    assert (record.problems, list(record.static)) == ([], ["standard_deviation_of_orography"])
    assert record.notes == [f"static field {name} has units '{units}'; expected {expected}; it is left out"]


@pytest.mark.filterwarnings("ignore")
def test_a_static_field_has_chunks_of_one_value_but_none_that_is_absent(tmp_path):
    """A part of the globe may be sea throughout. An absent chunk is missing, and a field with missing values is not stored."""
    dataset = wind().chunk(time=8)
    land = np.zeros((7, 12))
    land[:, :6] = np.random.default_rng(1).random((7, 6))
    dataset["lsm"] = xr.DataArray(land, dims=("latitude", "longitude")).chunk(longitude=6)
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=3, encoding={"lsm": {"fill_value": -1.0}})
    record = looked_at(tmp_path / "a.zarr")
    assert record.problems == []
    np.testing.assert_allclose(record.static["land_sea_mask"], land, rtol=1e-6)
    (tmp_path / "a.zarr/lsm/c/0/1").unlink()
    assert np.isnan(looked_at(tmp_path / "a.zarr").static["land_sea_mask"][:, 6:]).all()


def test_a_time_that_is_skipped_is_a_gap(tmp_path):
    dataset = wind()
    dataset.u10[7, 1, 2] = 262
    dataset.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"262 m/s.* in 10 m wind u at 2020-01-02T18:00; --skip 2020-01-02T18:00 leaves that time out"):
        wsdcast.prepare(source=tmp_path / "a.nc", grid="12x7", run=tmp_path / "run")
    assert wsdcast.check(tmp_path / "a.nc").problems
    command = f"prepare --source {tmp_path / 'a.nc'} --grid 12x7 --run {tmp_path / 'run'} --overwrite --skip"
    assert invoke(*command.split(), "2020-01-02T18, 2020-01-03") == (0, "")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as opened:
        np.testing.assert_array_equal(opened.time, np.delete(wind().time.values, [7, 8]))


def test_the_error_of_a_bad_value_passes_between_processes():
    error = pickle.loads(pickle.dumps(BadValuesError("a.nc: missing", np.datetime64("2020-01-02T18", "ns"))))
    assert (str(error), error.time) == ("a.nc: missing", np.datetime64("2020-01-02T18"))


@pytest.mark.parametrize("year", [1, 2300])
def test_years_beyond_the_range_of_nanoseconds_are_refused(tmp_path, year):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, axis in {"time": 6.0 * np.arange(8), "latitude": LATITUDES, "longitude": LONGITUDES}.items():
            file.createDimension(name, axis.size)
            file.createVariable(name, "f8", (name,))[:] = axis
        file["time"].units = f"hours since {year:04d}-06-01"
        for name in ("u10", "v10"):
            file.createVariable(name, "f4", ("time", "latitude", "longitude"))[:] = 7
            file[name].units = "m s-1"
    assert f"begin in the year {year}; only the years 1678 to 2262 can be read" in looked_at(tmp_path / "a.nc").problems[0]


def test_groups_and_references_are_named(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createGroup("forecast").createGroup("inner")
    assert "a.nc: its variables are in groups (forecast)" in looked_at(tmp_path / "a.nc").problems[0]
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "refs": {}}))
    assert "kerchunk's references" in looked_at(tmp_path / "a.json").problems[0]
    (tmp_path / "b.parq/u10").mkdir(parents=True)
    (tmp_path / "b.parq/.zmetadata").write_text("{}")
    (tmp_path / "b.parq/u10/refs.0.parq").write_bytes(b"PAR1")
    assert "kerchunk's references" in looked_at(tmp_path / "b.parq").problems[0]


@pytest.mark.filterwarnings("ignore")
def test_an_icechunk_repository_is_read(tmp_path):
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "a")))
    session = repository.writable_session("main")
    wind().to_zarr(session.store, consolidated=False)
    session.commit("wind")
    assert not looked_at(tmp_path / "a").problems
    np.testing.assert_array_equal(wind_of(open_dataset(str(tmp_path / "a")))["u"].array, wind().u10)


def test_an_icechunk_repository_without_its_package_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a/refs").mkdir(parents=True)
    (tmp_path / "a/snapshots").mkdir()
    monkeypatch.setitem(__import__("sys").modules, "icechunk", None)
    assert "an Icechunk repository; `pip install 'wsdcast[icechunk]'` reads it" in looked_at(tmp_path / "a").problems[0]


def test_a_grid_that_no_memory_holds_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match=r"3200 steps of wind on the grid 100000x50000 needs 123 TB of memory, but only .* are free"):
        wsdcast.prepare(grid="100000x50000", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_steps_on_a_fine_grid_need_little_memory(tmp_path, monkeypatch):
    """What is refused depends on the steps too: shards are no larger than the record."""
    monkeypatch.setattr("wsdcast.runs.resources.free_memory", lambda: 2_000_000_000)
    wind().to_netcdf(tmp_path / "a.nc")
    wsdcast.prepare(source=str(tmp_path / "a.nc"), grid="720x361", run=tmp_path / "run")
    with pytest.raises(UserError, match=r"preparing 3200 steps of wind on the grid 1440x721 needs .* GB of memory"):
        wsdcast.prepare(grid="1440x721", run=tmp_path / "planet")
    assert "GB of memory" in wsdcast.check(str(tmp_path / "a.nc"), grid="14400x7201").problems[0]


def test_truth_of_one_day_a_month_is_accepted(tmp_path):
    """Only a record for training must be six-hourly. Forecasts may be verified on a few days."""
    times = np.array([f"2020-{month:02d}-01" for month in range(1, 13)], dtype="datetime64[ns]")
    wind_dataset(times, LATITUDES, LONGITUDES).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_array_equal(open_truth(str(tmp_path / "a.nc"), tmp_path / "scratch", times[3]).times, times)


def test_many_files_of_means_are_noted_once(tmp_path):
    (tmp_path / "files").mkdir()
    dataset = wind()
    dataset.u10.attrs["cell_methods"] = dataset.v10.attrs["cell_methods"] = "time: mean"
    for day in range(5):
        dataset.isel(time=slice(4 * day, 4 * day + 4)).to_netcdf(tmp_path / "files" / f"{day}.nc")
    assert len([note for note in looked_at(tmp_path / "files").notes if "over an interval" in note]) == 2
