"""Tests of climatologies of a record of several years against a calendar that is gone through day by day."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from conftest import six_hourly

from wsdcast.data.grid import Grid
from wsdcast.verification import memory
from wsdcast.verification.baselines import CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY, other_years, past_states
from wsdcast.verification.scoring import Sources, climate_of
from wsdcast.verification.truth import Truth

GRID = Grid.regular("4x2")


def truth_of(times: np.ndarray, until: str) -> Truth:
    """Return a truth whose states are the number of their time. The past is all times before ``until``."""
    return Truth(
        times,
        GRID,
        lambda positions: np.broadcast_to(positions[:, None, None, None], (positions.size, 2, *GRID.shape)).astype(np.float32),
        np.flatnonzero(times < np.datetime64(until, "ns")),
    )


@pytest.fixture(scope="module")
def years() -> Truth:
    """Return 2011 to 2017, with two leap years and some missing days; the training split ends in the middle of 2016."""
    times = six_hourly("2011-01-01", 4 * 2557)
    gaps = (times >= np.datetime64("2013-03-02")) & (times < np.datetime64("2013-03-09"))
    return truth_of(times[~gaps], "2016-07-01")


def allowed(record: Truth, valid: np.datetime64) -> list[int]:
    """Return every training state that may be a member at a time, by Python's calendar."""
    moment, training = valid.astype("datetime64[s]").item(), record.times[record.past]
    index_of = {time.astype("datetime64[s]").item(): index for index, time in enumerate(training)}
    result = []
    for year in range(2009, 2020):
        try:
            same_day = moment.replace(year=year)
        except ValueError:
            same_day = moment.replace(year=year, month=3, day=1)
        days = [same_day + timedelta(days=day) for day in range(-5, 6)]
        result += [index_of[day] for day in days if year != moment.year and day in index_of]
    return result


@pytest.mark.parametrize("start", ["2017-01-02T06", "2017-03-04T00", "2016-02-28T12", "2016-02-29T18", "2012-02-29T00", "2017-12-30T00"])
def test_climatology_members_are_the_same_time_of_other_training_years(years, start):
    valid = np.datetime64(start, "ns") + np.arange(4) * np.timedelta64(1, "D")
    members = other_years(years, valid)
    possible = [allowed(years, time) for time in valid]
    assert members.shape == (4, min(50, *map(len, possible)))
    for time, chosen, states in zip(valid, members, possible, strict=True):
        assert set(chosen) <= set(states)
        assert (np.diff(chosen) > 0).all()
        assert {chosen[0], chosen[-1]} == {states[0], states[-1]}
        # Members are spread as evenly as possible: the steps between them differ by at most one.
        assert np.ptp(np.diff(np.searchsorted(states, chosen))) <= 1
        assert (years.times[chosen] < np.datetime64("2016-07-01")).all()
        assert (np.abs(years.times[chosen] - time) > np.timedelta64(354, "D")).all()
        assert {moment.astype("datetime64[s]").item().hour for moment in years.times[chosen]} == {time.astype("datetime64[s]").item().hour}


def test_valid_times_without_truth_do_not_change_the_climatology(years):
    """A three-hourly forecast is scored each 6 h, against the climatology of these times. It was a plain one, since 03 UTC has no past."""
    valid = np.datetime64("2017-03-04T03", "ns") + np.arange(8).reshape(2, 4) * np.timedelta64(3, "h")
    name, states = climate_of(years, valid)
    assert name == PROBABILISTIC_CLIMATOLOGY
    np.testing.assert_array_equal(states[:, 1::2], other_years(years, valid[:, 1::2]))
    assert set(states.ravel()) <= set(years.past)
    assert climate_of(years, valid[:, ::2])[0] == CLIMATOLOGY  # nothing of this can be scored


def test_the_memory_of_scoring_is_that_of_the_initial_times_with_truth(years, monkeypatch):
    """If the first had none, it was that of a plain climatology, whose few states are the same at all times."""
    monkeypatch.setattr(memory, "opened", lambda _: ({}, years))
    sources, leads = Sources((), "", years.times[0], ""), np.arange(6, 30, 6) * np.timedelta64(1, "h")
    times = np.array(["2016-08-01", "2030-01-01"], "datetime64[ns]")
    assert memory.scoring(sources, times[::-1], leads) == memory.scoring(sources, times[:1], leads)


def test_climatology_members_of_a_date_are_those_listed():
    """Of three years the middle one is forecast. The first has a 29 February."""
    record = truth_of(six_hourly("2012-01-01", 4 * 1096), "2014-12-01")
    members = other_years(record, np.array([["2013-03-03T12"]], "datetime64[ns]"))
    result = record.times[members[0, 0]].astype("datetime64[h]")
    expected = [
        *(f"2012-02-{day:02}T12" for day in (27, 28, 29)),
        *(f"2012-03-{day:02}T12" for day in range(1, 9)),
        *(f"2014-02-{day:02}T12" for day in (26, 27, 28)),
        *(f"2014-03-{day:02}T12" for day in range(1, 9)),
    ]
    np.testing.assert_array_equal(result, np.array(expected, dtype="datetime64[h]"))


def test_all_times_have_the_same_number_of_members_and_at_most_fifty(years):
    valid = np.array(["2017-03-05T00", "2017-08-05T00"], "datetime64[ns]")
    members = other_years(years, valid)
    assert members.shape == (2, 50)
    assert len({int(time.astype("datetime64[Y]").astype(int)) for time in years.times[members[1]]}) == 5
    # Three years have eleven days each, and seven of them are missing for the first valid time.
    members = other_years(truth_of(years.times, "2014-01-01"), valid)
    assert members.shape == (2, 26)


def test_a_short_record_falls_back_on_its_states():
    valid = np.array([["2020-04-02", "2020-04-03", "2020-04-04"]] * 2, "datetime64[ns]")
    record = truth_of(six_hourly("2019-01-01", 4 * 500), "2020-03-01")
    assert other_years(record, valid) is None
    name, members = climate_of(record, valid)
    assert (name, members.shape) == (CLIMATOLOGY, (2, 3, 50))
    np.testing.assert_array_equal(members[1, 2], past_states(record))
    name, members = climate_of(truth_of(six_hourly("2020-01-01", 40), "2020-01-06"), valid)
    np.testing.assert_array_equal(members[0, 0], np.arange(20))
    assert climate_of(truth_of(six_hourly("2020-01-01", 40), "2019-01-01"), valid)[1].size == 0


def test_enough_years_are_named_as_such(years):
    valid = np.array([["2017-08-05T00"]], "datetime64[ns]")
    name, members = climate_of(years, valid)
    assert name == PROBABILISTIC_CLIMATOLOGY
    np.testing.assert_array_equal(members, other_years(years, valid))


def test_only_times_of_the_training_split_are_chosen(years):
    """This holds for all times of a test year."""
    valid = six_hourly("2017-01-01", 4 * 365)
    members = other_years(years, valid)
    chosen = years.times[members]
    assert (chosen < np.datetime64("2016-07-01")).all()
    day = [moment.astype("datetime64[D]").item().timetuple().tm_yday for moment in chosen[:, ::7].ravel()]
    own = np.repeat([moment.astype("datetime64[D]").item().timetuple().tm_yday for moment in valid], members[:, ::7].shape[1])
    apart = np.abs(np.array(day) - own)
    assert np.minimum(apart, 365 - apart).max() <= 6  # one more than five around the end of a February
