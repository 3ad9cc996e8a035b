"""Errors that the user can fix."""

from pose_cache.errors import UserError


class CsipError(UserError):
    """Bad input, settings or files; the message says which, what was expected, what came, and the fix."""


__all__ = ["CsipError", "UserError"]
