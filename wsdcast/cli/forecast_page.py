"""The command ``wsdcast forecast-page``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsdcast.cli.command import command
from wsdcast.cli.options import ForecastArgument, ThresholdsOption


@command
def forecast_page(
    forecast: ForecastArgument,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="Initial time, UTC.", show_default="the first of the forecast")] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="STATES",
            help="Analyses with the initial time, to show the state then.",
            show_default="initial_states.nc or analysis.zarr next to the store",
        ),
    ] = None,
    thresholds: ThresholdsOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="forecast.html next to the store")] = None,
) -> object:
    """Write a forecast as one page that opens offline: maps of median, spread and probability, and the ensemble at any place."""
    from wsdcast.weather.stages.forecast_page import forecast_page

    return forecast_page(forecast, out, start=start, initial=initial, thresholds=thresholds)
