"""Units: spellings of one unit in sources, conversions, units that leave a doubt, and units that are shown."""

from __future__ import annotations

import numpy as np
import pytest

from wsdcast.data.sources.units import CONVERSIONS, conversion, size_of_speed
from wsdcast.data.variables import units_in_words
from wsdcast.report.display_units import DISPLAYED, display_of
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


@pytest.mark.parametrize(
    ("units", "stored", "shown", "difference", "words"),
    [
        ("K", 273.15, (0, "degC"), (273.15, "K"), "°C"),
        ("Pa", 101325, (1013.25, "hPa"), (1013.25, "hPa"), "hPa"),
        ("m2 s-2", 98066.5, (10000, "gpm"), (10000, "gpm"), "gpm"),
        ("m", 0.012, (12, "mm"), (12, "mm"), "mm"),
        ("1", 0.5, (50, "%"), (50, "%"), "%"),
        ("kg kg-1", 0.008, (8, "g kg-1"), (8, "g kg-1"), "g/kg"),
        ("m s-1", 7, (7, "m s-1"), (7, "m s-1"), "m/s"),
    ],
)
def test_values_are_shown_in_the_units_of_forecasters(units, stored, shown, difference, words):
    display = display_of(units)
    assert (display.units, display.difference_units, units_in_words(display.units)) == (shown[1], difference[1], words)
    assert display.of(stored) == pytest.approx(shown[0])
    assert display.of_differences(stored) == pytest.approx(difference[0])
    values = np.array([stored, 1.1 * stored], np.float32)
    assert display.of(values).dtype == np.float32
    np.testing.assert_allclose(np.ptp(display.of(values)), display.of_differences(np.ptp(values)), rtol=1e-4)


def test_units_that_are_shown_can_be_read_again():
    assert set(DISPLAYED) <= set(CONVERSIONS)
    for units, shown in DISPLAYED.items():
        scale, shift = conversion(shown, units, "")
        assert display_of(units).of(scale * 17.0 + shift) == pytest.approx(17)
