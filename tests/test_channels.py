"""Any variable of the table, from every layout: names, levels and units."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import invoke
from conftest import SHARED, needs_shared, six_hourly
from layouts_of_variables import CHANNELS, GRID, LEVELS, TYPICAL, arco, cds_new, cds_old, cfgrib, cmip, made_weather, wgrib2
from servers import serve
from upper_air import channel, weatherbench

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.sources.blocks import read_block
from wsdcast.data.sources.layout import fields_of, values_of
from wsdcast.data.sources.opening import BUILT_IN
from wsdcast.data.sources.record import open_record
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT, variable, words
from wsdcast.runs.errors import UserError
from wsdcast.weather.recipe import Data, load_recipe
from wsdcast.weather.stages.check import check


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return made_weather()


@pytest.fixture(scope="module")
def expected(weather, tmp_path_factory) -> np.ndarray:
    """Return the states, (time, channel, latitude, longitude), on the target grid."""
    ordered = weather.isel(latitude=slice(None, None, -1)).transpose("time", "level", "latitude", "longitude")
    fields = [ordered[name.split("@")[0]].sel(level=int(name.split("@")[1])) if "@" in name else ordered[name] for name in CHANNELS]
    return regrid(np.stack([field.values for field in fields], axis=1), GRID, Grid.regular("6x4"))


def recipe_of(path: Path, **data: object) -> Path:
    """Write a recipe for the files in a directory."""
    keys = {"grid": "6x4", "source": str(path), "variables": list(CHANNELS)} | data
    (path.parent / "r.yaml").write_text(f"name: r\ndata: {keys}\n")
    return path.parent / "r.yaml"


@pytest.mark.parametrize("layout", [cds_old, cds_new, cmip, wgrib2, cfgrib, arco])
def test_every_layout_gives_the_same_store(weather, expected, tmp_path, layout):
    (tmp_path / "files").mkdir()
    layout(weather, tmp_path / "files")
    summary = wsdcast.prepare(recipe_of(tmp_path / "files"), tmp_path / "run")
    record = open_analysis(tmp_path / "run/analysis.zarr")
    assert record.variables == CHANNELS
    for name, mean, std in zip(CHANNELS, record.mean, record.std, strict=True):
        said = re.match(r"mean (-?[\d.]+), standard deviation ([\d.]+) ", summary.facts[words(name)])
        np.testing.assert_allclose([float(value) for value in said.groups()], [mean, std], rtol=0, atol=0.005 * std)
        assert len(said[2].replace(".", "").lstrip("0")) >= 3
    tolerance = 0.51 * record.states.packing.scale + 1e-6 * np.abs(expected).max(axis=(0, 2, 3)) + (0.004 if layout is cds_old else 0)
    assert (np.abs(record.states[:] - expected).max(axis=(0, 2, 3)) <= tolerance).all()
    assert (record.states.packing.scale / np.sqrt(12) < 1e-4 * record.std)[2:].all()
    assert not record.static  # z on levels is no static field
    np.testing.assert_allclose(record.mean[2:4], [280, 101000], rtol=1e-2)


def test_levels_of_one_variable_are_read_together(weather, tmp_path):
    arco(weather, tmp_path)
    record = open_record(str(tmp_path / "arco.zarr"), tmp_path, channels=CHANNELS)
    assert record.problems == []
    (block,) = record.blocks()
    assert [reading.channels for reading in block.readings] == [*((name,) for name in CHANNELS[:5]), ("temperature@500", "temperature@850")]


def test_files_may_have_their_levels_in_different_groups(weather, tmp_path):
    """The first half has both levels in one variable, the second half each in a file of its own; one chunk would hold all."""
    temperature = weather[["temperature"]]
    temperature.isel(time=slice(0, 20)).to_netcdf(tmp_path / "a.nc")
    for level in LEVELS:
        temperature.sel(level=level).isel(time=slice(20, None)).to_netcdf(tmp_path / f"b{level}.nc")
    names = ("temperature@500", "temperature@850")
    record = open_record(str(tmp_path), tmp_path, channels=names)
    assert record.problems == []
    (block,) = record.blocks()
    assert sorted(reading.channels for reading in block.readings) == [(name,) for name in names for _ in "ab"]
    read = dict(read_block(block))
    for name, level in zip(names, (500, 850), strict=True):
        expected = weather.temperature.sel(level=level).transpose("time", "latitude", "longitude").values[:, ::-1]
        np.testing.assert_array_equal(read[name], expected)


def test_forcings_come_after_the_state(weather, tmp_path):
    (tmp_path / "files").mkdir()
    arco(weather, tmp_path / "files")
    recipe = recipe_of(tmp_path / "files", variables=["temperature@850"], forcings=["2m_temperature"])
    summary = wsdcast.prepare(recipe, tmp_path / "run")
    record = open_analysis(tmp_path / "run/analysis.zarr")
    assert (record.variables, record.forcing_variables) == (("temperature@850",), ("2m_temperature",))
    assert record.states.shape[1] == record.mean.size == 2
    assert re.fullmatch(r"mean [\d.]+, standard deviation [\d.]+ K, training split, a forcing", summary.facts["2m_temperature"])
    with xr.open_zarr(tmp_path / "run/analysis.zarr") as store:
        assert "temperature@850_climatology" in store
        assert "2m_temperature_climatology" not in store


def test_check_lists_every_variable(weather, tmp_path):
    (tmp_path / "files").mkdir()
    arco(weather, tmp_path / "files")
    names = [*CHANNELS, "temperature@700", "sea_surface_temperature"]
    problems = check(str(tmp_path / "files"), recipe_of(tmp_path / "files", variables=names), tmp_path / "run").problems
    assert len(problems) == 2
    assert problems[0].startswith("has no temperature@700; looked for temperature or t or tmp at 700 hPa among ")
    assert "temperature at 500/850 hPa" in problems[0]
    assert problems[1].startswith("has no sea_surface_temperature; looked for ")
    facts = check(str(tmp_path / "files"), recipe_of(tmp_path / "files"), tmp_path / "run").facts
    for name in CHANNELS:
        lowest, highest = facts[f"range of {words(name)}"].split(variable(name).units.replace("m s-1", "m"))[0].split(" to ")
        assert float(lowest) < TYPICAL.get(name.split("@")[0], (0, 0))[0] < float(highest)


def test_a_value_out_of_range_is_named(weather, tmp_path):
    weather = weather.copy(deep=True)
    weather["temperature"][7, 1, 3, 2] = 1000
    arco(weather, tmp_path)
    with pytest.raises(UserError, match=r"absurd values \([\d.]+ to 1000 K\) in temperature@850 at 2020-01-02T18"):
        wsdcast.prepare(recipe_of(tmp_path / "arco.zarr"), tmp_path / "run")
    assert any(
        "temperature@850" in problem
        for problem in check(str(tmp_path / "arco.zarr"), recipe_of(tmp_path / "arco.zarr"), tmp_path / "run").problems
    )


def test_times_that_a_variable_lacks_are_a_problem_with_its_remedy(weather, tmp_path):
    weather.drop_dims("level").to_netcdf(tmp_path / "surface.nc")
    weather[["temperature"]].isel(time=slice(4, 30)).to_netcdf(tmp_path / "levels.nc")
    names = (DEFAULT[0], "temperature@850")
    record = open_record(str(tmp_path), tmp_path, channels=names)
    assert record.problems == [
        "14 times lack some of the variables, the first 2020-01-01T00: temperature@850; "
        "all are there from 2020-01-02T00 to 2020-01-08T06 (--start, --end, --skip)"
    ]


def test_the_sea_exists_where_it_is_sea(tmp_path):
    """Cells with some sea get the mean of their sea; cells without any the freezing point."""
    values = np.full((40, 8, 16), 270, np.float32) + np.arange(40, dtype=np.float32)[:, None, None]
    values[:, :, :4] = np.nan  # land
    values[:, :, 5] = np.nan
    grid = Grid.regular("16x8")
    source = xr.Dataset(
        {"sst": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {"time": six_hourly("2020-01-01", 40), "latitude": grid.latitude, "longitude": grid.longitude},
    )
    source["t2m"] = source.sst.fillna(280).assign_attrs(units="K") + source.latitude * 0.1
    source["t2m"].attrs["units"] = "K"
    source.to_netcdf(tmp_path / "sst.nc")
    recipe = recipe_of(tmp_path / "sst.nc", grid="8x4", variables=["2m_temperature"], forcings=["sea_surface_temperature"])
    wsdcast.prepare(recipe, tmp_path / "run")
    record = open_analysis(tmp_path / "run/analysis.zarr")
    sea = record.states[:][:, 1]
    scale = record.states.packing.scale[1]
    np.testing.assert_allclose(sea[:, :, 1], 271.35, atol=scale)
    np.testing.assert_allclose(sea[3, :, 3:], 273, atol=scale)
    np.testing.assert_allclose(sea[3, 1, 2], 273, atol=scale)


def test_versions_and_levels_of_one_variable_are_merged():
    """Final ERA5 and its preliminary version, each on two levels."""
    values = np.arange(2 * 2 * 3 * 4 * 8, dtype=np.float32).reshape(2, 2, 3, 4, 8)
    values[0, :, 2] = np.nan  # the last time is preliminary
    grid = Grid.regular("8x4")
    dims = ("expver", "level", "time", "latitude", "longitude")
    coordinates = {
        "expver": [1, 5],
        "level": [500, 850],
        "time": six_hourly("2020-01-01", 3),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    dataset = xr.Dataset({"t": (dims, values, {"units": "K"})}, coordinates)
    fields = fields_of(dataset, ("temperature@850", "temperature@500"))
    assert list(fields) == [("temperature@500", "temperature@850")]
    read = values_of(fields["temperature@500", "temperature@850"], np.arange(3))
    np.testing.assert_array_equal(read[:, :2], values[0, :, :2])
    np.testing.assert_array_equal(read[:, 2], values[1, :, 2])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"variables": ["wind"]}, "no variable 'wind'"),
        ({"variables": ["geopotential"]}, "needs a pressure level"),
        ({"variables": [*DEFAULT, DEFAULT[0]]}, "10m_u_component_of_wind more than once"),
        ({"forcings": [DEFAULT[0]]}, "10m_u_component_of_wind more than once"),
        ({"variables": []}, "at least 1"),
    ],
)
def test_recipes_that_name_no_variables_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Data(**keys)


def test_times_are_appended_with_the_packing_of_the_store(weather, tmp_path):
    (tmp_path / "files").mkdir()
    weather.isel(time=slice(0, 30)).to_netcdf(tmp_path / "files/a.nc")
    recipe = recipe_of(tmp_path / "files", grid="12x7")
    assert "notes" not in wsdcast.prepare(recipe, tmp_path / "run").facts
    before = open_analysis(tmp_path / "run/analysis.zarr")
    later = weather.isel(time=slice(30, None)).copy(deep=True)
    later["2m_temperature"][2, 3, 3] = 337  # possible, but farther out than the sample let expect
    later.to_netcdf(tmp_path / "files/b.nc")
    notes = wsdcast.prepare(recipe, tmp_path / "run", append=True).facts["notes"]
    assert "2m_temperature: 1 far beyond the values of a sample" in notes
    record = open_analysis(tmp_path / "run/analysis.zarr")
    np.testing.assert_array_equal(record.states.values[:30], before.states.values)
    highest = np.iinfo(np.int16).max
    assert record.times.size == 40
    assert (record.states.values[:, 2] == highest).sum() == 1
    assert record.states[32][2].max() == pytest.approx(highest * before.states.packing.scale[2] + before.states.packing.offset[2], rel=1e-6)
    with pytest.raises(UserError, match="was made with the variables"):
        wsdcast.prepare(recipe_of(tmp_path / "files", grid="12x7", variables=["2m_temperature"]), tmp_path / "run", append=True)


@needs_shared
def test_real_wind_at_850_hectopascals_with_the_wind_at_ten_metres(tmp_path):
    for path in (*(SHARED / "upper").glob("*850hPa*.nc"), SHARED / "wind/gfs_10m_wind_1deg_2026-03-24_2026-05-06.nc"):
        (tmp_path / path.name).symlink_to(path)
    names = [*DEFAULT, "u_component_of_wind@850", "v_component_of_wind@850"]
    recipe = recipe_of(tmp_path, grid="64x32", variables=names)
    wsdcast.prepare(recipe, tmp_path / "run", start="2026-04-19T18", end="2026-05-05T18")
    record = open_analysis(tmp_path / "run/analysis.zarr")
    assert record.times.size == 65
    assert (np.diff(record.times) == np.timedelta64(6, "h")).all()
    u, _, upper, _ = np.moveaxis(record.states[:], 1, 0)
    assert np.corrcoef(u.ravel(), upper.ravel())[0, 1] > 0.7  # the same cycles
    assert record.std[2] > record.std[0]


@needs_shared
def test_real_temperature_at_two_metres(tmp_path):
    (path,) = (SHARED / "upper").glob("*t2m*.nc")
    recipe = recipe_of(
        tmp_path / "files",
        source=str(path),
        grid="64x32",
        variables=[*DEFAULT, "2m_temperature"],
        validation_from="2021-01-06",
        test_from="2021-01-07",
    )
    wsdcast.prepare(recipe, tmp_path / "run")
    record = open_analysis(tmp_path / "run/analysis.zarr")
    assert record.times.size == 28
    assert 270 < record.mean[2] < 295
    assert 10 < record.std[2] < 30


def test_the_recipe_of_24_channels_from_a_store_on_disk_and_behind_a_url(tmp_path, monkeypatch):
    """The recipe is the shipped one with a smaller grid and other dates. Each chunk, which holds all levels, is read once."""
    names = load_recipe("era5-upper").data.variables
    source = weatherbench(names, GRID, [250, 500, 600, 700, 850])
    chunks = {name: {"chunks": (8, *field.shape[1:])} for name, field in source.data_vars.items()}
    store = tmp_path / "bucket" / BUILT_IN["wb2"].removeprefix("gs://")
    source.to_zarr(store, zarr_format=2, consolidated=True, encoding=chunks)
    keys = ["--grid", "12x7", "-o", "data.start=2020-01-01", "-o", "data.validation_from=2020-01-08", "-o", "data.test_from=2020-01-09"]
    with serve(tmp_path / "bucket") as (url, handler):
        monkeypatch.setenv("GOOGLE_BASE_URL", url)
        assert invoke("prepare", "--recipe", "era5-upper", "--run", str(tmp_path / "remote"), *keys)[0] == 0
        requests = {name: count for name, count in handler.requests.items() if "component_of_wind/" in name and name.endswith(".0.0.0")}
    assert len(requests) == 10  # two variables on levels, five chunks each; the sample reads them once more
    assert set(requests.values()) == {2}
    assert invoke("prepare", "--recipe", "era5-upper", "--run", str(tmp_path / "local"), "--source", str(store), *keys)[0] == 0
    remote, local = (open_analysis(tmp_path / run / "analysis.zarr") for run in ("remote", "local"))
    assert remote.variables == names
    assert remote.states.shape == (40, 24, 7, 12)
    np.testing.assert_array_equal(remote.states.values, local.states.values)
    for number, name in enumerate(names):
        expected = channel(source, name)
        np.testing.assert_allclose(
            remote.states[:][:, number], expected, atol=0.51 * remote.states.packing.of(number).scale + 1e-6 * np.abs(expected).max()
        )
