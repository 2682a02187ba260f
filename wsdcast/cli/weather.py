"""The commands of the weather model: the four stages, figures, and all stages in a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsdcast.cli.command import command, coordinates, in_days, in_hours, with_overrides
from wsdcast.cli.options import (
    EvaluationsOption,
    ForecastsRecipeOption,
    GridInTimeOption,
    LeadOption,
    MemberSeedOption,
    MembersOption,
    OverrideOption,
    OverwriteOption,
    RecipeArgument,
    RecordsRecipeOption,
    RunOption,
    SchedulerOption,
    items,
    listed,
    recipe_option,
)
from wsdcast.runs.errors import UserError
from wsdcast.runs.names import FigureName, PriorName, SolverName


def _no_option(source: str | None) -> str | None:
    """Refuse the next option as the value of ``--check``. What follows that option would be called unexpected, and not what is missing."""
    if source is not None and source.startswith("-"):
        raise typer.BadParameter(f"'{source}' is an option; expected a source, such as 'wind/*.nc'")
    return source


@command
def prepare(
    recipe: Annotated[str | None, recipe_option("the prepared record's, unless the source is new; else planet")] = None,
    override: OverrideOption = None,
    run: RunOption = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="'planet' to simulate one; ERA5 by the name of a public store: wb2, wb2-0.25, arco; analyses up to today: gfs, ifs; the "
            "URL of a Zarr store; or a file (NetCDF, GRIB, zip, Zarr), a directory or a quoted glob.",
            show_default="the recipe's: planet",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="LONSxLATS",
            help="Grid of the prepared store; an odd number of latitudes includes the poles.",
            show_default="the recipe's: 64x32",
        ),
    ] = None,
    method: Annotated[
        Literal["conservative", "bilinear", "nearest"] | None,
        typer.Option(help="Regridding method.", show_default="the recipe's: conservative"),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="First time to take, UTC.", show_default="the recipe's, else the source's first")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Last time to take, UTC.", show_default="the recipe's, else the source's last")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Only check a source: list its problems and the size and time of its preparation.", callback=_no_option
        ),
    ] = None,
    skip: Annotated[
        Any, listed("Times of the source to leave out, such as 2020-01-01T18, separated by commas; UTC.", metavar="TIMES")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add the source's later times to a finished store.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="With --append: split the longer record and compute its statistics again.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of this machine to use.", show_default="this process, with threads")
    ] = None,
    scheduler: SchedulerOption = None,
    overwrite: OverwriteOption = False,
) -> Iterator[object]:
    """Bring the recipe's variables, by default 10 m wind, to one grid and steps of 6 h. A stopped run continues where it stopped."""
    how: dict[str, Any] = {"grid": grid, "method": method, "start": start, "end": end, "skip": skip}
    if check is not None:
        from wsdcast.weather.stages.check import check as check_source

        if source or append or recompute or workers or scheduler or overwrite:
            raise UserError("--check SOURCE can be used only with --recipe, -o, --run, --grid, --method, --start, --end and --skip")
        summary = check_source(check, with_overrides(recipe, override), run, **how)
        yield summary
        if summary.problems:
            raise typer.Exit(2)
        return
    from wsdcast.weather.stages.prepare import prepare

    yield prepare(
        with_overrides(recipe, override),
        run,
        source=source,
        **how,
        append=append,
        recompute=recompute,
        scheduler=scheduler,
        workers=workers,
        overwrite=overwrite,
    )


@command
def train(
    recipe: RecordsRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    prior: Annotated[
        PriorName | None,
        typer.Option(help="Where flow matching starts, and what the generator reads of the moments.", show_default="the recipe's: warm"),
    ] = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Train the moments network, the generator, and the distilled network if the recipe has one. A stopped training continues."""
    from wsdcast.weather.stages.train import train

    return train(with_overrides(recipe, override), run, prior=prior, overwrite=overwrite)


@command
def rollout(
    recipe: Annotated[str | None, recipe_option("the newest network's, else planet")] = None,
    override: OverrideOption = None,
    run: RunOption = None,
    members: MembersOption = None,
    nfe: EvaluationsOption = None,
    starts: Annotated[
        int | None, typer.Option(help="Number of initial times, spread evenly over the test split.", show_default="the recipe's: 12")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIMES",
            help="Initial times, instead of --starts: latest, a time, or FIRST/LAST/INTERVAL such as 2020-01-01/2020-12-31/6h; UTC.",
        ),
    ] = None,
    lead: LeadOption = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="all; lead times in hours such as 24,72; or statistics: mean, std and quantiles over the members.",
            show_default="the recipe's: all",
        ),
    ] = None,
    variables: Annotated[Any, listed("Variables that are stored, separated by commas.", "the recipe's: all", "NAMES")] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Score members while they are computed, and store no fields; then run `wsdcast score`.")
    ] = False,
    seed: MemberSeedOption = None,
    solver: Annotated[
        SolverName | None, typer.Option(help="Solver of the flow; auto picks it with its grid.", show_default="the recipe's: midpoint")
    ] = None,
    grid_in_time: GridInTimeOption = None,
    warmth: Annotated[
        float | None,
        typer.Option(help="Std of the start, w of Eq. 4, from 0 (std 1) to 1 (the predicted std).", show_default="the recipe's: 1"),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU: give the same bits every time, but slower. A CPU always does.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A model file (.wsd), instead of the networks of the run; needs --initial.")
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="With --model: analyses of its variables at the initial times and before, as for prepare."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Run ensembles, each step from the one before: forecast.zarr and an animation. A stopped run continues where it stopped."""
    from wsdcast.weather.stages.rollout import rollout

    if score and keep is not None:
        raise UserError(f"--score keeps no fields: leave out --keep {keep}")
    kept: str | list[Any] | None = keep
    if score:
        kept = "scores"
    elif keep is not None and keep[:1].isdigit():
        kept = items(keep)
    return rollout(
        with_overrides(recipe, override),
        run,
        members=members,
        nfe=nfe,
        starts=starts,
        start=start,
        days=None if lead is None else in_days(lead),
        keep=kept,
        seed=seed,
        solver=solver,
        grid_in_time=grid_in_time,
        warmth=warmth,
        variables=variables,
        deterministic=deterministic,
        model=model,
        initial=initial,
        overwrite=overwrite,
    )


@command
def plot(
    figure: Annotated[FigureName, typer.Argument(metavar="FIGURE", help="What to draw.")],
    recipe: ForecastsRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File: .png, .pdf or .svg; .gif or .mp4 for the animation.", show_default="RUN/FIGURE.png or .gif"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Initial time of maps, plume or animation, UTC.", show_default="the first of the forecast"),
    ] = None,
    lead_time: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Lead time of maps, such as 3d or 36h.", show_default="the last of the forecast")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="LATITUDE,LONGITUDE", help="Place of the plume, degrees north and east.", show_default=False)
    ] = None,
) -> object:
    """Draw one figure for a paper or talk: of the scores, of the trained networks, or of one forecast."""
    from wsdcast.weather.stages.plot import plot

    place = None if at is None else coordinates(at)
    hours = None if lead_time is None else in_hours(lead_time, "--lead-time")
    return plot(figure, with_overrides(recipe, override), run, out=out, start=start, lead_hours=hours, at=place)


@command
def run(
    recipe: RecipeArgument = "planet",
    override: OverrideOption = None,
    run: RunOption = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Run all four stages of a recipe. Artefacts that are current are not made again."""
    from wsdcast.weather.pipeline import run_stages

    return run_stages(with_overrides(recipe, override), run, overwrite=overwrite)
