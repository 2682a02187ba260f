"""Which variable of a dataset a channel is: by name, pressure level, attributes and height."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from wsdcast.data.sources import naming
from wsdcast.data.sources.conventions import channels_in
from wsdcast.data.sources.decoding import decoded
from wsdcast.data.sources.naming import Finder, Found, contents, levels_of, variables_of
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError


def find(dataset: xr.Dataset, name: str) -> Found | None:
    return Finder(dataset).find(name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([500.0, 850.0], [500, 850]), ([50000.0, 85000.0], [500, 850])],
)
def test_levels_without_units_are_pascals_if_they_are_large(values, expected):
    array = xr.DataArray(np.zeros(2), {"level": values}, ("level",))
    assert levels_of(array)[0] == "level"
    assert levels_of(array)[1].tolist() == expected


@pytest.mark.parametrize(
    ("name", "attributes", "values", "is_pressure"),
    [
        ("level", {}, [10.0], False),  # may be 10 m
        ("level", {}, [1, 2, 3], False),
        ("level", {}, [10, 50, 1000], True),  # of WeatherBench 2
        ("level", {"units": "hPa"}, [10.0], True),
        ("level", {"long_name": "pressure level"}, [10.0], True),
        ("level", {"standard_name": "air_pressure"}, [10.0], True),
        ("isobaricInhPa", {}, [10.0], True),
        ("plev", {}, [10.0], True),
    ],
)
def test_small_levels_without_units_are_pressures_only_if_something_says_so(name, attributes, values, is_pressure):
    array = xr.DataArray(np.zeros(len(values)), {name: (name, values, attributes)}, (name,), name="u")
    found = find(xr.Dataset({"u": array}), f"u_component_of_wind@{10 if 10 in values else 1}")
    assert (found is not None) == (levels_of(array) is not None) == is_pressure


@pytest.mark.parametrize("values", [[98, 99], [500.0, 850.0]])
@pytest.mark.parametrize(
    "attributes",
    [
        {"units": "1"},
        {"units": "level"},
        {"long_name": "model_level_number"},
        {"long_name": "ModelLevel"},
        {"standard_name": "model_level_number"},
        {"standard_name": "model_level_number", "units": "1"},
        {"standard_name": "model_layers"},
        {"standard_name": "height"},
        {"long_name": "hybrid level at midpoints (1000*(A+B))", "units": "hPa"},  # of CESM
        {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"},
        {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "units": "hPa"},
        {"standard_name": "atmosphere_ln_pressure_coordinate", "units": "Pa"},
        {"long_name": "sigma levels", "units": ""},
    ],
)
def test_levels_of_a_model_are_no_pressure_levels(attributes, values):
    array = xr.DataArray(np.zeros(2), {"level": ("level", values, attributes)}, ("level",), name="t")
    assert levels_of(array) is None
    assert find(xr.Dataset({"t": array}), f"temperature@{values[0]:g}") is None


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("level", {}),
        ("level", {"long_name": "pressure_level", "units": "millibars"}),  # of the old Climate Data Store
        ("isobaricInhPa", {"long_name": "pressure", "standard_name": "air_pressure", "units": "hPa"}),  # of cfgrib
        ("p", {"standard_name": "air_pressure", "units": "mbar"}),
        ("lev", {"long_name": "vertical level", "standard_name": "PLE_level", "units": "hPa"}),  # of MERRA-2
        ("level", {"long_name": "Level", "positive": "down", "units": "millibar"}),  # of NCEP's reanalysis
    ],
)
def test_pressure_levels_are_known_whatever_else_is_said_of_them(name, attributes):
    array = xr.DataArray(np.zeros(2), {name: (name, [500.0, 850.0], attributes)}, (name,), name="t")
    assert levels_of(array)[1].tolist() == [500, 850]
    assert find(xr.Dataset({"t": array}), "temperature@850").position == 1


def upper_wind(**methods: str | None) -> xr.Dataset:
    """Variables that are all the eastward wind at 500 hPa by their standard name, with these cell methods."""
    dataset = xr.Dataset(coords={"plev": ("plev", [50000.0], {"units": "Pa"})})
    for name, method in methods.items():
        known = {} if method is None else {"cell_methods": method}
        dataset[name] = ("plev", np.zeros(1), {"standard_name": "eastward_wind", "units": "m s-1", **known})
    return dataset


def test_a_dataset_is_gone_through_once_for_all_channels(monkeypatch):
    """Stores such as ARCO have hundreds of variables, and hundreds of channels are looked for."""
    looked_at = []
    monkeypatch.setattr(naming, "spread_of", lambda array: looked_at.append(array.name) or "")
    assert channels_in(upper_wind(u=None, b=None)) == ("u_component_of_wind@500",)
    assert looked_at == ["u", "b"]


def test_the_variable_on_a_level_is_no_spread_and_the_only_one():
    """At the surface the same holds (tests/test_odd_sources.py, tests/test_record.py)."""
    name = "u_component_of_wind@500"
    assert find(upper_wind(U_std="realization: standard_deviation", U_mean="realization: mean"), name).array.name == "U_mean"
    assert find(upper_wind(other=None, U="time: point"), name).array.name == "U"  # its name is more certain than its attributes
    with pytest.raises(UserError, match=r"^U is a variance \(cell_methods\), not u_component_of_wind@500$"):
        find(upper_wind(U="time: variance"), name)
    with pytest.raises(UserError, match=r"^several variables are eastward_wind at 500 hPa: U_a, U_b$"):
        find(upper_wind(U_a=None, U_b=None, U_std="time: standard_deviation"), name)


@pytest.mark.parametrize(
    ("variable", "standard", "name", "own"),
    [
        ("u10", "northward_wind", DEFAULT[0], "eastward_wind"),
        ("v10", "eastward_wind", DEFAULT[1], "northward_wind"),
        ("u500", "northward_wind", "u_component_of_wind@500", "eastward_wind"),
        ("t2m", "dew_point_temperature", "2m_temperature", "air_temperature"),
    ],
)
def test_a_name_and_a_standard_name_that_disagree_are_refused(variable, standard, name, own):
    """The name alone counted. A standard name of no variable here, or none, says nothing against the name."""
    with pytest.raises(UserError, match=rf"^{variable} has the standard name {standard}, where that of .* is {own}; if its name"):
        find(xr.Dataset({variable: ((), 0.0, {"standard_name": standard})}), name)
    for other in (own, "unknown", None):
        assert find(xr.Dataset({variable: ((), 0.0, {"standard_name": other} if other else {})}), name).array.name == variable


@pytest.mark.parametrize("unit", ["h", "hours", "hr", "min", "d"])
@pytest.mark.parametrize(
    ("zone", "shift"),
    [
        *(("+1:00", -60), ("+01:00", -60), ("-6:00", 360), ("-3:30", 210), ("-11:00", 660), (" -6:00 ", 360), ("", 0)),
        *(("+1", -60), ("-6", 360), ("-06", 360), ("-11", 660), ("+100", -60), ("-330", 210), ("-1130", 690), ("-0:30", 30)),
    ],
)
def test_times_with_a_time_zone_are_in_utc(unit, zone, shift):
    """As CF 4.4 writes it, without a leading zero, or as UDUNITS knows it. After an abbreviated unit it was ignored."""
    raw = xr.Dataset(coords={"time": ("time", [0, 6], {"units": f"{unit} since 2020-01-01 00:00:00 {zone}"})})
    assert decoded(raw, DEFAULT)["time"].values[0] == np.datetime64("2020-01-01T00:00") + np.timedelta64(shift, "m")


@pytest.mark.parametrize("unit", ["h", "hours"])
@pytest.mark.parametrize("clock", [" 03", "T03", "_03", " 3:00", "T03:00:00", "_03:00:00", " 3:0:0.0", ""])
def test_a_time_zone_counts_after_any_clock(unit, clock):
    """After an abbreviated unit, that of an hour alone was ignored, and after an underline the hour itself."""
    for zone, shift in {" +01": -1, " -6": 6, "+01:00": -1, " UTC": 0, "Z": 0, " GMT": 0, "": 0}.items():
        raw = xr.Dataset(coords={"time": ("time", [0, 6], {"units": f"{unit} since 2020-01-01{clock}{zone}"})})
        assert decoded(raw, DEFAULT)["time"].values[0] == np.datetime64("2020-01-01") + np.timedelta64(shift + 3 * bool(clock), "h"), zone


@pytest.mark.parametrize("unit", ["h", "hours"])
@pytest.mark.parametrize(
    "since", [*(f"2020-01-01 00:00 {zone}" for zone in ("CET", "Europe/Berlin", "GMT+1", "PM")), "01/02/2020", "2020-045"]
)
def test_dates_that_may_be_another_time_are_refused(unit, since):
    """Zones with names were UTC without a word, GMT+1 was an hour later, and 01/02 was in January. The day 045 is no zone either."""
    raw = xr.Dataset({"u10": ("time", [0.0, 0.0])}, {"time": ("time", [0, 6], {"units": f"{unit} since {since}"})})
    with pytest.raises(ValueError, match=rf"^u10: time has units '{unit} since {re.escape(since)}'; expected a date such as 2020-01-31 "):
        decoded(raw, DEFAULT)
    raw["u10"].attrs, raw["started"] = {}, ("time", [0, 6], raw["time"].attrs)
    assert list(decoded(raw.drop_vars("time"), DEFAULT)) == ["u10"]  # as other variables that cannot be decoded


@pytest.mark.parametrize("date", ["2020-1-6", "2020-1-6 0:0", "2020-1-6T0:0", "2020-01-06 00:00:00.5"])
def test_a_date_is_no_time_zone(date):
    raw = xr.Dataset(coords={"time": ("time", [0, 6], {"units": f"h since {date}"})})
    assert decoded(raw, DEFAULT)["time"].values.astype("datetime64[s]")[0] == np.datetime64("2020-01-06T00:00")


@pytest.mark.filterwarnings("ignore::xarray.SerializationWarning")  # of years before 1582 and without zeros
@pytest.mark.parametrize(
    "date", ["20200106", "2020-01-06", "2020/1/6", "6-JAN-2020 3:00", "2020-01", "1900", "0001-01-01", "1-1-1 00:00:0.0"]
)
def test_other_dates_are_read_as_xarray_reads_them(date):
    raw = xr.Dataset(coords={"time": ("time", [1_000_000], {"units": f"hours since {date}"})})
    assert decoded(raw.copy(), DEFAULT)["time"].values[0] == xr.decode_cf(raw)["time"].values[0]


def test_the_variable_at_the_surface_is_no_spread():
    pressure = {"standard_name": "surface_air_pressure", "units": "Pa"}
    dataset = xr.Dataset({"a": ((), 0.0, pressure | {"cell_methods": "time: range"}), "b": ((), 1.0, pressure)})
    assert find(dataset, "surface_pressure").array.name == "b"
    with pytest.raises(UserError, match=r"^a is a range \(cell_methods\), not surface_pressure$"):
        find(dataset[["a"]], "surface_pressure")


def test_geopotential_counts_before_its_height():
    """Both are the channel, and units say which one is read. The other order of the file gives the same."""
    dataset = upper_wind(height=None, phi=None)
    dataset["height"].attrs["standard_name"], dataset["phi"].attrs["standard_name"] = "geopotential_height", "geopotential"
    assert find(dataset, "geopotential@500").array.name == "phi"
    assert find(dataset[["height"]], "geopotential@500").array.name == "height"


def test_u10_is_the_wind_at_ten_metres_not_at_ten_hectopascals():
    dataset = xr.Dataset({"u10": ((), 0.0), "u500": ((), 0.0)})
    assert find(dataset, "u_component_of_wind@10") is None
    assert find(dataset, "u_component_of_wind@500").array.name == "u500"
    assert find(dataset, DEFAULT[0]).array.name == "u10"


@pytest.mark.parametrize("order", [("t", "u", "a", "t2m"), ("t2m", "a", "u", "t")])
def test_a_variable_has_the_levels_and_heights_that_it_names_and_no_others(order):
    """As Iris and CF write them: xarray gives each scalar coordinate to all variables, also to those that do not name it."""
    level, height = {"standard_name": "air_pressure", "units": "hPa"}, {"standard_name": "height", "units": "m"}
    scalars = {"pressure": (500.0, level), "pressure_0": (850.0, level), "height": (10.0, height), "height_0": (2.0, height)}
    raw = xr.Dataset({name: ((), value, attributes) for name, (value, attributes) in scalars.items()})
    named = {"t": "pressure", "u": "pressure_0", "a": "height", "t2m": "height_0"}
    for name in order:
        raw[name] = ("x", np.zeros(2), {"coordinates": named[name]})
    raw["a"].attrs["standard_name"], raw["msl"] = "eastward_wind", ("x", np.zeros(2))
    dataset = xr.decode_cf(raw)
    assert channels_in(dataset) == (
        "10m_u_component_of_wind",
        "2m_temperature",
        "mean_sea_level_pressure",
        "temperature@500",
        "u_component_of_wind@850",
    )
    assert {"t at 500 hPa", "u at 850 hPa", "msl"} < {*contents(dataset)}
    raw["t2m"].attrs["coordinates"] = "height"
    wrong = xr.decode_cf(raw)
    with pytest.raises(UserError, match="t2m is at a height of 10 m, not 2 m"):
        find(wrong, "2m_temperature")


def test_a_single_time_is_that_of_all_variables_even_if_one_alone_names_it():
    raw = xr.Dataset({"u10": ("x", np.zeros(2), {"coordinates": "time"}), "v10": ("x", np.zeros(2))})
    raw["time"] = ((), 6, {"units": "hours since 2000-01-01"})
    assert [list(array.coords) for array in variables_of(xr.decode_cf(raw))] == [["time"], ["time"]]
