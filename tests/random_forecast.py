"""A forecast of random wind in a store of another program, and what its products are computed from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

import wsdcast
from wsdcast.data.grid import Grid
from wsdcast.data.store.analysis import open_analysis
from wsdcast.data.variables import DEFAULT

GRID = Grid.regular("16x9")
HOUR = np.timedelta64(1, "h")
STARTS = np.datetime64("2020-02-01", "ns") + 24 * HOUR * np.arange(2)
LEADS = (HOUR * np.arange(6, 66, 6)).astype("timedelta64[ns]")
AXES = ("time", "number", "prediction_timedelta", "latitude", "longitude")


def made(grid: Grid = GRID, leads: np.ndarray = LEADS, members: int = 5) -> xr.Dataset:
    """Random wind. One member is stopped at 30 h, and one starts without values for the second initial time."""
    values = np.random.default_rng(0).normal(0, 9, (2, STARTS.size, members, leads.size, *grid.shape)).astype(np.float32)
    values[:, 0, 1, 4:], values[:, 1, 3] = np.nan, np.nan
    coordinates = dict(zip(AXES, (STARTS, np.arange(members), leads, grid.latitude, grid.longitude), strict=True))
    return xr.Dataset({name: (AXES, field) for name, field in zip(DEFAULT, values, strict=True)}, coordinates)


def their_store(directory: Path) -> str:
    """A store of another program: other names, latitudes from the south, longitudes from -180."""
    store = made().assign_coords(longitude=(GRID.longitude + 180) % 360 - 180).sortby("longitude").sortby("latitude")
    path = directory / "theirs.zarr"
    store.rename(time="init_time", prediction_timedelta="lead_time", number="realization").to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


def prepared_with_forecast(directory: Path) -> Path:
    """A prepared record on 16x8, and a forecast on its grid."""
    (directory / "tiny.yaml").write_text("name: tiny\ndata: {grid: 16x8, days: 20}\n")
    wsdcast.prepare(directory / "tiny.yaml", directory / "run")
    made(Grid.regular("16x8")).to_zarr(directory / "f.zarr", zarr_format=2)
    return directory


def speed_of(store: xr.Dataset) -> xr.DataArray:
    return np.hypot(store[DEFAULT[0]], store[DEFAULT[1]])


def read_wind(dataset: xr.Dataset) -> np.ndarray:
    """Both components, (..., channel, latitude, longitude), of a dataset whose last dimensions are latitude and longitude."""
    return np.stack([dataset[name].values for name in DEFAULT], axis=-3)


def share_above(speed: xr.DataArray, threshold: object) -> xr.DataArray:
    return (speed > threshold).where(speed.notnull()).mean("number")


def climate_thresholds(prepared: Path, quantiles: list[float]) -> np.ndarray:
    record = open_analysis(prepared / "run/analysis.zarr")
    wind = record.states[:][record.times < record.validation_from]
    return np.quantile(np.hypot(wind[:, 0], wind[:, 1]), quantiles, axis=0)


def written(path: Path, text: str = "Name,country,Latitude, Longitude\nNome,US,64.5,-165.4\n Fiji ,FJ,-17.7,179.99\nPole,,-90,0\n") -> Path:
    path.write_text(text)
    return path
