"""The one exception that this package raises for what its user can mend."""


class CsipError(ValueError):
    """Bad input, settings or files; the message says which, what was expected, what came, and the fix."""
