"""What a user can cause: the command line prints it as one line and exits with code 2."""


class UserError(ValueError):
    """What is wrong and what to do, in one line that names the file, the variable or the option.

    Attributes:
        code: exit code of the command line.
    """

    code = 2


class StoppedError(UserError):
    """A signal came, and what was done is kept; the exit code is the one that shells give."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.code = 128 + signal
