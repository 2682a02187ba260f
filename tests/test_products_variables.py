"""Products of a forecast of any variables: each equals a plain computation with xarray, under a clear name and in its units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.sources.foreign_forecasts import readable_channels
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.data.variables import DEFAULT, VARIABLES, short_name
from wsdcast.data.winds import array_attributes, winds_of
from wsdcast.output import plumes
from wsdcast.output.quantities import quantities_of, split_product
from wsdcast.runs.errors import UserError
from wsdcast.verification.members import remaining, share_above

GRID = Grid.regular("8x5")
HOUR = np.timedelta64(1, "h")
GRID_AXES = (GRID.latitude, GRID.longitude)
AXES = ("time", "number", "prediction_timedelta", "latitude", "longitude")
UPPER = ("u_component_of_wind@250", "v_component_of_wind@250")
SCALES = {
    "2m_temperature": (280, 8),
    DEFAULT[0]: (0, 9),
    "geopotential@500": (55_000, 900),
    DEFAULT[1]: (0, 9),
    UPPER[0]: (10, 20),
    UPPER[1]: (0, 20),
}
"""Mean and standard deviation of each channel."""
SHORT = {"2m_temperature": "t2m", "geopotential@500": "z_500", UPPER[0]: "u_250", UPPER[1]: "v_250", DEFAULT[0]: "u", DEFAULT[1]: "v"}


def made() -> xr.Dataset:
    """Random members of one forecast; one of them is stopped at 12 h."""
    random, leads = np.random.default_rng(0), (HOUR * np.arange(6, 24, 6)).astype("timedelta64[ns]")
    shape = 1, 6, leads.size, *GRID.shape
    coordinates = dict(zip(AXES, (np.array(["2020-02-01"], "datetime64[ns]"), np.arange(6), leads, *GRID_AXES), strict=True))
    store = xr.Dataset(coords=coordinates)
    for name, (mean, std) in SCALES.items():
        values = random.normal(mean, std, shape).astype(np.float32)
        values[:, 2, 1:] = np.nan
        store[name] = AXES, values, array_attributes(name)
    return store


def stored(path: Path, store: xr.Dataset) -> str:
    store.to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    return stored(tmp_path_factory.mktemp("variables") / "f.zarr", made())


def quantities(store: xr.Dataset) -> dict[str, xr.DataArray]:
    """What products are computed of, by the short name."""
    found = {SHORT[str(name)]: array for name, array in store.data_vars.items()}
    for speed, names in (("speed", DEFAULT), ("speed_250", UPPER)):
        if set(names) <= set(store.data_vars):
            found[speed] = np.hypot(*(store[name] for name in names))
    return found


def as_shown(name: str, values: xr.DataArray) -> xr.DataArray:
    """Values of a quantity in the units of tables and plumes: degrees Celsius, and geopotential height in m."""
    return {"t2m": values - 273.15, "z_500": values / 9.80665}.get(name, values)


OF_WIND = {"speed_probability", "direction", "direction_share", "direction_mean"}


@pytest.mark.parametrize("without", [(), DEFAULT], ids=["with 10 m wind", "without"])
def test_every_variable_has_mean_spread_and_quantiles_in_its_units(tmp_path, without):
    store = made().drop_vars(without)
    expected = {}
    for name, members in quantities(store).items():
        expected[f"{name}_mean"], expected[f"{name}_spread"] = members.mean("number"), members.std("number", ddof=1)
        expected[f"{name}_quantile"] = members.quantile([0.1, 0.5], "number")
    summary = wsdcast.products(stored(tmp_path / "f.zarr", store), tmp_path / "p.zarr", to="zarr", quantiles=[0.5, 0.1])
    assert summary.facts["left out"].startswith("2 of 18 members and lead times")
    assert ("thresholds" in summary.facts) == ("direction" in summary.facts) == (not without)
    with xr.open_zarr(tmp_path / "p.zarr", decode_timedelta=True, chunks=None) as products:
        assert set(products.data_vars) == {*expected, "members", *(() if without else OF_WIND)}
        assert ("threshold" in products.coords) == (not without)
        np.testing.assert_array_equal(products["members"], [[6, 5, 5]])
        for name, values in expected.items():
            np.testing.assert_allclose(products[name], values.transpose(*products[name].dims), rtol=2e-5, atol=1e-6, err_msg=name)
        assert products["t2m_spread"].attrs == {
            "standard_name": "air_temperature",
            "long_name": "standard deviation of 2 m air temperature over the members",
            "units": "K",
            "cell_methods": "realization: standard_deviation",
        }
        assert products["z_500_mean"].attrs["units"] == "m2 s-2"
        assert products["z_500_mean"].attrs["pressure_level"] == 500
        assert products["z_500_quantile"].attrs["long_name"] == "quantiles of geopotential at 500 hPa over the members"
        assert products["speed_250_mean"].attrs["standard_name"] == "wind_speed"


def test_products_of_the_wind_are_those_of_the_wind_alone(forecast, tmp_path):
    wsdcast.products(forecast, tmp_path / "all.nc", window_hours=12)
    wsdcast.products(stored(tmp_path / "w.zarr", made()[list(DEFAULT)]), tmp_path / "wind.nc", window_hours=12)
    with xr.open_dataset(tmp_path / "all.nc") as every, xr.open_dataset(tmp_path / "wind.nc") as wind:
        assert set(every.data_vars) - set(wind.data_vars) == {
            f"{name}_{product}" for name in ("t2m", "z_500", "u_250", "v_250", "speed_250") for product in ("mean", "spread", "quantile")
        }
        for name, values in wind.data_vars.items():
            np.testing.assert_array_equal(every[name], values, err_msg=str(name))
            assert every[name].attrs == values.attrs
        assert wind.attrs["title"] == "products of an ensemble forecast of 10 m wind"
        assert every.attrs["title"] == "products of an ensemble forecast"


def test_a_member_with_a_gap_in_any_variable_is_in_no_window(tmp_path):
    store = made()
    store["2m_temperature"][:, 4, 0, 1, 1] = np.nan
    wsdcast.products(stored(tmp_path / "f.zarr", store), tmp_path / "p.nc", window_hours=12)
    with xr.open_dataset(tmp_path / "p.nc") as products:
        np.testing.assert_array_equal(products["members"], [5, 5, 5])
        np.testing.assert_array_equal(products["window_members"], [np.nan, 4, 5])


def test_heights_in_names_are_no_levels():
    array = made()["2m_temperature"].isel(time=0, number=0, prediction_timedelta=0, drop=True).drop_attrs()
    assert channels_in(xr.Dataset(dict.fromkeys(("u80", "v80", "u120", "T2", "Q2", "t10"), array))) == ()
    on_levels = xr.Dataset(dict.fromkeys(("u850", "T_500", "Q10hPa"), array))
    assert set(channels_in(on_levels)) == {"u_component_of_wind@850", "temperature@500", "specific_humidity@10"}


@pytest.mark.parametrize(
    ("options", "name"),
    [({"thresholds": [5.0]}, "thresholds"), ({"window_hours": 6}, "window"), ({"climatology": "nowhere.nc"}, "climatology")],
)
def test_options_about_the_wind_need_a_wind(tmp_path, options, name):
    store = stored(tmp_path / "f.zarr", made()[["2m_temperature"]])
    with pytest.raises(UserError, match=rf"--{name} is about the 10 m wind, which .*f\.zarr does not have"):
        wsdcast.products(store, tmp_path / "p.nc", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["f.zarr"]


def test_the_table_and_the_plumes_have_every_variable(forecast, tmp_path, monkeypatch):
    drawn = []
    draw = plumes.plume
    monkeypatch.setattr(plumes, "plume", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    (tmp_path / "a.csv").write_text(f"name,latitude,longitude\nA,{GRID.latitude[1]},{GRID.longitude[3]}\n")
    summary = wsdcast.products(forecast, tmp_path / "p.csv", at=tmp_path / "a.csv")
    assert summary.facts["interpolation"].startswith("bilinear from the four grid points")
    assert [Path(path).name for path in summary.written] == ["p.csv", "p-A.png"]
    table = pd.read_csv(tmp_path / "p.csv")
    members = quantities(made().isel(time=0, latitude=1, longitude=3))
    assert set(table["variable"]) == {*members, "direction"}
    for name, values in members.items():
        chosen = table[(table["variable"] == name) & (table["statistic"] == "mean")]
        np.testing.assert_allclose(chosen["value"], as_shown(name, values.mean("number")), rtol=1e-5, atol=1e-4)
        median = table[(table["variable"] == name) & (table["statistic"] == "quantile") & (table["level"] == 0.5)]
        np.testing.assert_allclose(median["value"], as_shown(name, values.median("number")), rtol=1e-5, atol=1e-4)
        spread = table[(table["variable"] == name) & (table["statistic"] == "spread")]
        scale = 9.80665 if name == "z_500" else 1
        np.testing.assert_allclose(spread["value"], values.std("number", ddof=1) / scale, rtol=1e-5)
    units = table.groupby(["variable", "statistic"])["units"].first()
    for statistic in ("mean", "quantile", "spread"):
        expected = ("K" if statistic == "spread" else "degC", "gpm", "m s-1")
        assert tuple(units[[("t2m", statistic), ("z_500", statistic), ("speed_250", statistic)]]) == expected
    assert tuple(units["direction"][["mean", "mode", "share of mode"]]) == ("degree", "degree", "1")
    ((bands, subjects, _, title, _),) = drawn
    assert title.startswith("A (")
    labels = ["10 m wind speed", "wind speed at 250 hPa", "2 m air temperature", "geopotential height at 500 hPa"]
    assert [subject.value_label for subject in subjects] == labels
    for values, name in zip(bands, ("speed", "speed_250", "t2m", "z_500"), strict=True):
        np.testing.assert_allclose(values, as_shown(name, members[name].quantile(QUANTILES, "number")), rtol=1e-5, atol=1e-4)


def test_a_variable_that_cannot_be_read_is_left_out_and_named(tmp_path):
    store = made()
    store["2m_temperature"].attrs["units"] = "degC"
    store["geopotential@500"] = store["geopotential@500"].isel(number=0, drop=True)
    summary = wsdcast.products(stored(tmp_path / "f.zarr", store), tmp_path / "p.nc")
    assert "2m_temperature has units 'degC'; expected K" in summary.facts["not read"]
    assert "geopotential@500 has no dimension number" in summary.facts["not read"]
    with xr.open_dataset(tmp_path / "p.nc") as products:
        assert {"u_mean", "speed_250_mean"} <= set(products.data_vars)
        assert not {"t2m_mean", "z_500_mean"} & set(products.data_vars)


def test_all_variables_of_grib_are_found(forecast, tmp_path):
    pytest.importorskip("eccodes")
    wsdcast.convert(forecast, "grib2", tmp_path / "f.grib2")
    assert set(readable_channels(str(tmp_path / "f.grib2"))[0]) == set(SCALES)


def test_names_of_quantities_can_be_told_apart():
    """No two channels or speeds share a name, and the product is the end of a name."""
    names = [name if entry.kind == "surface" else f"{name}@{level}" for name, entry in VARIABLES.items() for level in (500, 850)]
    names = list(dict.fromkeys(names))
    found = quantities_of(names)
    assert len(found) == len(names) + len(winds_of(names))
    assert all(name.isidentifier() for name in found)
    for name in found:
        for product in ("mean", "spread", "quantile"):
            assert split_product(f"{name}_{product}") == (name, product)
    assert list(quantities_of(DEFAULT)) == ["u", "v", "speed"]
    assert list(quantities_of(DEFAULT[:1])) == ["u10"]
    assert split_product("speed_climate_probability") == ("speed", "climate_probability")
    assert split_product("direction") == ("direction", "")
    assert short_name("100m_u_component_of_wind") == "u100"


def test_a_point_that_is_masked_in_one_variable_counts_in_the_others():
    """Such as the sea surface: each channel has its own points; a member with a gap in any of them is left out as a whole."""
    fields = np.zeros((3, 2, 2, 2))
    fields[:, 1, 0, 0] = np.nan
    assert remaining(fields).tolist() == [True, True, True]
    fields[1, 0, 1, 1] = np.nan
    assert remaining(fields).tolist() == [True, False, True]
    share = share_above(np.array([[1.0, np.nan], [3, np.nan], [2, np.nan]]), 1)
    np.testing.assert_array_equal(share, [2 / 3, np.nan])
