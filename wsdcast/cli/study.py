"""The commands ``wsdcast study ...``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from wsdcast.cli.command import app, command, with_overrides
from wsdcast.cli.options import OverrideOption, OverwriteOption, RecordsRecipeOption, RunOption, SeedsOption, listed

study = typer.Typer(help="Compare variants and settings of the method.", no_args_is_help=True)
app.add_typer(study, name="study")
study_command = partial(command, group=study)


@study_command
def nfe(
    recipe: RecordsRecipeOption = None,
    override: OverrideOption = None,
    run: RunOption = None,
    seeds: SeedsOption = None,
    priors: Annotated[
        Any, listed("Priors that are compared in one step and in rollouts.", "the recipe's: warm,standard,features-only")
    ] = None,
    ablations: Annotated[
        Any,
        listed(
            "Further priors, compared in one step but not in rollouts; '' for none.",
            "the recipe's: unblended,plain-blend,mean-only,climatology",
        ),
    ] = None,
    nfe: Annotated[Any, listed("Numbers of evaluations in one step.", "the recipe's: 1,2,4,6,10,20")] = None,
    rollout_nfe: Annotated[Any, listed("Those of --nfe that are rolled out; '' for none.", "the recipe's: 1,4,20")] = None,
    solvers: Annotated[Any, listed("Solvers.", "the recipe's: midpoint")] = None,
    grids_in_time: Annotated[Any, listed("Grids of flow times, each with each solver.", "the recipe's: uniform")] = None,
    warmths: Annotated[Any, listed("Warmths, w of Eq. 4, each in [0, 1].", "the recipe's: 1")] = None,
    starts: Annotated[int | None, typer.Option(help="Number of initial times of one step.", show_default="the recipe's: 48")] = None,
    rollout_starts: Annotated[
        int | None, typer.Option(help="Number of initial times of rollouts.", show_default="the recipe's: 12")
    ] = None,
    members: Annotated[int | None, typer.Option(help="Ensemble size, 2 or more.", show_default="the recipe's: 8")] = None,
    leads: Annotated[Any, listed("Lead times in hours that are scored.", "the recipe's: 6,24,72,120")] = None,
    overwrite: OverwriteOption = False,
) -> object:
    """How many evaluations are enough: priors, solvers and grids compared at equal cost of training: study.nc, study.html."""
    from wsdcast.study.weather import study_nfe

    return study_nfe(
        with_overrides(recipe, override),
        run,
        seeds=seeds,
        priors=priors,
        ablations=ablations,
        nfe=nfe,
        rollout_nfe=rollout_nfe,
        solvers=solvers,
        grids_in_time=grids_in_time,
        warmths=warmths,
        starts=starts,
        rollout_starts=rollout_starts,
        members=members,
        leads=leads,
        overwrite=overwrite,
    )
