"""Climatologies of a record of several years against the calendar gone through day by day."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from conftest import six_hourly, wind_dataset

import wsdcast
from wsdcast.data.analysis import Analysis, open_analysis
from wsdcast.data.climatology import read_climatology
from wsdcast.data.grid import Grid
from wsdcast.data.store import PackedWind
from wsdcast.verification.baselines import (
    CLIMATOLOGICAL_MEAN,
    PROBABILISTIC_CLIMATOLOGY,
    climatological_mean,
    climatology,
    other_years,
)

GRID = Grid.regular("4x2")


def record_of(times: np.ndarray, validation_from: str, test_from: str) -> Analysis:
    """Each state is the number of its time in the record."""
    values = np.broadcast_to(np.arange(times.size, dtype=np.int16)[:, None, None, None], (times.size, 2, *GRID.shape))
    one, begins = np.ones(2, np.float32), [np.datetime64(moment, "ns") for moment in (validation_from, test_from)]
    return Analysis(PackedWind(values), times, GRID, 0 * one, one, *begins)


@pytest.fixture(scope="module")
def years() -> Analysis:
    """2011 to 2017, two of them with a 29 February, some days missing, training until the middle of 2016."""
    times = six_hourly("2011-01-01", 4 * 2557)
    gaps = (times >= np.datetime64("2013-03-02")) & (times < np.datetime64("2013-03-09"))
    return record_of(times[~gaps], "2016-07-01", "2017-01-01")


def allowed(record: Analysis, valid: np.datetime64) -> list[int]:
    """Every training state that may stand for a time, found with the calendar of Python."""
    moment, training = valid.astype("datetime64[s]").item(), record.times[record.part("train")]
    where = {time.astype("datetime64[s]").item(): index for index, time in enumerate(training)}
    found = []
    for year in range(2009, 2020):
        try:
            same_day = moment.replace(year=year)
        except ValueError:
            same_day = moment.replace(year=year, month=3, day=1)
        days = [same_day + timedelta(days=day) for day in range(-5, 6)]
        found += [where[day] for day in days if year != moment.year and day in where]
    return found


@pytest.mark.parametrize("start", ["2017-01-02T06", "2017-03-04T00", "2016-02-28T12", "2016-02-29T18", "2012-02-29T00", "2017-12-30T00"])
def test_members_are_of_the_same_time_of_other_years_of_the_training_part(years, start):
    valid = np.datetime64(start, "ns") + np.arange(4) * np.timedelta64(1, "D")
    name, members = other_years(years, valid)
    assert name == PROBABILISTIC_CLIMATOLOGY
    possible = [allowed(years, time) for time in valid]
    assert members.shape == (4, min(50, *map(len, possible)))
    for time, chosen, states in zip(valid, members, possible, strict=True):
        assert set(chosen) <= set(states)
        assert (np.diff(chosen) > 0).all()
        assert {chosen[0], chosen[-1]} == {states[0], states[-1]}
        # As evenly as whole numbers allow: steps among what is possible differ by one at most.
        assert np.ptp(np.diff(np.searchsorted(states, chosen))) <= 1
        assert (years.times[chosen] < years.validation_from).all()
        assert (np.abs(years.times[chosen] - time) > np.timedelta64(354, "D")).all()
        assert {moment.astype("datetime64[s]").item().hour for moment in years.times[chosen]} == {time.astype("datetime64[s]").item().hour}


def test_by_hand():
    """Three years, of which the middle one is the one forecast, and a 29 February in the first."""
    record = record_of(six_hourly("2012-01-01", 4 * 1096), "2014-12-01", "2014-12-02")
    name, members = other_years(record, np.array([["2013-03-03T12"]], "datetime64[ns]"))
    assert name == PROBABILISTIC_CLIMATOLOGY
    found = record.times[members[0, 0]].astype("datetime64[h]")
    expected = [
        *(f"2012-02-{day:02}T12" for day in (27, 28, 29)),
        *(f"2012-03-{day:02}T12" for day in range(1, 9)),
        *(f"2014-02-{day:02}T12" for day in (26, 27, 28)),
        *(f"2014-03-{day:02}T12" for day in range(1, 9)),
    ]
    np.testing.assert_array_equal(found, np.array(expected, dtype="datetime64[h]"))


def test_as_many_members_at_all_times_and_at_most_fifty(years):
    valid = np.array(["2017-03-05T00", "2017-08-05T00"], "datetime64[ns]")
    _, members = other_years(years, valid)
    assert members.shape == (2, 50)
    assert len({int(time.astype("datetime64[Y]").astype(int)) for time in years.times[members[1]]}) == 5
    # Of three years' eleven days, seven are missing for the first.
    _, members = other_years(record_of(years.times, "2014-01-01", "2014-01-02"), valid)
    assert members.shape == (2, 26)


def test_a_short_record_falls_back_on_all_of_its_states_and_says_so():
    record = record_of(six_hourly("2019-01-01", 4 * 500), "2020-03-01", "2020-04-01")
    valid = np.array([["2020-04-02", "2020-04-03", "2020-04-04"]] * 2, "datetime64[ns]")
    name, members = other_years(record, valid)
    assert name == "climatology of 50 states"
    assert members.shape == (2, 3, 50)
    np.testing.assert_array_equal(record.wind[members[1, 2]], climatology(record))
    name, members = other_years(record_of(six_hourly("2020-01-01", 40), "2020-01-06", "2020-01-08"), valid)
    assert name == "climatology of 20 states"
    np.testing.assert_array_equal(members[0, 0], np.arange(20))


def test_no_time_that_is_not_in_training_is_ever_chosen(years):
    """Over all times of a test year, hour by hour."""
    valid = six_hourly("2017-01-01", 4 * 365)
    name, members = other_years(years, valid)
    assert name == PROBABILISTIC_CLIMATOLOGY
    chosen = years.times[members]
    assert (chosen < years.validation_from).all()
    day = [moment.astype("datetime64[D]").item().timetuple().tm_yday for moment in chosen[:, ::7].ravel()]
    own = np.repeat([moment.astype("datetime64[D]").item().timetuple().tm_yday for moment in valid], members[:, ::7].shape[1])
    apart = np.abs(np.array(day) - own)
    assert np.minimum(apart, 365 - apart).max() <= 6  # one more than five around the end of a February


def test_mean_lies_between_those_of_two_months():
    """By hand: month m has m (u) and -m (v) at 00 UTC, and 100 more at 12 UTC."""
    by_month = np.empty((2, 12, 4, *GRID.shape), np.float32)
    by_month[:] = (np.array([1, -1])[:, None, None] * np.arange(1, 13)[:, None] + np.array([0, 50, 100, 150]))[..., None, None]
    valid = np.array(["2021-01-16T12", "2021-02-15T00", "2021-02-01T00", "2021-12-31T12", "2020-07-24T06"], "datetime64[ns]")
    assert CLIMATOLOGICAL_MEAN == "climatological mean"
    found = climatological_mean(by_month, valid)
    assert found.shape == (1, 5, 2, *GRID.shape)
    assert found.dtype == np.float32
    # The middle of January and of February, between them, half a day before the year's end, and 23.25 days into July.
    late, into_july = 12 * (1 - (30.5 / 31 - 0.5)) + 1 * (30.5 / 31 - 0.5), 23.25 / 31 - 0.5
    expected = [101, 2, 1.5, 100 + late, 50 + 7 * (1 - into_july) + 8 * into_july]
    np.testing.assert_allclose(found[0, :, 0], np.broadcast_to(np.array(expected)[:, None, None], (5, *GRID.shape)), rtol=1e-6)
    assert found[0, 1, 1, 0, 0] == pytest.approx(-2)


def test_months_that_training_lacks_have_the_mean_of_those_it_has():
    by_month = np.full((2, 12, 4, *GRID.shape), np.nan, np.float32)
    by_month[:, 0], by_month[:, 1] = 3, 5
    found = climatological_mean(by_month, np.array(["2021-07-16T12", "2021-01-16T12"], "datetime64[ns]"))
    np.testing.assert_allclose(found[0, :, 0, 0, 0], [4, 3])


def test_mean_of_a_prepared_store(tmp_path):
    """In the middle of a month it is the mean of that month's states at that hour."""
    wind = wind_dataset(six_hourly("2019-11-01", 600), np.linspace(90, -90, 7), np.arange(0.0, 360.0, 45.0))
    wind.to_netcdf(tmp_path / "wind.nc")
    wsdcast.prepare(source=str(tmp_path / "wind.nc"), grid="8x4", run=tmp_path / "run")
    store = tmp_path / "run/analysis.zarr"
    record = open_analysis(store)
    found = climatological_mean(read_climatology(store), np.array(["2019-12-16T12"], "datetime64[ns]"))
    chosen = [
        (moment.year, moment.month, moment.hour) == (2019, 12, 12) for moment in record.times.astype("datetime64[s]").astype(datetime)
    ]
    np.testing.assert_allclose(found[0, 0], record.wind[np.flatnonzero(chosen)].mean(axis=0), atol=1e-4)
