"""The table of variables and the names of channels."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import STATE

from wsdcast.data.variables import (
    DEFAULT,
    VARIABLES,
    attributes,
    long_name,
    name_and_level,
    physical_range,
    variable,
    wind_pairs,
)
from wsdcast.data.winds import winds_of
from wsdcast.runs.errors import UserError
from wsdcast.weather.recipe import load_recipe


def channels():
    return [name if entry.kind == "surface" else f"{name}@500" for name, entry in VARIABLES.items()]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("geopotential@500", ("geopotential", 500)),
        ("2m_temperature", ("2m_temperature", None)),
        ("temperature@1000", ("temperature", 1000)),
    ],
)
def test_a_channel_is_a_variable_and_a_level(name, parts):
    assert name_and_level(name) == parts
    assert variable(name) is VARIABLES[parts[0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("geopotential", "needs a pressure level in whole hPa, as geopotential@500"),
        ("geopotential@", "needs a pressure level"),
        ("geopotential@0500", "needs a pressure level"),
        ("geopotential@5e2", "needs a pressure level"),
        ("geopotential@50000", "needs a pressure level"),
        ("2m_temperature@850", "has no levels"),
        ("u100", "no variable 'u100'; it is called 100m_u_component_of_wind here$"),
        ("2t", "it is called 2m_temperature here$"),
        ("Z@500", "it is called geopotential here$"),
        ("wind", "no variable 'wind'; the variables are 10m_u_component_of_wind, "),
    ],
)
def test_names_that_are_no_channel_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        name_and_level(name)


def test_every_variable_has_a_range_that_agrees_with_its_sign_and_its_absence():
    for name in channels():
        (lowest, highest), entry = physical_range(name), variable(name)
        assert lowest < highest
        # Rounding in a source can put values that cannot be negative a little below zero.
        assert not entry.non_negative or -0.02 * highest <= lowest <= 0
        assert entry.absent is None or lowest <= entry.absent <= highest


def test_names_in_files_belong_to_one_variable():
    names = [name for entry in VARIABLES.values() for name in entry.names]
    assert len(names) == len(set(names))
    short_names = [name for entry in VARIABLES.values() for name in entry.grib]
    assert len(short_names) == len(set(short_names))


def test_range_of_the_geopotential_is_that_of_its_level():
    """The height of the 500 hPa level is between 4700 and 6000 m everywhere, that of the 1000 hPa level between -1100 and 700 m."""
    for level, (lowest, highest) in {500: (4700, 6000), 1000: (-1100, 700), 50: (18500, 21500)}.items():
        low, high = physical_range(f"geopotential@{level}")
        assert low < 9.80665 * lowest < 9.80665 * highest < high
    low, high = physical_range("geopotential@500")
    assert high < 10 * 4700 * 9.80665  # decametres and metres are noticed
    assert low > 6000


def test_attributes_are_those_of_cf():
    assert attributes(DEFAULT[0]) == {"standard_name": "eastward_wind", "long_name": "10 m eastward wind", "units": "m s-1"}
    assert attributes("geopotential@500") == {
        "standard_name": "geopotential",
        "long_name": "geopotential at 500 hPa",
        "units": "m2 s-2",
        "pressure_level": 500,
    }
    assert long_name("mean_sea_level_pressure") == "mean sea level pressure"


def test_pairs_of_wind_components():
    upper = ("u_component_of_wind@250", "v_component_of_wind@250")
    assert wind_pairs(DEFAULT) == [DEFAULT]
    assert wind_pairs((upper[1], "2m_temperature", upper[0], *DEFAULT)) == [upper, DEFAULT]
    assert wind_pairs(("u_component_of_wind@250", "v_component_of_wind@850")) == []


def test_the_page_lists_every_variable_with_its_range():
    page = (Path(__file__).parents[1] / "docs/variables.md").read_text()
    for name, entry in VARIABLES.items():
        shown = f"`{name}`" + (" @ level" if entry.kind == "pressure" else "")
        limits = "by level" if name == "geopotential" else f"{entry.lowest:g} to {entry.highest:g}"
        assert f"| {shown} | {entry.units} | {limits} | " in page
    assert "{:,.0f} to {:,.0f} m2 s-2".format(*physical_range("geopotential@500")) in page


@pytest.mark.parametrize(
    ("recipe", "count"), [("planet", 2), ("era5", 2), ("era5-surface", 4), ("era5-upper", 24), ("planet-two-layers", 4)]
)
def test_shipped_recipes_have_their_channels(recipe, count):
    names = load_recipe(recipe).data.channels.all
    assert len(names) == count
    assert names[:2] == DEFAULT


def test_winds_are_named_after_their_height():
    names = (*STATE, "u_component_of_wind@250", "v_component_of_wind@250", "100m_u_component_of_wind", "100m_v_component_of_wind")
    near, upper, high = winds_of(names)
    assert near == (*DEFAULT, "10m_wind_speed", "both", "vector")
    assert upper[2:] == ("wind_speed@250", "both@250", "vector@250")
    assert high[2:] == ("100m_wind_speed", "100m_both", "100m_vector")
    assert winds_of(("2m_temperature", "u_component_of_wind@250")) == []
