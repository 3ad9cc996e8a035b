"""Which csip this is."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path


def describe_version() -> str:
    """Return the version, and the git revision in a checkout, e.g. ``0.1.0 (1a2b3c4d5e6f)``."""
    version = metadata.version("csip")
    project = Path(__file__).resolve().parents[1]
    if not (project / ".git").exists():
        return version
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return version
    return f"{version} ({revision})"
