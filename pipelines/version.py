"""Which csip this is."""

from __future__ import annotations

import csip
from pose_cache.shipped import revision


def describe_version() -> str:
    """Return the version, and the git revision it was made from where that is known, e.g. ``0.1.0 (1a2b3c4d5e6f)``."""
    commit = revision()
    return csip.__version__ if commit is None else f"{csip.__version__} ({commit})"
