"""The commands of a trained model that travels: write it to a file, and forecast from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsdcast.cli.command import command
from wsdcast.cli.options import DebugOption, JsonOption
from wsdcast.cli.show import show


@command
def export_model(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory with a trained model.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; its name ends in .wsd.")],
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a trained model to one file, for others to forecast with: weights, recipe, normalisation and a model card."""
    from wsdcast.weather.stages.export import export_model

    show(export_model(run, out), json)
