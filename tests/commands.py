"""Helpers of the tests: run a command in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from wsdcast.cli import app


def invoke(*arguments: object) -> tuple[int, str]:
    """Return the exit code of a command and what it printed on standard error. Raise what the command does not catch."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def refused(*arguments: object) -> str:
    """Return the one line of a command that must fail."""
    code, line = invoke(*arguments)
    assert code == 2, line
    assert line.startswith("wsdcast: ")
    assert line.count("\n") == 1, line
    return line
