"""The commands ``wsdcast study ...``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from wsdcast.cli.command import app, command, lists, with_overrides
from wsdcast.cli.options import LIST, DebugOption, JsonOption, OverrideOption, OverwriteOption, RecipeOption, RunOption, SeedsOption
from wsdcast.cli.show import show

study = typer.Typer(help="Compare variants and settings of the method.", no_args_is_help=True)
app.add_typer(study, name="study")
study_command = partial(command, group=study)


@study_command
def nfe(
    recipe: RecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    seeds: SeedsOption = None,
    priors: Annotated[
        str | None,
        typer.Option(
            metavar=LIST,
            help="Priors that are compared in one step and in rollouts.",
            show_default="the recipe's: warm,standard,features-only",
        ),
    ] = None,
    ablations: Annotated[
        str | None,
        typer.Option(
            metavar=LIST,
            help="Further priors, compared in one step but not in rollouts; '' for none.",
            show_default="the recipe's: unblended,plain-blend,mean-only,climatology",
        ),
    ] = None,
    nfe: Annotated[
        str | None, typer.Option(metavar=LIST, help="Numbers of evaluations in one step.", show_default="the recipe's: 1,2,4,6,10,20")
    ] = None,
    rollout_nfe: Annotated[
        str | None, typer.Option(metavar=LIST, help="Those of --nfe that are rolled out; '' for none.", show_default="the recipe's: 1,4,20")
    ] = None,
    solvers: Annotated[str | None, typer.Option(metavar=LIST, help="Solvers.", show_default="the recipe's: midpoint")] = None,
    grids_in_time: Annotated[
        str | None, typer.Option(metavar=LIST, help="Grids of flow times, each with each solver.", show_default="the recipe's: uniform")
    ] = None,
    warmths: Annotated[str | None, typer.Option(metavar=LIST, help="w of Eq. 4, each in [0, 1].", show_default="the recipe's: 1")] = None,
    starts: Annotated[int | None, typer.Option(help="Number of initial times of one step.", show_default="the recipe's: 48")] = None,
    rollout_starts: Annotated[
        int | None, typer.Option(help="Number of initial times of rollouts.", show_default="the recipe's: 12")
    ] = None,
    members: Annotated[int | None, typer.Option(help="Ensemble size, 2 or more.", show_default="the recipe's: 8")] = None,
    leads: Annotated[
        str | None, typer.Option(metavar=LIST, help="Lead times in hours that are scored.", show_default="the recipe's: 6,24,72,120")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """How many evaluations are enough: priors, solvers and grids compared at equal cost of training: study.nc, study.html."""
    from wsdcast.study.weather import study_nfe

    split = lists(
        seeds=seeds,
        priors=priors,
        ablations=ablations,
        nfe=nfe,
        rollout_nfe=rollout_nfe,
        solvers=solvers,
        grids_in_time=grids_in_time,
        warmths=warmths,
        leads=leads,
    )
    show(
        study_nfe(
            with_overrides(recipe, override),
            run,
            overwrite=overwrite,
            starts=starts,
            rollout_starts=rollout_starts,
            members=members,
            **split,
        ),
        json,
    )
