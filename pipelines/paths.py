"""Where a data set's settings, data and runs are, by its name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from csip.config import Override, Settings, load_settings
from csip.errors import CsipError
from pose_cache.shipped import CONFIGS


def settings_for(
    dataset: str | None, config: Path | None, root: Path | None, overrides: Sequence[Override]
) -> Settings:
    """Find and read the settings of a run.

    Parameters
    ----------
    dataset
        ``configs/NAME.yaml`` where there is one, otherwise a folder data set ``data/NAME``.
    config
        A settings file, instead.
    root
        The data set's folder, where it is not ``data/NAME``.
    overrides
        As `load_settings` takes them.

    Raises
    ------
    CsipError
        Neither is given, or there is no such data set.
    """
    name: list[Override] = [("dataset.name", dataset)] if dataset is not None else []
    changes: list[Override] = [*overrides, *([("dataset.root", root)] if root is not None else [])]
    if config is not None:
        return load_settings(config, [*name, *changes])
    if dataset is None:
        raise CsipError("expected a data set (--dataset NAME) or a settings file (--config FILE), found neither")
    for folder in (Path("configs"), CONFIGS):
        if (folder / f"{dataset}.yaml").exists():
            return load_settings(folder / f"{dataset}.yaml", changes)
    if root is None and not (Path("data") / dataset).is_dir():
        known = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
        places = [*known, *(path.name for path in Path("data").glob("*/"))]
        close = difflib.get_close_matches(dataset, places, n=1)
        raise CsipError(
            f"unknown data set {dataset!r}: there is no configs/{dataset}.yaml (known: {', '.join(known)}) and no folder "
            f"data/{dataset} with PERSON/CAMERA/[TRACKLET/]FRAME.jpg in it"
            + (f"; did you mean {close[0]}?" if close else "")
        )
    return load_settings(CONFIGS / "folder.yaml", [*name, *changes])


def run_folder(settings: Settings, run: Path | None) -> Path:
    """Return the folder of a run: as given, or ``runs/NAME``."""
    return run if run is not None else Path("runs") / settings.dataset.name


def skeleton_file(settings: Settings, skeletons: Path | None) -> Path:
    """Return the skeleton cache of a data set: as given, or ``skeletons.h5`` in its folder."""
    return skeletons if skeletons is not None else settings.dataset.path / "skeletons.h5"
