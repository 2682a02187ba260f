"""Errors that a user can cause. The command line prints their message as one line and exits with their code."""


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
