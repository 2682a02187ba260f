"""Forecasts with the names and shapes of other tools: all give the same wind, or one line names the fault."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from wsdcast.data.grid import Grid
from wsdcast.data.sources.axes import with_forecast_axes
from wsdcast.data.sources.foreign_forecasts import open_forecast
from wsdcast.data.store.zarr_store import close_store, create_store, open_store
from wsdcast.data.variables import DEFAULT
from wsdcast.runs.errors import UserError

GRID = Grid.regular("8x4")
HOUR = np.timedelta64(1, "h")
STARTS = np.datetime64("2020-02-01", "ns") + 24 * HOUR * np.arange(3)
LEADS = (HOUR * np.array([6, 12, 24])).astype("timedelta64[ns]")
VALID = (("time", "prediction_timedelta"), STARTS[:, None] + LEADS)


def plain() -> xr.Dataset:
    shape = (STARTS.size, 2, LEADS.size, *GRID.shape)
    fields = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    names = ("time", "number", "prediction_timedelta", "latitude", "longitude")
    coordinates = {"time": STARTS, "number": [0, 1], "prediction_timedelta": LEADS, "latitude": GRID.latitude, "longitude": GRID.longitude}
    return xr.Dataset({name: (names, field) for name, field in zip(DEFAULT, fields, strict=True)}, coordinates)


def numbered(unit: str, size: np.timedelta64, dtype: str = "int64") -> Callable[[xr.Dataset], xr.Dataset]:
    values = (LEADS / size).astype(dtype)
    return lambda store: store.assign_coords(prediction_timedelta=("prediction_timedelta", values, {"units": unit})).rename(
        prediction_timedelta="lead", time="init", number="member"
    )


def by_valid_time(store: xr.Dataset) -> xr.Dataset:
    """One forecast along its valid times, as CF and iris have it."""
    one = store.isel(time=0, drop=True).assign_coords(prediction_timedelta=STARTS[0] + LEADS).rename(prediction_timedelta="time")
    return one.assign_coords(forecast_reference_time=STARTS[0])


def graphcast(store: xr.Dataset) -> xr.Dataset:
    """Lead times are called time, initial times have no coordinate but that of the valid times."""
    valid = (("time", "prediction_timedelta"), store.time.values[:, None] + LEADS)
    return store.assign_coords(datetime=valid).drop_vars("time").rename(time="batch", prediction_timedelta="time", number="sample")


LAYOUTS = {
    "WeatherBench 2": lambda store: store,
    "earth2studio": lambda store: store.rename(prediction_timedelta="lead_time", number="ensemble"),
    "dynamical.org": lambda store: store.assign_coords(valid_time=VALID).rename(
        time="init_time", prediction_timedelta="lead_time", number="ensemble_member"
    ),
    "Climate Data Store": lambda store: store.assign_coords(valid_time=VALID).rename(
        time="forecast_reference_time", prediction_timedelta="forecast_period"
    ),
    "hours": numbered("hours", HOUR),
    "h": numbered("h", HOUR),
    "h and valid times": lambda store: numbered("h", HOUR)(store.assign_coords(valid_time=VALID)).rename(init="time"),
    "hour as floats and valid times": lambda store: numbered("hour", HOUR, "float32")(store.assign_coords(valid_time=VALID)).drop_vars(
        "init"
    ),
    "days": numbered("days", 24 * HOUR, "float32"),
    "minutes": numbered("minutes", np.timedelta64(1, "m"), "int32"),
    "seconds": numbered("s", np.timedelta64(1, "s")),
    "by standard name": lambda store: (
        store.rename(time="S", prediction_timedelta="L", number="M")
        .assign_coords(S=("S", STARTS, {"standard_name": "forecast_reference_time"}), L=("L", LEADS, {"standard_name": "forecast_period"}))
        .assign_coords(M=("M", [1, 2], {"standard_name": "realization"}))
    ),
    "initial and valid times": lambda store: (
        store.drop_vars("prediction_timedelta").assign_coords(valid_time=VALID).rename(time="init_time", prediction_timedelta="step")
    ),
    "GraphCast": graphcast,
    # As other tools than xarray write them: without the attribute that says that they are differences of time.
    "GraphCast in hours": lambda store: graphcast(store).assign_coords(time=("time", LEADS // HOUR, {"units": "hours"})),
    "lead times from the longest": lambda store: store.isel(prediction_timedelta=slice(None, None, -1)),
    "with lead times before 6 h": lambda store: xr.concat(
        [store, store.assign_coords(prediction_timedelta=LEADS - 24 * HOUR)], dim="prediction_timedelta", join="outer"
    ),
    "initial times from the last": lambda store: store.isel(time=slice(None, None, -1)),
    "times that are off by less than a second": lambda store: store.assign_coords(
        time=STARTS + np.timedelta64(300, "ms") * np.array([1, -1, 1]), prediction_timedelta=LEADS - np.timedelta64(300, "ms")
    ),
}

ONE_START = {
    "cfgrib": lambda store: (
        store.isel(time=0).assign_coords(valid_time=("prediction_timedelta", STARTS[0] + LEADS)).rename(prediction_timedelta="step")
    ),
    "CF": by_valid_time,
    "CF with lead times": lambda store: by_valid_time(store).assign_coords(forecast_period=("time", LEADS)),
    "lead and valid times": lambda store: (
        by_valid_time(store).drop_vars("forecast_reference_time").assign_coords(forecast_period=("time", LEADS))
    ),
    "scalar init": lambda store: numbered("hours", HOUR)(store).isel(init=0),
    "GraphCast": lambda store: graphcast(store.isel(time=[0])),
}


def written(store: xr.Dataset, directory: Path) -> str:
    store.to_netcdf(directory / "model.nc")
    return str(directory / "model.nc")


@pytest.mark.parametrize(("layouts", "layout"), [*(("all", name) for name in LAYOUTS), *(("one", name) for name in ONE_START)])
def test_other_layouts_hold_the_same_forecast(layouts, layout, tmp_path):
    starts = STARTS if layouts == "all" else STARTS[:1]
    change = (LAYOUTS if layouts == "all" else ONE_START)[layout]
    forecast = open_forecast(written(change(plain()), tmp_path))
    np.testing.assert_array_equal(forecast.times, starts)
    np.testing.assert_array_equal(forecast.leads, LEADS)
    for row in range(starts.size):
        expected = np.stack([plain()[name].values[row] for name in DEFAULT], axis=-3)
        np.testing.assert_array_equal(forecast.read(row), expected)


LACKED = [(), ("number",), ("time",), ("time", "number"), ("number", "prediction_timedelta"), ("time", "number", "prediction_timedelta")]


@pytest.mark.parametrize("lacked", LACKED, ids=" ".join)
def test_a_forecast_is_not_read_when_it_is_opened(lacked, tmp_path):
    plain().isel(dict.fromkeys(lacked, 0)).drop_vars("number").to_zarr(tmp_path / "model.zarr", consolidated=False)
    for file in (tmp_path / "model.zarr").glob("10m_*/c/**/*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    forecast = open_forecast(str(tmp_path / "model.zarr"))
    with pytest.raises(UserError, match="cannot be read"):
        forecast.read(0)


@pytest.mark.parametrize("lacked", LACKED, ids=" ".join)
def test_a_forecast_that_lacks_dimensions_has_one_of_each(lacked, tmp_path):
    whole = plain().isel({name: [0] for name in lacked})
    forecast = open_forecast(written(whole.drop_vars("number").squeeze(lacked).transpose("longitude", ...), tmp_path))
    np.testing.assert_array_equal(forecast.times, whole.time)
    np.testing.assert_array_equal(forecast.leads, whole.prediction_timedelta)
    for row, leads in itertools.product(range(forecast.times.size), (slice(None), slice(1), slice(-1, None))):
        expected = [whole[name].isel(time=row).values[:, leads] for name in DEFAULT]
        np.testing.assert_array_equal(forecast.read(row, leads), np.stack(expected, axis=-3))


TWO_STARTS, SPAN = ("a", STARTS[:2]), ("b", LEADS)
BOTH = (("a", "b"), STARTS[:2, None] + LEADS)
OTHER = ("a", np.array(["1999-01-01", "1999-01-02"], "datetime64[ns]"))  # a time that is none of the forecast
ALONG = ("b", STARTS[0] + LEADS)

# Coordinates; the initial and the lead times that they mean, None for none. Dimensions are a and b.
MEANINGS = {
    "time alone": ({"time": TWO_STARTS}, STARTS[:2], None),
    "time called valid by its standard name alone": ({"time": (*TWO_STARTS, {"standard_name": "time"})}, STARTS[:2], None),
    "time is the initial time": ({"time": TWO_STARTS, "step": SPAN}, STARTS[:2], LEADS),
    "time is the initial time of an early store": ({"time": (*TWO_STARTS, {"standard_name": "time"}), "step": SPAN}, STARTS[:2], LEADS),
    "time is the initial time of a store": (
        {"time": (*TWO_STARTS, {"standard_name": "forecast_reference_time"}), "step": SPAN},
        STARTS[:2],
        LEADS,
    ),
    "time is the initial time, valid times follow": ({"time": TWO_STARTS, "step": SPAN, "valid_time": BOTH}, STARTS[:2], LEADS),
    "time is the initial time, lead times follow": ({"time": TWO_STARTS, "valid_time": BOTH}, STARTS[:2], LEADS),
    "time is the valid time of one forecast": ({"time": ALONG, "step": SPAN}, STARTS[0], LEADS),
    "time is the valid time": ({"time": BOTH, "init_time": TWO_STARTS}, STARTS[:2], LEADS),
    "time is the valid time by its standard name": (
        {"time": (*BOTH, {"standard_name": "time"}), "init_time": TWO_STARTS},
        STARTS[:2],
        LEADS,
    ),
    "time is the valid time of one start": ({"time": ALONG, "init_time": ((), STARTS[0])}, STARTS[0], LEADS),
    "time is valid, and all three are there": ({"time": BOTH, "init_time": TWO_STARTS, "step": SPAN}, STARTS[:2], LEADS),
    "time is the initial time by its standard name": (
        {"time": (*TWO_STARTS, {"standard_name": "forecast_reference_time"}), "valid_time": BOTH},
        STARTS[:2],
        LEADS,
    ),
    "time is the lead time": ({"time": SPAN, "init_time": TWO_STARTS}, STARTS[:2], LEADS),
    "time is the lead time, initial times follow": ({"time": SPAN, "datetime": BOTH}, STARTS[:2], LEADS),
    "time is none: initial times follow": ({"time": OTHER, "valid_time": BOTH, "step": SPAN}, STARTS[:2], LEADS),
    "time is none: lead times follow": ({"time": OTHER, "init_time": TWO_STARTS, "valid_time": BOTH}, STARTS[:2], LEADS),
    "time is no lead time": ({"time": ("b", LEADS + HOUR), "init_time": TWO_STARTS, "step": SPAN}, STARTS[:2], LEADS),
    "no time": ({"init_time": TWO_STARTS, "step": SPAN}, STARTS[:2], LEADS),
    "nothing is a time": ({"a": [1, 2], "valid_time": ("a", [6, 12])}, None, None),
    "nothing is there": ({}, None, None),
    "lead times alone": ({"step": SPAN}, None, LEADS),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_what_time_means(case):
    coordinates, starts, leads = MEANINGS[case]
    space = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    shape = (2, LEADS.size, *GRID.shape)
    known = with_forecast_axes(xr.DataArray(np.zeros(shape), coordinates | space, ("a", "b", *space), name="u10"))
    for name, expected in (("time", starts), ("prediction_timedelta", leads)):
        if expected is None:
            assert name not in known.coords
        else:
            np.testing.assert_array_equal(known[name].values, expected)


REFUSED = {
    "initial times: 1 occur more than once, the first 2020-02-02T00": lambda store: store.isel(time=[0, 1, 1, 2]),
    "lead times: 1 occur more than once, the first 12 h": lambda store: store.isel(prediction_timedelta=[0, 1, 1, 2]),
    "members: 1 occur more than once, the first 1": lambda store: store.isel(number=[0, 1, 1]),
    "initial times: 1 of 3 are missing": lambda store: store.assign_coords(time=[*STARTS[:2], np.datetime64("NaT", "ns")]),
    "not all whole hours": lambda store: store.assign_coords(prediction_timedelta=LEADS + np.timedelta64(30, "m")),
    "type int64 and no units": lambda store: store.assign_coords(prediction_timedelta=[6, 12, 24]),
    "type int32 and no units": numbered("months", HOUR, "int32"),
    "stored by valid time: initial and lead time": lambda store: store.rename(time="valid_time"),
    "stored by valid time alone": lambda store: store.isel(prediction_timedelta=0, drop=True).rename(time="valid_time"),
    "no coordinate 'time' of initial times": lambda store: store.drop_vars("time"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_unclear_forecasts_are_refused_in_one_line(message, tmp_path):
    with pytest.raises(UserError) as refused:
        open_forecast(written(REFUSED[message](plain()), tmp_path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_forecast_in_a_zip_archive_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(written(plain(), tmp_path), "model.nc")
    with pytest.raises(UserError, match=r"model\.zip: a zip archive in which no Zarr store is found; unpack it and name one of its files$"):
        open_forecast(str(tmp_path / "model.zip"))


def test_the_time_of_a_store_says_whether_it_is_the_initial_time(tmp_path):
    for name, further in (("time", {}), ("forecast_reference_time", {"prediction_timedelta": LEADS})):
        create_store(tmp_path / name, {"time": STARTS} | further, GRID, DEFAULT, (1,) * (1 + len(further)))
        close_store(tmp_path / name, {})
        with open_store(tmp_path / name) as store:
            assert store["time"].attrs == {"standard_name": name}
