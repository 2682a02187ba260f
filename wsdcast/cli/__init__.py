"""The command line: parse, call one function, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wsdcast.cli.show import show, show_benchmark
from wsdcast.errors import UserError
from wsdcast.names import GridName, PriorName, SolverName

app = typer.Typer(
    help="Weather ensembles by warm-start flow matching. The four stages, in order: [bold]prepare[/], [bold]train[/], "
    "[bold]rollout[/], [bold]score[/]; [bold]run[/] is all four.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

RecipeOption = Annotated[
    str | None,
    typer.Option(help="Recipe: a .yaml file, or the name of a shipped one.", show_default="the one of the run so far, else planet"),
]
RunOption = Annotated[Path | None, typer.Option(help="Run directory, where all artefacts are.", show_default="runs/<recipe name>")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace artefacts that were made from another recipe.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per stage instead of tables.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")]


bench = typer.Typer(help="Measure on this machine what the project promises.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register a command whose errors end in one line and exit code 2, unless ``--debug``."""

    @group.command(function.__name__.strip("_"))
    @functools.wraps(function)
    def guarded(**arguments: Any) -> None:
        try:
            function(**arguments)
        except (UserError, OSError) as error:
            if arguments["debug"]:
                raise
            print(f"wsdcast: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(getattr(error, "code", 2)) from None

    return guarded


study = typer.Typer(help="Compare what the method can be.", no_args_is_help=True)
app.add_typer(study, name="study")


def study_command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command under ``study``."""
    return command(function, study)


def bench_command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command under ``bench``."""
    return command(function, bench)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"
    return " ".join(str(error).split())


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """See the commands below."""
    if version:
        from wsdcast import __version__

        print(f"wsdcast {__version__}")
        raise typer.Exit


@command
def prepare(
    recipe: RecipeOption = None,
    run: RunOption = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="'planet' to simulate one; ERA5 by the name of a public store: wb2, wb2-0.25, arco; the URL of a Zarr store; or a file "
            "(NetCDF, GRIB, zip, Zarr), a directory or a quoted glob.",
            show_default="the recipe's: planet",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="LONSxLATS",
            help="Grid to bring it to; an odd number of latitudes includes the poles.",
            show_default="the recipe's: 64x32",
        ),
    ] = None,
    method: Annotated[
        Literal["conservative", "bilinear", "nearest"] | None,
        typer.Option(help="Way of regridding.", show_default="the recipe's: conservative"),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Look at a source, list all that is wrong with it and what it would take; write nothing."),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add the source's later times to a finished store.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="With --append: divide the longer record and compute its statistics anew.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of this machine to use.", show_default="none, but threads")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="A running dask scheduler, such as tcp://node:8786.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Bring 10 m wind (m/s) to one grid and 6 h: analysis.zarr. Stopped, it goes on where it was."""
    if check is not None:
        from wsdcast.stages.check import check as check_source

        if source or append or recompute or workers or scheduler or overwrite:
            raise UserError("--check SOURCE goes with --recipe, --run, --grid and --method alone")
        summary = check_source(check, recipe, run, grid=grid, method=method)
        show(summary, json)
        if summary.problems:
            raise typer.Exit(2)
        return
    from wsdcast.stages.prepare import prepare

    summary = prepare(
        recipe,
        run,
        source=source,
        grid=grid,
        method=method,
        append=append,
        recompute=recompute,
        scheduler=scheduler,
        workers=workers,
        overwrite=overwrite,
    )
    show(summary, json)


@command
def train(
    recipe: RecipeOption = None,
    run: RunOption = None,
    prior: Annotated[
        PriorName | None,
        typer.Option(help="Where flow matching starts, and what the generator is told.", show_default="the recipe's: warm"),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the moments network, then the generator."""
    from wsdcast.stages.train import train

    show(train(recipe, run, prior=prior, overwrite=overwrite), json)


@command
def rollout(
    recipe: RecipeOption = None,
    run: RunOption = None,
    members: Annotated[int | None, typer.Option(help="Ensemble size, 2 or more.", show_default="the recipe's: 50")] = None,
    nfe: Annotated[
        int | None,
        typer.Option(help="Network evaluations per sample.", show_default="the recipe's: 10"),
    ] = None,
    starts: Annotated[
        int | None, typer.Option(help="Start times, spread evenly over the test part.", show_default="the recipe's: 12")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="TIMES", help="Instead: latest, a time, or FIRST/LAST/INTERVAL such as 2020-01-01/2020-12-31/12h; UTC."),
    ] = None,
    lead: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Length of the forecast, such as 10d or 36h.", show_default="the recipe's: 3d")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="all; lead times in hours such as 24,72; or statistics: mean, std and quantiles over the members.",
            show_default="the recipe's: all",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the members' noise.", show_default="the recipe's: 0")] = None,
    solver: Annotated[
        SolverName | None, typer.Option(help="Solver of the flow; auto picks it with its grid.", show_default="the recipe's: midpoint")
    ] = None,
    grid_in_time: Annotated[
        GridName | None, typer.Option(help="Flow times between which the solver steps.", show_default="the recipe's: uniform")
    ] = None,
    warmth: Annotated[
        float | None, typer.Option(help="From 1, the whole warm start, to 0, none of its std.", show_default="the recipe's: 1")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU the same bits every time, slower; on a CPU it is always so.")
    ] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run ensembles autoregressively: forecast.zarr and a picture. Stopped, it goes on where it was."""
    from wsdcast.stages.rollout import rollout

    summary = rollout(
        recipe,
        run,
        members=members,
        nfe=nfe,
        starts=starts,
        start=start,
        days=None if lead is None else _days(lead),
        keep=keep if keep is None or not keep[:1].isdigit() else _list(keep),
        seed=seed,
        solver=solver,
        grid_in_time=grid_in_time,
        warmth=warmth,
        deterministic=deterministic,
        overwrite=overwrite,
    )
    show(summary, json)


def _days(lead: str) -> float:
    from datetime import timedelta

    from wsdcast.times import duration

    try:
        return duration(lead) / timedelta(days=1)
    except ValueError as error:
        raise UserError(f"--lead {error}") from None


def _list(text: str) -> list[Any]:
    return [part.strip() for part in text.split(",") if part.strip()]


@command
def score(
    recipe: RecipeOption = None,
    run: RunOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Score the ensembles beside baselines: scores.nc, scores.csv, report.html."""
    from wsdcast.stages.score import score

    show(score(recipe, run, overwrite=overwrite), json)


@bench_command
def prepare_(
    years: Annotated[
        float, typer.Option(min=0.01, max=200, help="Length of the generated record of a quarter of a degree, 6-hourly.")
    ] = 0.25,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Regridding beside the bare sparse products, and a long record passing through."""
    from wsdcast.bench.prepare import bench_prepare

    show_benchmark(bench_prepare(years), json)


@bench_command
def train_(
    recipe: Annotated[str, typer.Option(help="Recipe whose grid and generator are taken.")] = "planet",
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """A step of training beside the network alone, and beside one whose samples are loaded from disk."""
    from wsdcast.bench.train import bench_train

    show_benchmark(bench_train(recipe), json)


@bench_command
def rollout_(
    recipe: Annotated[str, typer.Option(help="Recipe whose grid and networks are taken.")] = "planet",
    members: Annotated[int | None, typer.Option(help="Ensemble size, 2 or more.", show_default="the recipe's: 50")] = None,
    nfe: Annotated[int | None, typer.Option(help="Network evaluations per sample.", show_default="the recipe's: 10")] = None,
    lead: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Length of the forecast, such as 10d or 36h.", show_default="the recipe's: 3d")
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """A rollout beside its networks alone, and beside the usual way."""
    from wsdcast.bench.rollout import bench_rollout

    show_benchmark(bench_rollout(recipe, members=members, nfe=nfe, days=None if lead is None else _days(lead)), json)


LIST = "A,B,..."


@study_command
def nfe(
    recipe: RecipeOption = None,
    run: RunOption = None,
    seeds: Annotated[str | None, typer.Option(metavar=LIST, help="Seeds of training.", show_default="the recipe's: 0,1,2")] = None,
    priors: Annotated[
        str | None,
        typer.Option(metavar=LIST, help="Priors, one step and rolled out.", show_default="the recipe's: warm,standard,features-only"),
    ] = None,
    ablations: Annotated[
        str | None,
        typer.Option(metavar=LIST, help="Priors, one step alone; '' for none.", show_default="the recipe's: all others but given"),
    ] = None,
    nfe: Annotated[
        str | None, typer.Option(metavar=LIST, help="Numbers of evaluations, one step.", show_default="the recipe's: 2,4,6,10,20")
    ] = None,
    rollout_nfe: Annotated[
        str | None, typer.Option(metavar=LIST, help="Those of them that are rolled out; '' for none.", show_default="the recipe's: 4,20")
    ] = None,
    solvers: Annotated[str | None, typer.Option(metavar=LIST, help="Solvers.", show_default="the recipe's: midpoint")] = None,
    grids_in_time: Annotated[
        str | None, typer.Option(metavar=LIST, help="Grids of flow times, each with each solver.", show_default="the recipe's: uniform")
    ] = None,
    warmths: Annotated[str | None, typer.Option(metavar=LIST, help="w of Eq. 4, each in [0, 1].", show_default="the recipe's: 1")] = None,
    starts: Annotated[int | None, typer.Option(help="Start times of one step.", show_default="the recipe's: 48")] = None,
    rollout_starts: Annotated[int | None, typer.Option(help="Start times of forecasts.", show_default="the recipe's: 12")] = None,
    members: Annotated[int | None, typer.Option(help="Ensemble size, 2 or more.", show_default="the recipe's: 8")] = None,
    leads: Annotated[
        str | None, typer.Option(metavar=LIST, help="Lead times in hours that are scored.", show_default="the recipe's: 6,24,72,120")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """How many evaluations are enough: priors, solvers and grids compared at equal cost of training: study.nc, study.html."""
    from wsdcast.study.nfe import study_nfe

    lists = {
        "seeds": seeds,
        "priors": priors,
        "ablations": ablations,
        "nfe": nfe,
        "rollout_nfe": rollout_nfe,
        "solvers": solvers,
        "grids_in_time": grids_in_time,
        "warmths": warmths,
        "leads": leads,
    }
    split: dict[str, Any] = {name: None if text is None else _list(text) for name, text in lists.items()}
    show(study_nfe(recipe, run, overwrite=overwrite, starts=starts, rollout_starts=rollout_starts, members=members, **split), json)


@study_command
def statistics(
    recipe: RecipeOption = None,
    run: RunOption = None,
    samples: Annotated[int, typer.Option(min=2, help="Training samples that the statistics are means over.")] = 64,
    levels: Annotated[int, typer.Option(min=2, help="Log signal-to-noise ratios at which they are taken.")] = 25,
    warmth: Annotated[float | None, typer.Option(help="Warmth at which samples will be drawn.", show_default="the recipe's: 1")] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """What the solver dpm3-v3 needs to know of the trained generator: statistics/."""
    from wsdcast.study.statistics import study_statistics

    show(study_statistics(recipe, run, samples=samples, levels=levels, warmth=warmth), json)


@command
def run(
    recipe: Annotated[str, typer.Argument(help="Recipe: a .yaml file, or the name of a shipped one.")] = "planet",
    run: RunOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """All four stages of a recipe, skipping what is there and current."""
    from wsdcast.pipeline import run as run_stages

    for summary in run_stages(recipe, run, overwrite=overwrite):
        show(summary, json)
