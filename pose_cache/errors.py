"""What this package raises for what its user can mend."""


class UserError(ValueError):
    """Bad input, settings or files; the message says which, what was expected, what came, and the fix.

    The one base of such errors in this project: `csip.errors.CsipError` is one, too.
    """


class PoseCacheError(UserError):
    """Bad input to skeletons, or a damaged cache."""
