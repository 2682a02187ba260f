"""Products whose thresholds are quantiles of a climatology."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from random_forecast import (
    GRID,
    HOUR,
    LEADS,
    STARTS,
    climate_thresholds,
    made,
    prepared_with_forecast,
    share_above,
    speed_of,
    their_store,
)
from typer.testing import CliRunner

import wsdcast
from wsdcast.cli import app
from wsdcast.data.grid import Grid
from wsdcast.data.regrid import regrid
from wsdcast.data.store.forecasts import QUANTILES
from wsdcast.output import climate, tables
from wsdcast.runs.errors import UserError
from wsdcast.verification.truth import Truth


@pytest.fixture(scope="module")
def forecast(tmp_path_factory) -> str:
    return their_store(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepared_with_forecast(tmp_path_factory.mktemp("prepared"))


def test_thresholds_are_quantiles_of_the_training_split(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(climate, "BYTES", 20000)  # rows are read in parts
    store = str(prepared / "run/analysis.zarr")
    wsdcast.products(
        str(prepared / "f.zarr"), tmp_path / "p.zarr", to="zarr", climatology=store, climate_quantiles=[0.5, 0.9], window_hours=12
    )
    expected = climate_thresholds(prepared, [0.5, 0.9])
    speed = speed_of(made(Grid.regular("16x8")))
    levels = xr.DataArray(expected, {"climate_quantile": [0.5, 0.9]}, ["climate_quantile", "latitude", "longitude"])
    with xr.open_zarr(tmp_path / "p.zarr", chunks=None) as products:
        np.testing.assert_allclose(products["climate_threshold"], expected, rtol=1e-6)
        assert products["climate_threshold"].attrs["comment"] == f"64 states of {store}"
        for name, members in (("speed", speed), ("window", speed.rolling(prediction_timedelta=2).max())):
            found = products[f"{name}_climate_probability"]
            np.testing.assert_allclose(found, share_above(members, levels).transpose(*found.dims), rtol=1e-6)


def analyses(path: Path, steps: np.ndarray) -> np.ndarray:
    """Write wind, some steps of 6 h before or after the first initial time, and return its values."""
    times = STARTS[0] + 6 * HOUR * steps
    values = np.random.default_rng(5).normal(0, 9, (2, times.size, *GRID.shape)).astype(np.float32)
    coordinates = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
    source = xr.Dataset({name: (tuple(coordinates), field, {"units": "m/s"}) for name, field in zip(("u10", "v10"), values, strict=True)})
    source.assign_coords(coordinates).to_netcdf(path)
    return values


def test_a_climatology_that_begins_with_the_forecast_is_refused(forecast, tmp_path):
    analyses(tmp_path / "analyses.nc", np.arange(10))
    with pytest.raises(UserError, match=r"analyses.nc: has no state before the first initial time, 2020-02-01T00$"):
        wsdcast.products(forecast, tmp_path / "p.nc", climatology=tmp_path / "analyses.nc")


def test_a_climatology_of_other_analyses_ends_before_the_forecast(forecast, tmp_path):
    values = analyses(tmp_path / "analyses.nc", np.arange(-20, 10))
    summary = wsdcast.products(
        forecast, tmp_path / "p.nc", climatology=tmp_path / "analyses.nc", climate_quantiles=[0.95], region=(0, -30, 50, 30)
    )
    assert summary.facts["climatology"].startswith("20 states of")
    expected = np.quantile(np.hypot(*values[:, :20]), [0.95], axis=0)[:, 3:6, :3]
    with xr.open_dataset(tmp_path / "p-2020-02-01T00.nc", decode_timedelta=False) as products:
        np.testing.assert_allclose(products["climate_threshold"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("region", "shape"), [(None, (5, 8)), ((-60, -50, 50, 30), (2, 3)), ((-60, -1, 50, 1), (1, 3)), ((-1, -1, 1, 1), (1, 1))]
)
@pytest.mark.parametrize("latitude", [(90, 45, 0, -45, -90), (80, 40, 0, -45, -80)])
def test_a_climatology_on_a_finer_grid_is_regridded(region, shape, latitude, tmp_path):
    """Also one that has points at those of the forecast: these are not means over its cells."""
    values = analyses(tmp_path / "analyses.nc", np.arange(-20, 0))
    coarse = Grid(np.float64(latitude), Grid.regular("8x5").longitude)
    made(coarse).to_zarr(tmp_path / "f.zarr", zarr_format=2)
    arguments = {"climatology": tmp_path / "analyses.nc", "climate_quantiles": [0.9], "region": region}
    wsdcast.products(tmp_path / "f.zarr", tmp_path / "p.zarr", to="zarr", **arguments)
    expected = np.quantile(np.hypot(*regrid(values, GRID, coarse)), [0.9], axis=0)
    with xr.open_zarr(tmp_path / "p.zarr", chunks=None) as products:
        found = products["climate_threshold"]
        rows, columns = coarse.nearest(found.latitude.values, found.longitude.values)
        assert (rows.size, columns.size) == shape
        np.testing.assert_allclose(found, expected[:, rows[:, None], columns], rtol=1e-5)


def test_states_without_values_do_not_count_and_gaps_in_others_leave_a_point_out(monkeypatch):
    """In parts of four states and of one row."""
    monkeypatch.setattr(climate, "STATES_AT_ONCE", 4)
    monkeypatch.setattr(climate, "BYTES", 1)
    grid, past = Grid.regular("8x4"), np.array([0, 2, 3, 5, 6, 9])
    wind = np.random.default_rng(0).normal(0, 9, (11, 2, *grid.shape)).astype(np.float32)
    wind[3], wind[5, :, 1, 7] = np.nan, np.nan
    states = Truth(STARTS[0] + HOUR * np.arange(11), grid, lambda positions: wind[positions], past)
    expected = np.quantile(np.hypot(wind[:, 0], wind[:, 1])[[0, 2, 5, 6, 9]], [0.5, 0.9], axis=0)
    assert np.isnan(expected).sum() == 2
    np.testing.assert_allclose(climate.quantiles_over_time(states, (0.5, 0.9), lambda fields: fields), expected, rtol=1e-6)
    part = SimpleNamespace(latitude=grid.latitude[1:], longitude=np.array([-90, -45, 0]), name="f")
    part.points_of_store = part.latitude, part.longitude
    np.testing.assert_allclose(climate.thresholds_on_grid(states, (0.5, 0.9), part), expected[:, 1:, [6, 7, 0]], rtol=1e-6)
    with pytest.raises(UserError, match="--climatology: has no wind at the points of the forecasts"):
        climate.quantiles_over_time(states, (0.5,), lambda fields: np.full_like(fields, np.nan))


def test_the_page_names_every_variable_and_its_units(prepared, tmp_path):
    page = (Path(__file__).parents[1] / "docs/products.md").read_text()
    named = {}
    for names, dimension, units in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\w*) \| ([^|]+) \|", page, re.MULTILINE):
        named |= dict.fromkeys(re.findall(r"\w+", names), (dimension, units.strip()))
    store = str(prepared / "run/analysis.zarr")
    wsdcast.products(str(prepared / "f.zarr"), tmp_path / "p.zarr", to="zarr", climatology=store, window_hours=12)
    with xr.open_zarr(tmp_path / "p.zarr", chunks=None) as products:
        usual = {"time", "prediction_timedelta", "latitude", "longitude"}
        assert named == {name: ("".join({*array.dims} - usual), array.attrs["units"]) for name, array in products.data_vars.items()}
    columns = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \|$", page, re.MULTILINE)))
    assert columns == list(tables.COLUMNS)


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made().to_zarr("runs/planet/forecast.zarr", zarr_format=2)
    page = (Path(__file__).parents[1] / "docs/products.md").read_text()
    Path("places.csv").write_text(re.findall(r"```\n(name,.*?)```", page, re.DOTALL)[0])
    lines = re.findall(r"^wsdcast (.*)$", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        result = CliRunner().invoke(app, line.split())
        assert (result.exit_code, result.stderr) == (0, ""), line
    times = ("2020-02-01T00", "2020-02-02T00")
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"strong-wind-{time}.nc" for time in times),
        "forecast.grib2",
        "places-forecast-Berlin.png",
        "places-forecast-Nome.png",
        "places-forecast.csv",
        "places.csv",
        "runs",
    }
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    table = pd.read_csv("places-forecast.csv")
    table[table.initial_time == table.initial_time[0]].to_csv("places-forecast.csv")
    exec(code.replace("chosen.pivot", "pivoted = chosen.pivot"), found := {"pandas": pd})
    assert found["pivoted"].columns.tolist() == list(QUANTILES)
    assert len(found["pivoted"]) == 2 * LEADS.size
