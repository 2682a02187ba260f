"""Helpers of the tests of the page of a forecast: a random forecast, and its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from report_pages import GRID

from wsdcast.data.grid import Grid
from wsdcast.data.sources.foreign_forecasts import StoredForecast
from wsdcast.data.variables import DEFAULT
from wsdcast.report.coastlines import coastlines
from wsdcast.report.forecast_page import write_forecast_page

START = np.datetime64("2026-11-28T00", "ns")
LEADS = np.array([6, 12, 18, 24, 30]) * np.timedelta64(1, "h").astype("timedelta64[ns]")
FACTS = {"source": "ifs", "model": "mine.wsd", "attribution": "data of somebody, CC-BY-4.0"}
CARD = "# mine\n\n- Trained on: </pre><script>alert(1)</script>\n"


def wind_of(seed: int = 0, leads: int = LEADS.size, grid: Grid = GRID, members: int = 10) -> np.ndarray:
    """Return random wind (member, lead, channel, latitude, longitude), stronger from lead time to lead time."""
    wind = np.random.default_rng(seed).normal(0, 5, (members, leads, 2, *grid.shape))
    return (wind + np.arange(leads)[:, None, None, None]).astype(np.float32)


def speeds_of(wind: np.ndarray) -> np.ndarray:
    """Return the wind speed (member, lead, latitude, longitude)."""
    return np.hypot(wind[:, :, 0], wind[:, :, 1])


def forecast_of(wind: np.ndarray, grid: Grid = GRID, leads: np.ndarray = LEADS) -> StoredForecast:
    """Return wind (member, lead, channel, latitude, longitude) as a forecast with one initial time."""
    coordinates = {"time": [START], "number": np.arange(len(wind)), "prediction_timedelta": leads}
    coordinates |= {"latitude": grid.latitude, "longitude": grid.longitude}
    fields = {name: (tuple(coordinates), wind[None, :, :, channel], {"units": "m s-1"}) for channel, name in enumerate(DEFAULT)}
    return StoredForecast("somebody's", xr.Dataset(fields, coordinates), grid, None)


def written(path: Path, wind: np.ndarray | None = None) -> str:
    """Write the page of a random forecast with its initial analysis, and return it."""
    forecast = forecast_of(wind_of() if wind is None else wind)
    write_forecast_page(path, forecast, initial=wind_of(7)[0, 0], facts=FACTS, card=CARD, lines=coastlines())
    return path.read_text()
