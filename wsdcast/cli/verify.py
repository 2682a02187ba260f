"""The command ``wsdcast score``."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

from wsdcast.cli.command import command, with_overrides
from wsdcast.cli.options import ForecastsRecipeOption, OverrideOption, OverwriteOption, RunOption, SchedulerOption
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import ANALYSIS


@command
def score(
    forecasts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FORECAST | RUN RUN]",
            help="A forecast of any origin (path or URL of a Zarr store) to score against --truth; or two run directories (or scores.nc) "
            "to compare.",
            show_default="the forecast of the run",
        ),
    ] = None,
    recipe: ForecastsRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Analyses on the grid of FORECAST or finer, from any source that prepare reads."),
    ] = None,
    stations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV or Parquet of 10 m wind (time, latitude, longitude, units, speed or u and v), as truth."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of this machine to use.", show_default="only this process")] = None,
    scheduler: SchedulerOption = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Score ensembles and baselines: scores.nc, scores.csv, report.html. With two names, compare their scores."""
    from wsdcast.weather.stages.score import score, score_pair
    from wsdcast.weather.stages.score_forecast import score_forecast

    if stations is not None:
        if len(forecasts or []) != 1 or any((recipe, override, truth, scheduler, workers)):
            raise UserError("--stations scores one FORECAST; of the other options only --run, --overwrite and --json go with it")
        from wsdcast.output.station_scores import score_stations

        return score_stations(forecasts[0], stations, run, overwrite=overwrite)  # type: ignore[index]
    settings: dict[str, Any] = {"scheduler": scheduler, "workers": workers, "overwrite": overwrite}
    if not forecasts:
        if truth is not None:
            raise UserError("--truth needs a FORECAST that is scored against it")
        return score(with_overrides(recipe, override), run, **settings)
    if len(forecasts) == 1:
        if truth is None or recipe is not None or override:
            raise UserError(f"{forecasts[0]}: {_what_is_missing(forecasts[0], recipe is not None or bool(override))}")
        return score_forecast(forecasts[0], truth, run, **settings)
    if len(forecasts) == 2:
        if any((recipe, override, run, truth, scheduler, workers, overwrite)):
            raise UserError("two runs are compared by their stored scores; the only option of a comparison is --json")
        return score_pair(*forecasts)
    raise UserError(f"{len(forecasts)} forecasts: one is scored, two are compared")


def _what_is_missing(forecast: str, with_recipe: bool) -> str:
    """How a forecast is scored for which the truth is missing, or a recipe is given, in words."""
    no_recipe = ", and no recipe" * with_recipe
    if not (with_recipe or ":" in forecast or Path(forecast).exists() or glob(forecast)):  # a colon is in URLs and public names
        return "no such forecast; a run directory is given as --run, a recipe as --recipe"
    if (Path(forecast) / ANALYSIS).is_dir():
        return f"its own record is the truth with wsdcast score --run {forecast}; other analyses need --truth SOURCE{no_recipe}"
    return f"give its truth with --truth SOURCE{no_recipe}"
