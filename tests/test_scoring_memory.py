"""Tests of the estimated peak memory of scoring against the measured one, and that scoring refuses to start if it cannot fit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_any_forecast import forecast_dataset, refuses, truth_dataset, write

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.variables import DEFAULT
from wsdcast.report.shown_fields import choose, read_shown
from wsdcast.report.subjects import WIND
from wsdcast.runs import resources
from wsdcast.verification import kinetic_energy, memory
from wsdcast.verification.baselines import climate_of
from wsdcast.verification.intervals import scores_of
from wsdcast.verification.scoring import LEADS_AT_ONCE, Sources, _read, fields_of, joined, opened, score_climate, score_start, statistics_of

pytestmark = pytest.mark.slow

HOUR = np.timedelta64(1, "h")
LARGEST_RATIO = 2.5
"""Largest allowed ratio of an estimate to the measured memory."""
PYTHON_BYTES = 20e6
"""Bytes that Python itself takes. Apart from these an estimate is never below the measured memory."""


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak of the bytes that Python and numpy have allocated in this block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def stores(directory: Path, grid: Grid, members: int, leads: int, dtype: str, chunks: tuple[int, ...], past: int) -> Sources:
    """Write a forecast from three initial times and its truth. Both are noise, which does not compress."""
    random = np.random.default_rng(0)
    begin = np.datetime64("2020-02-01", "ns")
    space = {"latitude": grid.latitude, "longitude": grid.longitude}
    shape = (3, members, leads, *grid.shape)
    names = ("time", "member", "lead_time", "latitude", "longitude")
    axes = {"time": begin + 24 * HOUR * np.arange(3), "member": np.arange(members), "lead_time": 6 * HOUR * np.arange(1, leads + 1)}
    forecast = xr.Dataset({name: (names, random.normal(0, 8, shape).astype(dtype)) for name in DEFAULT}, axes | space)
    forecast.to_zarr(directory / "model.zarr", zarr_format=2, encoding={name: {"chunks": chunks} for name in DEFAULT})
    times = begin + 6 * HOUR * np.arange(-past, 12 + leads)
    shape = (times.size, *grid.shape)
    true = {name: (("time", "latitude", "longitude"), random.normal(0, 8, shape).astype("f4"), {"units": "m/s"}) for name in DEFAULT}
    encoding = {name: {"chunks": (1, *grid.shape)} for name in DEFAULT}
    xr.Dataset(true, {"time": times} | space).to_zarr(directory / "truth.zarr", zarr_format=2, encoding=encoding)
    return Sources((("model", str(directory / "model.zarr")),), str(directory / "truth.zarr"), begin, str(directory / "scratch"))


# Members, lead times, type, chunks (initial time, member, lead time, latitude, longitude), number of past states.
STORED = {
    "ours": (20, 8, "f4", (1, 20, 8, 121, 240), 60),
    "few members and a climatology": (2, 8, "f4", (1, 2, 8, 121, 240), 60),
    "no past": (10, 12, "f4", (1, 10, 12, 121, 240), 0),
    "double": (10, 4, "f8", (1, 10, 4, 121, 240), 0),
    "all starts in a chunk": (12, 10, "f4", (3, 12, 10, 121, 240), 0),
    "many chunks of many starts": (12, 10, "f4", (3, 1, 1, 121, 240), 0),
}


@pytest.mark.parametrize("name", STORED)
def test_scoring_an_initial_time_and_the_climatology_takes_the_estimated_memory(name, tmp_path):
    members, leads, dtype, chunks, past = STORED[name]
    sources = stores(tmp_path, Grid.regular("240x121"), members, leads, dtype, chunks, past)
    forecast, truth = opened(sources).forecasts["model"], opened(sources).truth
    valid = (forecast.times[0] + forecast.leads)[:LEADS_AT_ONCE]
    climate, states = climate_of(truth, valid)
    score_start(sources, 2, forecast.times[2], forecast.leads[:1])  # compiles
    kinetic_energy._inverses.cache_clear()
    _read.cache_clear()
    with peak() as taken:
        if past:
            score_climate(sources, climate, valid, states)
        score_start(sources, 0, forecast.times[0], forecast.leads)
        measured = taken()
    estimate = memory.scoring(sources, forecast.times, forecast.leads)
    assert measured - PYTHON_BYTES <= estimate <= LARGEST_RATIO * measured, (measured / 1e6, estimate / 1e6)
    with peak() as taken:
        forecast.read(1)
        measured = taken()
    assert measured - PYTHON_BYTES <= memory.reading(forecast, leads) <= LARGEST_RATIO * measured, (
        measured / 1e6,
        memory.reading(forecast, leads) / 1e6,
    )
    fields: Any = fields_of(sources)
    with peak() as taken:
        read_shown(fields, choose(3, leads, truth.grid, 1), (WIND,), DEFAULT)
        measured = taken()
    assert measured - PYTHON_BYTES <= memory.reporting(forecast) <= LARGEST_RATIO * measured, (
        measured / 1e6,
        memory.reporting(forecast) / 1e6,
    )


@pytest.mark.parametrize(("grid", "members", "starts", "leads"), [("64x32", 10, 40, 8), ("64x32", 5, 100, 2), ("120x61", 5, 60, 4)])
def test_summing_takes_the_estimated_memory(grid, members, starts, leads):
    resolved_grid, random = Grid.regular(grid), np.random.default_rng(0)
    ensemble, truth = random.normal(0, 8, (members, 1, 2, *resolved_grid.shape)), random.normal(0, 8, (1, 2, *resolved_grid.shape))
    statistics_of_one = xr.concat([statistics_of(ensemble, truth, resolved_grid)] * leads, dim="prediction_timedelta")
    times = np.datetime64("2020-01-01", "ns") + 24 * HOUR * np.arange(starts)
    steps = (6 * HOUR * np.arange(1, leads + 1)).astype("timedelta64[ns]")
    with peak() as taken:
        by_forecast = {
            name: xr.concat([statistics_of_one.copy(deep=True) for _ in range(starts)], dim="time", join="outer") for name in "abcd"
        }
        scores_of(joined(by_forecast, times, steps))
        measured = taken()
    estimate = memory.summing(4, members, starts, leads, resolved_grid)
    assert measured - PYTHON_BYTES <= estimate <= LARGEST_RATIO * measured, (measured / 1e6, estimate / 1e6)


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (100_000, "scoring 4 members at 24x13, 3 lead times at a time needs"),
        (20_000_000, "summing up the statistics of 6 initial times and 3 lead times needs"),
    ],
)
def test_scores_that_do_not_fit_are_refused_before_any_work(free, words, tmp_path, monkeypatch):
    truth, forecast = write(truth_dataset(), tmp_path / "truth.zarr"), write(forecast_dataset(), tmp_path / "model.zarr")
    monkeypatch.setattr(resources, "free_memory", lambda: free)
    line = refuses(forecast, "--truth", truth, "--run", tmp_path / "run")
    assert words in line
    assert "B of memory, but only" in line
    assert not (tmp_path / "run").exists()


def test_estimates_include_huge_chunks_and_a_long_report(tmp_path):
    """The estimates for chunks that hold all initial times, and for lead times that are scored a few at a time but drawn together."""
    forecast = forecast_dataset()
    for name, chunks in (("small", (1, 4, 3, 13, 24)), ("huge", (6, 4, 3, 13, 24))):
        forecast.to_zarr(tmp_path / name, zarr_format=2, encoding={field: {"chunks": chunks} for field in forecast})
    small, huge = (open_forecast(str(tmp_path / name)) for name in ("small", "huge"))
    chunk = 6 * 4 * 3 * 13 * 24 * 4
    assert memory.reading(huge, 3) > 4 * chunk > memory.reading(small, 3)  # compressed and decompressed, of two channels
    many = xr.concat(
        [forecast.assign_coords(prediction_timedelta=forecast.prediction_timedelta + 24 * n * HOUR) for n in range(20)],
        "prediction_timedelta",
    )
    many.to_zarr(tmp_path / "many", zarr_format=2, encoding={field: {"chunks": (1, 4, 3, 13, 24)} for field in forecast})
    long = open_forecast(str(tmp_path / "many"))
    assert memory.reporting(long) > 12 * memory.reporting(small)
    assert memory.reading(long, 8) < memory.reading(long, 60) / 4
