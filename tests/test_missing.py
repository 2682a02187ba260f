"""Tests that missing values in the truth or a baseline remove only the scores that need them, and that these are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_any_forecast import GRID, LEADS, NAMES, STARTS, forecast_dataset, opened_scores, refuses, truth_dataset, weather, write

import wsdcast
from wsdcast.report.page import write_report
from wsdcast.runs.summary import Summary
from wsdcast.weather.stages import score_output

LAND = xr.DataArray(np.add.outer(np.arange(GRID.shape[0]), np.arange(GRID.shape[1])) % 3 > 0, dims=("latitude", "longitude"))
PAST = 48
"""Number of states of the truth before the first initial time."""


@pytest.fixture(autouse=True)
def without_the_page(monkeypatch):
    def facts_alone(path, scores, grid, fields, title, facts, *arguments, **more):
        path.write_text("; ".join(facts.values()))

    monkeypatch.setattr(score_output, "write_report", facts_alone)


def scored(true: xr.Dataset, directory: Path, store: xr.Dataset | None = None) -> tuple[Summary, xr.Dataset]:
    source = write(true, directory / "truth.zarr")
    store = forecast_dataset() if store is None else store
    summary = wsdcast.score_forecast(write(store, directory / "model.zarr"), source, directory / "run")
    return summary, opened_scores(directory / "run")


def area_mean(field: np.ndarray) -> float:
    return float((field * GRID.area_weights[:, None]).mean())


def climatology_by_hand(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return fair CRPS with states as members, and the absolute error of their mean: for v at the first lead time, by initial time."""
    count, crps, error = len(states), [], []
    for start in STARTS:
        true = weather(start + LEADS[:1])[0, 1]
        pairs = np.abs(states[:, None] - states).sum(axis=(0, 1)) / (2 * count * (count - 1))
        crps.append(area_mean(np.abs(states - true).mean(axis=0) - pairs))
        error.append(area_mean(np.abs(states.mean(axis=0) - true)))
    return np.array(crps), np.array(error)


def test_past_states_with_gaps_are_left_out_alone(tmp_path):
    true, lost = truth_dataset(), [0, 1, 2, 30]
    for number in lost:
        true[NAMES[0]][number, 3, 4] = np.nan
    summary, scores = scored(true, tmp_path)
    assert "dropped" not in summary.facts
    assert (scores["pairs"] == STARTS.size).all()
    assert summary.facts["left out"] == f"{len(lost)} of {PAST} past states, which have gaps"
    assert summary.facts["climatology"].startswith(f"{PAST} past states as members")
    states = np.delete(weather(truth_dataset()["time"].values[:PAST])[:, 1], lost, axis=0).astype(float)
    crps, error = climatology_by_hand(states)
    by_forecast = scores["crps_fair_by_start"].sel(region="globe", variable=NAMES[1]).isel(prediction_timedelta=0)
    np.testing.assert_allclose(by_forecast.sel(forecast="climatology"), crps, rtol=1e-5)
    np.testing.assert_allclose(by_forecast.sel(forecast="climatological mean"), error, rtol=1e-5)


def test_a_baseline_without_values_is_left_out(tmp_path, monkeypatch):
    """If the truth has no states at the initial times, there is no persistence, and all other scores are unchanged. The page says it."""
    with monkeypatch.context() as patched:
        patched.setattr(score_output, "write_report", write_report)
        summary, scores = scored(truth_dataset().drop_sel(time=STARTS), tmp_path / "without")
    assert f"<dt>left out</dt><dd>{summary.facts['left out']}</dd>" in (tmp_path / "without/run/report.html").read_text()
    complete, whole = scored(truth_dataset(), tmp_path / "with")
    assert "missing members" not in complete.facts
    assert list(scores["forecast"].values) == ["model", "climatology", "climatological mean"]
    assert summary.facts["climatology"].startswith(f"{PAST} past states as members")
    assert summary.facts["dropped"].startswith("5 of 18")  # a day after an initial time comes the next one
    assert summary.facts["left out"] == scores.attrs["left_out"] == "persistence, missing at 13 of 13 initial and lead times"
    ours, theirs = (one["crps_fair_by_start"].sel(forecast=["model", "climatological mean"]) for one in (scores, whole))
    np.testing.assert_array_equal(ours[:, :, :2], theirs[:, :, :2])
    np.testing.assert_array_equal(ours[:, 5], theirs[:, 5])


def test_pairs_that_a_baseline_lacks_are_left_out_for_all(tmp_path):
    summary, scores = scored(truth_dataset().drop_sel(time=STARTS[2]), tmp_path)
    # One of them is for want of truth: the start is 24 h after the one before.
    dropped = "4 of 18 initial and lead times: no truth, fewer than two members left, or no baseline"
    assert summary.facts["dropped"] == dropped
    (report,) = (path for path in summary.written if path.endswith("report.html"))
    assert dropped in Path(report).read_text()
    assert summary.facts["left out"] == "3 initial and lead times for want of persistence"
    assert scores["pairs"].values.tolist() == [5, 5, 4]


def test_without_any_past_there_is_no_climatology(tmp_path):
    true = truth_dataset()
    for name in NAMES:
        true[name][:PAST, 3, 4] = np.nan
    summary, scores = scored(true, tmp_path)
    assert list(scores["forecast"].values) == ["model", "persistence"]
    words = "climatology, missing at 18 of 18 initial and lead times; climatological mean, missing at 18 of 18 initial and lead times"
    assert summary.facts["left out"] == f"{words}; {PAST} of {PAST} past states, which have gaps"


def test_missing_members_are_counted_and_leave_no_rank_histogram(tmp_path):
    """One member lacks a value at one pair, another at two; at a fourth pair one member alone is left, which has no scores."""
    store = forecast_dataset()
    for pair, members in (((0, 0), [1]), ((2, 1), [3]), ((2, 2), [3]), ((4, 0), [0, 1, 2])):
        for name in NAMES:
            store[name][pair[0], members, pair[1], 3, 4] = np.nan
    summary, scores = scored(truth_dataset(), tmp_path, store)
    assert summary.facts["dropped"].startswith("1 of 18")
    assert summary.facts["missing members"] == "at 3 of 17 initial and lead times, which have no rank histogram"
    ranks = scores["rank_histogram_by_start"].sel(forecast="model", variable=NAMES[0], region="globe")
    without = ranks.isnull().all("rank").values
    assert sorted(map(tuple, np.argwhere(without).tolist())) == [(0, 0), (2, 1), (2, 2), (4, 0)]
    np.testing.assert_allclose(ranks.mean("time"), scores["rank_histogram"].sel(forecast="model", variable=NAMES[0], region="globe"))


@pytest.mark.parametrize("change", [lambda store: store.where(LAND), lambda store: store.isel(number=[0])])
def test_masked_and_deterministic_forecasts_miss_no_member(tmp_path, change):
    summary, _ = scored(truth_dataset(), tmp_path, change(forecast_dataset()))
    assert "missing members" not in summary.facts


def test_a_forecast_or_truth_that_leaves_no_pairs_is_named(tmp_path):
    """First every member has a gap at another point, then the truth lacks all valid times."""
    patchy = forecast_dataset()
    for number in range(4):
        patchy[NAMES[0]][:, number, :, 3, number] = np.nan
    source = write(truth_dataset(), tmp_path / "truth.zarr")
    line = refuses(write(patchy, tmp_path / "model.zarr"), "--truth", source, "--run", tmp_path / "run")
    assert "model has no initial time and lead time with two members" in line
    early = write(truth_dataset().isel(time=slice(0, PAST)), tmp_path / "early.zarr")
    line = refuses(write(forecast_dataset(), tmp_path / "whole.zarr"), "--truth", early, "--run", tmp_path / "run")
    first, last = (np.datetime_as_string(time, "h") for time in (STARTS[0] + LEADS[0], STARTS[-1] + LEADS[-1]))
    assert f"early.zarr has no truth for any initial time and lead time of the forecast, whose valid times are {first} to {last}" in line
