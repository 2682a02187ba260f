"""The commands ``wsdcast export-model``, which writes a trained model to one file, and ``wsdcast forecast``, which forecasts with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsdcast.cli.command import command, in_days, with_overrides
from wsdcast.cli.options import (
    EvaluationsOption,
    MemberSeedOption,
    MembersOption,
    OverwriteOption,
    ReplaceOption,
    ThresholdsOption,
)


@command
def export_model(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory with a trained model.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; its name ends in .wsd.")],
    overwrite: ReplaceOption = False,
) -> object:
    """Write a trained model to one file, for others to forecast with: weights, recipe, normalisation and a model card."""
    from wsdcast.weather.stages.export import export_model

    return export_model(run, out, overwrite=overwrite)


@command
def forecast(
    model: Annotated[Path, typer.Option(metavar="FILE", help="A model file (.wsd), from `wsdcast export-model`.")],
    initial: Annotated[str, typer.Option(metavar="SOURCE", help="Today's analysis: gfs, ifs, or any source that prepare reads.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--override",
            metavar="KEY=VALUE",
            help="Change a key of the recipe's section rollout, such as rollout.solver=ab2; repeatable.",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Directory for all that is written.", show_default="runs/<name of FILE>-<initial time>")
    ] = None,
    members: MembersOption = None,
    nfe: EvaluationsOption = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Initial time, UTC.", show_default="the newest that the source has")
    ] = None,
    lead: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Length of the forecast, such as 10d or 36h.", show_default="5d")
    ] = None,
    seed: MemberSeedOption = None,
    thresholds: ThresholdsOption = None,
    at: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Places (name, latitude, longitude), for a table and plumes.", show_default=False)
    ] = None,
    overwrite: OverwriteOption = False,
) -> object:
    """Today's forecast in one directory: forecast.zarr, products.nc, places.csv and the page forecast.html."""
    from wsdcast.weather.stages.forecast import forecast_steps

    changes = {"members": members, "nfe": nfe, "start": start, "days": None if lead is None else in_days(lead), "seed": seed}
    return forecast_steps(model, initial, run, with_overrides(None, override), changes, thresholds=thresholds, at=at, overwrite=overwrite)
