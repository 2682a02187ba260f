"""The command line. Each command parses its options, calls one function and prints its summary. Heavy imports happen in the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from wsdcast.cli.command import app

# Each of these modules adds its commands to the application. The help lists them in this order.
from wsdcast.cli import weather, verify, forecast, products, study, inpaint, bench  # noqa: F401  # isort: skip

__all__ = ["app"]


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """See the commands below."""
    if version:
        from wsdcast import __version__

        print(f"wsdcast {__version__}")
        raise typer.Exit
