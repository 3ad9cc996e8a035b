"""Settings of a data set by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from csip.config.reading import Override, load_settings
from csip.config.settings import Settings
from pose_cache.shipped import CONFIGS


def named_settings(name: str, root: Path | str | None, overrides: Iterable[Override]) -> Settings | None:
    """Read the settings of a data set by its name; parameters as those of `csip.load_dataset`.

    Returns
    -------
    Settings or None
        Of ``configs/NAME.yaml``, here or of this package, otherwise of the folder data set in ``data/NAME`` or `root`; None where
        there is neither.
    """
    changes = [*overrides, *moved_to(root)]
    for folder in (Path("configs"), CONFIGS):
        if (folder / f"{name}.yaml").is_file():
            return load_settings(folder / f"{name}.yaml", changes)
    if root is None and (
        Path(name).name in ("", "..") or Path(name).is_absolute() or not (Path("data") / name).is_dir()
    ):
        return None
    return load_settings(CONFIGS / "folder.yaml", [("dataset.name", name), *changes])


def known_names() -> list[str]:
    """Return the names of the data sets whose settings ship with this package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def did_you_mean(name: str) -> str:
    """Return the end of a message about an unknown data set: the name most like it, or nothing."""
    places = [*known_names(), *(path.name for path in Path("data").glob("*/"))]
    return "".join(f"; did you mean {close}?" for close in difflib.get_close_matches(name, places, n=1))


def moved_to(root: Path | str | None) -> list[Override]:
    """Return the override that names the folder of a data set; none without a folder."""
    return [] if root is None else [("dataset.root", Path(root))]
