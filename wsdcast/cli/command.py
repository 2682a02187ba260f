"""The command-line application, the wrapper that prints errors in one line, and parsers of the values of options."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from typing import Any

import typer

from wsdcast.runs.errors import UserError

app = typer.Typer(
    help="Weather ensembles by warm-start flow matching. The four stages, in order: [bold]prepare[/], [bold]train[/], "
    "[bold]rollout[/], [bold]score[/]; [bold]run[/] is all four.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Register a command.

    An error that a user can cause is printed as one line, and the exit code is 2 or that of the error. After Ctrl-C it is 130, as in
    shells. With ``--debug`` the error is raised.
    """

    @group.command(function.__name__.strip("_").replace("_", "-"))
    @functools.wraps(function)
    def guarded(**arguments: Any) -> None:
        try:
            function(**arguments)
        except (UserError, OSError) as error:
            if arguments["debug"]:
                raise
            print(f"wsdcast: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(getattr(error, "code", 2)) from None
        except KeyboardInterrupt:
            if arguments["debug"]:
                raise
            print("wsdcast: interrupted", file=sys.stderr)
            raise typer.Exit(128 + signal.SIGINT) from None

    return guarded


def _one_line(error: Exception) -> str:
    """The message of an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"
    return " ".join(str(error).split())


def with_overrides(recipe: str | None, overrides: list[str] | None) -> Any:
    """The argument for the ``recipe`` parameter of a stage: the value of ``--recipe``, with the keys that ``-o`` changes.

    Raises:
        UserError: if an override is not of the form KEY=VALUE.
    """
    if not overrides:
        return recipe
    from wsdcast.runs.overrides import Overridden, parsed

    return Overridden(recipe, parsed(overrides))


def in_days(length: str) -> float:
    """Parse the value of ``--lead``, the length of a forecast that is made, such as 10d or 36h: the length in days.

    Raises:
        UserError: if the value has another form, or is not a multiple of 6 h.
    """
    return _in_hours(length, "--lead", 6) / 24


def in_hours(length: str, option: str) -> int:
    """Parse the value of an option about a forecast that is there, of any lead times, such as 3h or 10d: the length in hours.

    Raises:
        UserError: if the value has another form, or is not a whole number of hours.
    """
    return _in_hours(length, option, 1)


def _in_hours(length: str, option: str, step: int) -> int:
    from datetime import timedelta

    from wsdcast.runs.times import duration

    try:
        return duration(length, timedelta(hours=step)) // timedelta(hours=1)
    except ValueError as error:
        raise UserError(f"{option} {error}") from None


def coordinates(place: str) -> tuple[float, float]:
    """Parse the value of ``--at``, LATITUDE,LONGITUDE in degrees.

    Raises:
        UserError: if the value is not two numbers.
    """
    try:
        latitude, longitude = (float(part) for part in place.split(","))
    except ValueError:
        raise UserError(f"--at '{place}': expected LATITUDE,LONGITUDE in degrees, such as 52.5,13.4") from None
    return latitude, longitude


def bounds(region: str) -> tuple[float, float, float, float]:
    """Parse the value of ``--region``, W,S,E,N in degrees.

    Raises:
        UserError: if the value is not four numbers.
    """
    try:
        west, south, east, north = (float(part) for part in region.split(","))
    except ValueError:
        raise UserError(f"--region '{region}': expected W,S,E,N in degrees, such as -25,30,45,72") from None
    return west, south, east, north


def items(text: str) -> list[Any]:
    """Parse the value of an option that takes a list A,B,..."""
    return [part.strip() for part in text.split(",") if part.strip()]


def lists(**texts: str | None) -> dict[str, Any]:
    """Parse the values of several such options, by name. None stays None."""
    return {name: None if text is None else items(text) for name, text in texts.items()}
