"""Where the settings, model definitions and demo weights are that ship with the project, and how it was installed."""

import os
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["CONFIGS", "IN_CLONE", "repair", "revision"]

_ROOT: Final = Path(__file__).resolve().parents[1]
IN_CLONE: Final = (_ROOT / "pyproject.toml").is_file() and (_ROOT / "configs").is_dir()
"""Whether this is a clone of the repository, as opposed to an installed wheel."""
CONFIGS: Final = _ROOT / "configs" if IN_CLONE else _ROOT / "csip" / "configs"
"""The folder: ``configs`` of a clone, which a wheel has in the package csip."""


def repair() -> str:
    """Return the command that mends an installation, according to how it was made."""
    if IN_CLONE:
        return "run `make setup` again; if it stays, delete .venv first"
    return "pip install --force-reinstall csip"


def revision() -> str | None:
    """Return git's commit of this clone, or of the one that the installed wheel was made from; None where neither is known.

    A repository that merely encloses the code, such as a user's own around an environment, is not asked.
    """
    if not IN_CLONE:
        made_from = _ROOT / "csip" / "revision.txt"
        return made_from.read_text().strip() if made_from.exists() else None
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    # Git sets these for its hooks, and they come before -C.
    environment = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
