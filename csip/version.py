"""Which csip this is: its version, and the commit that it was made from."""

from __future__ import annotations

from importlib import metadata

from pose_cache.shipped import IN_CLONE, revision

__all__ = ["code_revision", "describe_version", "version"]


def version() -> str:
    """Return the version of what is installed, ``0+unknown`` for a folder that was not."""
    try:
        return metadata.version("csip")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def describe_version() -> str:
    """Return the version, and the commit where that is known, e.g. ``0.1.0 (1a2b3c4d5e6f)``."""
    commit = revision()
    return version() if commit is None else f"{version()} ({commit})"


def code_revision() -> str:
    """Return what a model's description says of the code: the commit in a clone, else as `describe_version`."""
    commit = revision()
    return commit if commit is not None and IN_CLONE else describe_version()
