"""Errors that a user can cause. The command line prints their message as one line and exits with their code."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """An error whose message says in one line what is wrong and what to do. It names the file, the variable or the option.

    Attributes:
        code: exit code of the command line.
    """

    code = 2


class StoppedError(UserError):
    """A signal stopped the run. The work done so far is kept. The exit code is 128 + signal, as in shells."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.code = 128 + signal


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def first_few(names: Iterable[str], most: int = 5) -> str:
    """Return the first of some names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
