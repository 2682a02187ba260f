"""Units of sources: spellings of one unit, conversions, and units that leave a doubt."""

from __future__ import annotations

import pytest

from wsdcast.data.sources.units import conversion, size_of_speed
from wsdcast.runs.errors import UserError

SPELLINGS = "m s-1, m s**-1, m/s, M/S, m s^-1, m s^{-1}, m.s-1, m*s-1, m/sec, ms-1, meter/second, metres per second, m s\u207b\u00b9"


@pytest.mark.parametrize("units", SPELLINGS.split(", "))
def test_all_spellings_of_metres_per_second_are_accepted(units):
    assert size_of_speed(units) == 1


@pytest.mark.parametrize("units", ["", "knots", "km/h", "m", "s-1", "m s-2", "cm/s", "mm/s", "m/min", "km s-1", "1"])
def test_other_units_are_not_metres_per_second(units):
    assert size_of_speed(units) != 1


@pytest.mark.parametrize(
    ("units", "expected", "value"),
    [
        ("degrees_Celsius", "K", 283.15),
        ("K", "K", 10),
        ("hPa", "Pa", 1000),
        ("m**2 s**-2", "m2 s-2", 10),
        ("gpm", "m2 s-2", 98.0665),
        ("dam", "m2 s-2", 980.665),
        ("knots", "m s-1", 18520 / 3600),
        ("km/h", "m s-1", 10 / 3.6),
        ("km h-1", "m s-1", 10 / 3.6),
        ("mph", "m s-1", 16093.44 / 3600),
        ("cm/s", "m s-1", 0.1),
        ("g kg**-1", "kg kg-1", 0.01),
        ("(0 - 1)", "1", 10),
        ("~", "1", 10),
        ("Numeric", "1", 10),
        ("radians", "radians", 10),
        ("degrees", "radians", 0.174533),
        ("%", "1", 0.1),
        ("mm", "m", 0.01),
        ("J m**-2", "J m-2", 10),
    ],
)
def test_ten_of_a_unit(units, expected, value):
    factor, shift = conversion(units, expected, "x")
    assert 10 * factor + shift == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("units", "expected"), [("", "K"), ("m", "K"), ("degF", "K"), ("m/min", "m s-1"), ("W m-2", "J m-2"), ("%", "kg kg-1"), ("", "radians")]
)
def test_units_that_leave_a_doubt_are_refused(units, expected):
    with pytest.raises(UserError, match=f"x has units '{units}'; expected {expected}"):
        conversion(units, expected, "x")
