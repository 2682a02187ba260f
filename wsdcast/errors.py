"""The one exception for what a user can cause: the command line prints it as one line and exits with code 2."""


class UserError(ValueError):
    """What is wrong and what to do, in one line that names the file, the variable or the option."""
