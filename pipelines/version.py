"""Which csip this is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import csip


def describe_version() -> str:
    """Return the version, and the git revision in a checkout, e.g. ``0.1.0 (1a2b3c4d5e6f)``."""
    project = Path(__file__).resolve().parents[1]
    if not (project / ".git").exists():
        return csip.__version__
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return csip.__version__
    return f"{csip.__version__} ({revision})"
