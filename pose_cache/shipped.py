"""Where the settings, model definitions and demo weights are that ship with the project, and how it was installed."""

from pathlib import Path
from typing import Final

__all__ = ["CONFIGS", "IN_CLONE", "repair"]

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
