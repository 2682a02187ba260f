"""Tests of climatologies of a record of several years against a calendar that is gone through day by day."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import six_hourly

from wsdcast.data.grid import Grid
from wsdcast.verification import memory, scoring
from wsdcast.verification.baselines import CLIMATOLOGICAL_MEAN, CLIMATOLOGY, PROBABILISTIC_CLIMATOLOGY, climate_of, other_years, past_states
from wsdcast.verification.scoring import Opened, Sources, statistics_by_start, statistics_of
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
    monkeypatch.setattr(memory, "opened", lambda _: Opened({}, years))
    sources, leads = Sources((), "", years.times[0], ""), np.arange(6, 30, 6) * np.timedelta64(1, "h")
    times = np.array(["2016-08-01", "2030-01-01"], "datetime64[ns]")
    assert memory.scoring(sources, times[::-1], leads) == memory.scoring(sources, times[:1], leads)


@pytest.mark.parametrize("until", ["2016-07-01", "2011-01-11"])
def test_the_climatology_is_scored_once_for_each_valid_time(years, until, monkeypatch):
    """Forecasts of five initial times share valid times. Each has the scores that a computation of that time alone gives."""
    record, random = truth_of(years.times, until), np.random.default_rng(0)
    fields = random.normal(size=(record.times.size, 2, *GRID.shape)).astype(np.float32)
    fields[record.past[::7]] = np.nan
    record = replace(record, read=lambda positions: fields[positions])
    forecast = SimpleNamespace(read=lambda row, chunk: fields[-20:].reshape(2, 10, *fields.shape[1:])[:, chunk])
    monkeypatch.setattr(scoring, "opened", lambda _: Opened({"model": forecast}, record))
    counts: dict[int, int] = {}

    def counted(ensemble, *arguments):
        counts[len(ensemble)] = counts.get(len(ensemble), 0) + ensemble.shape[1]
        return statistics_of(ensemble, *arguments)

    monkeypatch.setattr(scoring, "statistics_of", counted)
    leads = np.arange(6, 66, 6) * np.timedelta64(1, "h")
    times = six_hourly("2017-08-01", 5)
    result = statistics_by_start(Sources((("model", ""),), until, record.times[0], ""), times, leads, {}, None, None)
    climate, states = climate_of(record, times[:, None] + leads)
    assert counts[states.shape[-1]] == 14  # distinct valid times
    gaps = np.isin(np.unique(states), record.past[::7])
    assert result.attrs["left_out"] == f"{gaps.sum()} of {gaps.size} past states, which have gaps"
    for start, time in enumerate(times):
        for lead in range(leads.size):
            members = fields[states[start, lead]]
            mean = members[np.isfinite(members).all(axis=(1, 2, 3))].mean(axis=0)[None]
            true = record.at(time + leads[lead : lead + 1])
            for name, ensemble in ((climate, members), (CLIMATOLOGICAL_MEAN, mean)):
                alone = statistics_of(ensemble[:, None], true, GRID).isel(prediction_timedelta=0)
                here = result.sel(forecast=name).isel(time=start, prediction_timedelta=lead, drop=True)
                for field in alone.drop_dims("degree"):  # to the last bit
                    np.testing.assert_array_equal(here[field].values[..., : alone[field].shape[-1]], alone[field], field)
                np.testing.assert_allclose(here["kinetic_energy"], alone["kinetic_energy"], rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize(("days", "enough"), [(1, False), (2, False), (5, True)])
def test_a_sparse_hour_leaves_no_climatology_of_few_states(years, days, enough):
    """The record has 18 UTC on so many days of each of two years. All valid times had the climatology of as few states as there."""
    clock = (years.times - years.times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    since = np.concatenate([years.times - np.datetime64(f"{year}-08-05T18", "ns") for year in (2012, 2013)]).reshape(2, -1)
    near = ((since >= np.timedelta64(0)) & (since < days * np.timedelta64(1, "D"))).any(axis=0)
    record = truth_of(years.times[(clock != 18) | near], "2016-07-01")
    valid = np.array(["2017-08-05T00", "2017-08-05T18"], "datetime64[ns]")
    members = other_years(record, valid)
    assert (members is not None) == enough
    if enough:
        assert members.shape == (2, 10)
    assert other_years(record, valid[:1]).shape == (1, 50)


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
