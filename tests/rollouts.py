"""Helpers of the tests: the forecast and the networks of a run directory."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from wsdcast.data.store.analysis import Analysis, open_analysis
from wsdcast.runs.names import FORECAST
from wsdcast.weather.recipe import Recipe, load_recipe
from wsdcast.weather.trained import Trained, trained


def forecast_of(run: Path, artefact: str = FORECAST) -> xr.Dataset:
    return xr.open_zarr(run / artefact, decode_timedelta=True).load()


def loaded(run: Path) -> tuple[Recipe, Analysis, Trained]:
    """Return the recipe that lies next to the run directory, the prepared record and the trained networks."""
    recipe, record = load_recipe(run.parent / "tiny.yaml"), open_analysis(run / "analysis.zarr")
    return recipe, record, trained(recipe, run, record)
