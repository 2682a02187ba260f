"""Helpers of the tests: run a command in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from wsdcast.cli import app


def invoke(*arguments: str) -> tuple[int, str]:
    """Return the exit code of a command and what it printed on standard error. Raise what the command does not catch."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def refused(*arguments: str) -> str:
    """Return the one line of a command that must fail."""
    code, line = invoke(*arguments)
    assert code == 2
    assert line.startswith("wsdcast: ")
    assert line.count("\n") == 1
    return line
