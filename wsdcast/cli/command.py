"""The command-line application, the wrapper that prints errors in one line, and parsers of the values of options."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from wsdcast.cli.options import DebugOption, JsonOption
from wsdcast.cli.show import show
from wsdcast.runs.errors import UserError, first_line

if TYPE_CHECKING:
    from wsdcast.runs.overrides import Overridden

Name = TypeVar("Name", bound=str | None)
"""The value of ``--recipe``; None if it is left out."""

app = typer.Typer(
    help="Weather ensembles by warm-start flow matching. The four stages, in order: [bold]prepare[/], [bold]train[/], "
    "[bold]rollout[/], [bold]score[/]; [bold]run[/] is all four.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def command(
    function: Callable[..., object], group: typer.Typer = app, print_result: Callable[[Any, bool], None] = show
) -> Callable[..., object]:
    """Register a command, with ``--json`` and ``--debug`` after its own options.

    An error that a user can cause is printed as one line, and the exit code is 2 or that of the error. After Ctrl-C it is 130 and after
    SIGTERM 143, as in shells, and temporary files are removed. If another of several processes failed, this one says so in one line. With
    ``--debug`` the error is raised.

    Args:
        function: what the command does. It returns its result, or yields several, each printed before the next is made.
        group: the group of commands that this one belongs to.
        print_result: prints a result, as JSON if its second argument is True.
    """

    @functools.wraps(function)
    def guarded(*, json: bool, debug: bool, **arguments: Any) -> None:
        try:
            with _sigterm_as_ctrl_c():
                results = function(**arguments)
                for result in results if isinstance(results, Iterator) else (results,):
                    _printed(print_result, result, json)
        except _of_users() as error:
            if debug:
                raise
            print(f"wsdcast: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(getattr(error, "code", 2)) from None
        except RuntimeError as error:
            memory_is_full = "DefaultCPUAllocator: can't allocate memory" in str(error)  # torch has no class for it
            if debug or not (memory_is_full or _of_another_process(error)):
                raise
            print(f"wsdcast: {'memory is full' if memory_is_full else 'another process ended; its message says why'}", file=sys.stderr)
            raise typer.Exit(2 if memory_is_full else 1) from None
        except KeyboardInterrupt as interrupt:
            if debug:
                raise
            print("wsdcast: interrupted; what is finished is kept", file=sys.stderr)
            raise typer.Exit(128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)) from None

    # Typer makes the options from the signature.
    signature = inspect.signature(function, eval_str=True)
    further = (
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("json", JsonOption), ("debug", DebugOption))
    )
    guarded.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *further])  # type: ignore[attr-defined]
    group.command(function.__name__.replace("_", "-"))(guarded)
    return function


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system sends it when the time of a job is over."""


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end this block as Ctrl-C does. Only the main thread can ask for that.

    Of several processes torchrun ends those that wait for a lost one, and that at once.
    """

    def terminated(*_: object) -> None:
        raise _Terminated

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL or os.environ.get("WORLD_SIZE", "1") != "1":
        yield
        return
    signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _printed(print_result: Callable[[Any, bool], None], result: object, json: bool) -> None:
    """Print a result. If its reader is gone, such as ``head`` that has its lines, end without a message, as rich and click do."""
    try:
        print_result(result, json)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest of the buffer at its end
        raise typer.Exit(1) from None


def _of_users() -> tuple[type[Exception], ...]:
    """The errors that a user can cause. One is torch's, for a GPU whose memory is full; if torch is not loaded, it cannot have occurred."""
    of_torch = [sys.modules["torch"].OutOfMemoryError] if "torch" in sys.modules else []
    return (UserError, OSError, MemoryError, UnicodeEncodeError, *of_torch)


def _of_another_process(error: RuntimeError) -> bool:
    """Whether this process of several failed because another one ended."""
    return "torch" in sys.modules and importlib.import_module("wsdcast.runs.processes").lost_another(error)


def _one_line(error: Exception) -> str:
    """The message of an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"memory is full: {first_line(error)}"
    if isinstance(error, UnicodeEncodeError):
        text = error.object if len(error.object) < 100 else error.object[error.start : error.end]
        return f"{text!a}: {error.encoding} cannot encode it; use ASCII letters only, or a locale of UTF-8 (PYTHONUTF8=1)"
    return " ".join(str(error).split())


def with_overrides(recipe: Name, overrides: list[str] | None) -> Name | Overridden:
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
    return in_hours(length, "--lead", 6) / 24


def in_hours(length: str, option: str, step: int = 1) -> int:
    """Parse the value of an option that is a length, such as 3h or 10d: the length in hours.

    Raises:
        UserError: if the value has another form, or is not a multiple of ``step`` hours.
    """
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
