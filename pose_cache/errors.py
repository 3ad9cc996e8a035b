"""Errors that the user can fix."""


class UserError(ValueError):
    """Bad input, settings or files; the message says which, what was expected, what came, and the fix.

    The one base of such errors in this project: `csip.errors.CsipError` is one, too.

    Attributes
    ----------
    parameter : str
        What the caller may pass to be obeyed all the same, or to say something else: the name of a parameter, such as
        ``root`` or ``force``, or what to make first, such as ``skeletons``. The command line knows the option or the command
        and adds it; the message names none. Empty where there is nothing to add.
    """

    def __init__(self, message: str, *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class PoseCacheError(UserError):
    """Bad input to skeletons, or a damaged cache."""
