"""The one exception that this package raises for what its user can mend."""


class PoseCacheError(ValueError):
    """Bad input or a damaged file; the message says which, what was expected, what came, and the fix."""
