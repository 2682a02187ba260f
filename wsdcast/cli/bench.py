"""The commands ``wsdcast bench ...``: one for each benchmark."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from wsdcast.cli.command import app, command, in_days, with_overrides
from wsdcast.cli.options import EvaluationsOption, LeadOption, MembersOption, OverrideOption
from wsdcast.cli.show import show_benchmark

bench = typer.Typer(help="Measure the speed of each stage on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")
bench_command = partial(command, group=bench, print_result=show_benchmark)


@bench_command
def prepare(
    years: Annotated[
        float, typer.Option(min=0.01, max=200, help="Length of the generated record of a quarter of a degree, 6-hourly.")
    ] = 0.25,
) -> object:
    """Time the preparation of a long record, and regridding compared with its bare sparse products."""
    from wsdcast.bench.prepare import bench_prepare

    return bench_prepare(years)


@bench_command
def train(
    recipe: Annotated[str, typer.Option(help="Recipe whose grid and generator are taken.")] = "planet",
    override: OverrideOption = None,
) -> object:
    """Time a training step, compared with the network alone and with a step that loads its samples from disk."""
    from wsdcast.bench.train import bench_train

    return bench_train(with_overrides(recipe, override))


@bench_command
def rollout(
    recipe: Annotated[str, typer.Option(help="Recipe whose grid and networks are taken.")] = "planet",
    override: OverrideOption = None,
    members: MembersOption = None,
    nfe: EvaluationsOption = None,
    lead: LeadOption = None,
) -> object:
    """Time a rollout, compared with its networks alone and with a simple loop (the usual way)."""
    from wsdcast.bench.rollout import bench_rollout

    days = None if lead is None else in_days(lead)
    return bench_rollout(with_overrides(recipe, override), members=members, nfe=nfe, days=days)


@bench_command
def score() -> object:
    """Time the scoring of a forecast, compared with reading it, and CRPS, compared with other libraries."""
    from wsdcast.bench.score import bench_score

    return bench_score()
