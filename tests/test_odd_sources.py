"""Sources that broke other tools: they are read, or their fault is named."""

from __future__ import annotations

import json
import pickle
import re

import netCDF4
import numpy as np
import pytest
import xarray as xr
from commands import invoke
from conftest import wind_dataset, wind_of
from small_sources import LATITUDES, LONGITUDES, looked_at, wind

import wsdcast
from wsdcast.data.sources.blocks import BadValuesError, read_block, repeated_extreme
from wsdcast.data.sources.opening import fingerprint, open_dataset
from wsdcast.data.variables import STATIC_FIELDS
from wsdcast.runs.errors import UserError
from wsdcast.verification.truth import open_truth


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


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("offset", [0, 280])
@pytest.mark.parametrize(("distance", "is_far"), [(1.9, False), (2.1, True)])
def test_a_repeated_extreme_is_far_beyond_a_fifth_of_the_range_of_the_others(sign, offset, distance, is_far):
    values = np.linspace(0, 10, 24, dtype=np.float32)
    values[:2] = -distance
    values[2] = 0
    extreme = repeated_extreme((sign * values + offset).reshape(2, 3, 4))
    assert extreme == ((pytest.approx(sign * -distance + offset, abs=1e-4), 2) if is_far else None)


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
        assert store[ours].attrs["units"] == STATIC_FIELDS[ours].units


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


def test_a_time_that_is_skipped_is_a_gap(tmp_path):
    dataset = wind()
    dataset.u10[7, 1, 2] = 262
    dataset.to_netcdf(tmp_path / "a.nc")
    said = r"262 m/s.* at 2020-01-02T18; --skip 2020-01-02T18 leaves that time out, --end 2020-01-02T12 all from it on"
    with pytest.raises(UserError, match=said):
        wsdcast.prepare(source=tmp_path / "a.nc", grid="12x7", run=tmp_path / "run")
    assert wsdcast.check(tmp_path / "a.nc").problems
    command = f"prepare --source {tmp_path / 'a.nc'} --grid 12x7 --run {tmp_path / 'run'} --overwrite --skip"
    assert invoke(*command.split(), "2020-01-02T18, 2020-01-03") == (0, "")
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as opened:
        np.testing.assert_array_equal(opened.time, np.delete(wind().time.values, [7, 8]))


def test_a_source_with_gaps_at_every_time_is_not_to_end_before_its_first(tmp_path):
    """As of values over the sea alone. The advice was `--end` with a time at which there is nothing."""
    dataset = wind().where(wind().longitude < 180)
    for name in ("u10", "v10"):
        dataset[name].attrs["units"] = "m s-1"
    dataset.to_netcdf(tmp_path / "a.nc")
    said = r"missing .* at 2020-01-01T00 and 39 more of the 40 steps read with it; --skip 2020-01-01T00 leaves that time out$"
    with pytest.raises(UserError, match=said):
        wsdcast.prepare(source=tmp_path / "a.nc", grid="12x7", run=tmp_path / "run")
    assert [problem for problem in wsdcast.check(tmp_path / "a.nc").problems if "--end 2019" in problem] == []


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


@pytest.mark.parametrize("root", ["refs/branch.main/ref.json", "repo"], ids=["format 1", "format 2"])
def test_an_icechunk_repository_is_known_by_the_file_that_a_commit_replaces(tmp_path, monkeypatch, root):
    """Without its package the message is one line."""
    (tmp_path / "a/snapshots").mkdir(parents=True)
    (tmp_path / "a" / root).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a" / root).write_text("one commit")
    before = fingerprint(str(tmp_path / "a"))
    (tmp_path / "a" / root).write_text("two commits")
    assert fingerprint(str(tmp_path / "a")) != before
    monkeypatch.setitem(__import__("sys").modules, "icechunk", None)
    assert "an Icechunk repository; `pip install 'wsdcast[icechunk]'` reads it" in looked_at(tmp_path / "a").problems[0]


def test_an_icechunk_repository_without_a_commit_is_refused(tmp_path):
    (tmp_path / "a/snapshots").mkdir(parents=True)
    (tmp_path / "a/refs").mkdir()
    assert fingerprint(str(tmp_path / "a"))
    assert "cannot be opened as a Zarr store" in looked_at(tmp_path / "a").problems[0]


def test_a_grid_that_no_memory_holds_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match=r"3200 steps of 2 channels on the grid 100000x50000 needs 123 TB of memory, but only .* are free"):
        wsdcast.prepare(grid="100000x50000", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_steps_on_a_fine_grid_need_little_memory(tmp_path, monkeypatch):
    """What is refused depends on the steps too: shards are no larger than the record."""
    monkeypatch.setattr("wsdcast.runs.resources.free_memory", lambda: 2_000_000_000)
    wind().to_netcdf(tmp_path / "a.nc")
    wsdcast.prepare(source=str(tmp_path / "a.nc"), grid="720x361", run=tmp_path / "run")
    with pytest.raises(UserError, match=r"preparing 3200 steps of 2 channels on the grid 1440x721 needs .* GB of memory"):
        wsdcast.prepare(grid="1440x721", run=tmp_path / "planet")
    assert any("GB of memory" in problem for problem in wsdcast.check(str(tmp_path / "a.nc"), grid="14400x7201").problems)


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


@pytest.mark.filterwarnings("ignore")
def test_a_store_whose_last_states_are_not_there_yet_can_end_before_them(tmp_path):
    """Growing stores are often made for more times than they have states. --skip alone would have to name each of these times."""
    wind().where(wind().time < np.datetime64("2020-01-09")).to_zarr(tmp_path / "wind.zarr")
    with pytest.raises(UserError, match=r"missing .* at 2020-01-09T00 and 7 more .*--end 2020-01-08T18 all from it on") as refused:
        wsdcast.prepare(source=str(tmp_path / "wind.zarr"), grid="12x7", run=tmp_path / "run")
    end = re.search(r"--end (\S+)", str(refused.value))[1]
    summary = wsdcast.prepare(source=str(tmp_path / "wind.zarr"), grid="12x7", run=tmp_path / "run", end=end)
    assert summary.facts["steps"] == "32 of 6 h, 0 gaps"
