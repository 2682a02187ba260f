"""Members that leave the physical range of a variable: which they are, and how the summary names them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from made_records import STATE

from wsdcast.data.store.forecasts import Written
from wsdcast.data.variables import DEFAULT, physical_range
from wsdcast.weather.forecast.outcome import clipped, stopped
from wsdcast.weather.forecast.writing import allowed_ranges, left_range


def test_the_range_of_each_variable_is_its_own():
    """NaN, and a value beyond the range, leave it in their own channel only; a variable that cannot be negative has a margin."""
    ranges = allowed_ranges(STATE)
    assert (ranges[0, 1], ranges[1, 1]) == (-120, 120)
    assert tuple(ranges[:, 4]) == physical_range("geopotential@500")
    assert ranges[0, 2] == pytest.approx(-0.006)  # 1e-3 below zero in the table, and a tenth of 0.05
    states = np.zeros((1, 3, 5, 2, 2), np.float32)
    states[0, :, 0], states[0, :, 4] = 280, 55_000
    states[0, 1, 0, 1, 1], states[0, 2, 1, 0, 0] = 400, np.nan
    states[0, 0, 2, 1, 0] = -0.007  # at one point
    expected = np.zeros((3, 5), dtype=bool)
    expected[0, 2] = expected[1, 0] = expected[2, 1] = True
    np.testing.assert_array_equal(left_range(states, ranges)[0], expected)


def test_the_summary_names_the_first_stopped_members_and_all_variables_that_left_their_ranges():
    by = ([DEFAULT[0], "", "2m_temperature"], [DEFAULT[1]] * 3, [DEFAULT[1], "", ""])
    hours = ([12, 0, 18], [6, 6, 6], [24, 0, 0])
    store = SimpleNamespace(times=np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]"), members=3)
    store.all_written = lambda: [Written(*of_start, {}) for of_start in zip(hours, by, strict=True)]
    first = "member 0 of 2020-01-01T00 at 12 h; member 2 of 2020-01-01T00 at 18 h by 2m_temperature"
    second = "; ".join(f"member {number} of 2020-01-02T00 at 6 h" for number in range(3))
    ranges = [f"{DEFAULT[0]} outside -120 to 120 m s-1", "2m_temperature outside 173 to 338 K", f"{DEFAULT[1]} outside -120 to 120 m s-1"]
    expected = f"6 of 9 members, with {', '.join(ranges)}: {first}; {second}; and 1 more; more data or more training may help"
    assert stopped(store, "f") == {"stopped: f": expected}
    hours[2][0], by[2][0] = 0, ""
    assert stopped(store, "f")["stopped: f"].endswith("; member 2 of 2020-01-02T00 at 6 h; more data or more training may help")
    store.clipped = lambda: {"specific_humidity@850": 0.0123, "specific_humidity@500": 0.5}
    shares = "specific_humidity@850 1.2 %, specific_humidity@500 50 %"
    assert clipped(store, "f") == {"negative values set to zero: f": shares}
