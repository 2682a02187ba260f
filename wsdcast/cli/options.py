"""Options and arguments that several commands share, each stated once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsdcast.runs.names import GridName


def items(text: str) -> list[str]:
    """Parse the value of an option that takes a list A,B,..."""
    return [part.strip() for part in text.split(",") if part.strip()]


def listed(help: str, default: str | None = None, metavar: str = "A,B,...") -> Any:
    """An option that takes a list, for an annotation with Any: typer would let an option of the type list be repeated."""
    return typer.Option(help=help, show_default=default or False, metavar=metavar, parser=items)


RecipeArgument = Annotated[str, typer.Argument(help="Recipe: a .yaml file, or the name of a shipped one.")]


def recipe_option(default: str) -> Any:
    """The option ``--recipe`` of a command whose default is ``default``, in words."""
    return typer.Option(help="Recipe: a .yaml file, or the name of a shipped one.", show_default=default)


RecordsRecipeOption = Annotated[str | None, recipe_option("the prepared record's, else planet")]
ForecastsRecipeOption = Annotated[str | None, recipe_option("the forecast's, else planet")]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="KEY=VALUE", help="Change any key of the recipe, such as rollout.nfe=4; repeatable."),
]
RunOption = Annotated[Path | None, typer.Option(help="Run directory, where all artefacts are.", show_default="runs/<recipe name>")]
ForecastArgument = Annotated[
    str, typer.Argument(metavar="FORECAST", help="A forecast of any origin: path or URL of its store, or a run directory with one.")
]
RegionOption = Annotated[
    str | None, typer.Option(metavar="W,S,E,N", help="Only points within these bounds, degrees.", show_default="all points")
]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace artefacts that were made from another recipe.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per stage instead of tables.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")]

SchedulerOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="A running dask scheduler, such as tcp://node:8786.")]
MembersOption = Annotated[int | None, typer.Option(help="Ensemble size, 2 or more.", show_default="the recipe's: 50")]
EvaluationsOption = Annotated[
    int | None,
    typer.Option(
        help="Network evaluations per sample: 1 with a distilled network, an even number with the solver midpoint.",
        show_default="the recipe's: 1",
    ),
]
LeadOption = Annotated[
    str | None, typer.Option(metavar="LENGTH", help="Length of the forecast, such as 10d or 36h.", show_default="the recipe's: 3d")
]
GridInTimeOption = Annotated[
    GridName | None, typer.Option(help="Flow times between which the solver steps.", show_default="the recipe's: uniform")
]
MemberSeedOption = Annotated[int | None, typer.Option(help="Seed of the members' noise.", show_default="the recipe's: 0")]
ThresholdsOption = Annotated[
    Any, listed("Speeds of the 10 m wind in m/s, or with a unit, as 25kn.", "10.8,17.2,24.5, where Beaufort 6, 8, 10 begin")
]
SeedsOption = Annotated[Any, listed("Seeds of training.", "the recipe's: 0,1,2")]
