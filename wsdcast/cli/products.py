"""The commands that make something of a stored forecast: ``wsdcast forecast-page``, ``products`` and ``convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsdcast.cli.command import bounds, command, in_hours
from wsdcast.cli.options import ForecastArgument, RegionOption, ReplaceOption, ThresholdsOption, listed


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


@command
def products(
    forecast: ForecastArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File or store to write.", show_default="products.nc or products.zarr in the current directory; with --at products.csv"
        ),
    ] = None,
    to: Annotated[Literal["netcdf", "zarr"] | None, typer.Option(help="Format of fields.", show_default="netcdf")] = None,
    thresholds: ThresholdsOption = None,
    quantiles: Annotated[Any, listed("Quantiles of the members.", "0.1,0.25,0.5,0.75,0.9")] = None,
    window: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Also the maximum over windows of this length, as 3h or 24h.", show_default=False)
    ] = None,
    climatology: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Thresholds from quantiles of RUN/analysis.zarr, or of analyses that prepare reads."),
    ] = None,
    climate_quantiles: Annotated[Any, listed("These quantiles.", "0.95,0.99")] = None,
    at: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Places (name, latitude, longitude): write a table (.csv, .parquet) and plumes, no fields."),
    ] = None,
    region: RegionOption = None,
    overwrite: ReplaceOption = False,
) -> object:
    """Mean, spread, quantiles, and probabilities of strong wind of a forecast, on its grid or at places."""
    from wsdcast.output.products import products

    return products(
        forecast,
        out,
        to=to,
        thresholds=thresholds,
        quantiles=quantiles,
        window_hours=None if window is None else in_hours(window, "--window"),
        climatology=climatology,
        climate_quantiles=climate_quantiles,
        at=at,
        region=None if region is None else bounds(region),
        overwrite=overwrite,
    )


@command
def convert(
    forecast: ForecastArgument,
    to: Annotated[Literal["netcdf", "zarr", "grib2"], typer.Option(help="Format to write.")],
    out: Annotated[Path, typer.Option(help="File or store to write; of NetCDF one for each initial time.")],
    region: RegionOption = None,
    overwrite: ReplaceOption = False,
) -> object:
    """Write the members of a forecast as NetCDF, Zarr or GRIB 2, all of them or those in a region."""
    from wsdcast.output.convert import convert

    return convert(forecast, to, out, region=None if region is None else bounds(region), overwrite=overwrite)
