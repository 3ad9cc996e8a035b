"""Where a data set's settings, data and runs are, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csip.config import Override, Settings, did_you_mean, known_names, load_settings, moved_to, named_settings
from csip.errors import CsipError


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
    if config is not None:
        name: list[Override] = [("dataset.name", dataset)] if dataset is not None else []
        return load_settings(config, [*name, *overrides, *moved_to(root)])
    if dataset is None:
        raise CsipError("expected a data set (--dataset NAME) or a settings file (--config FILE), found neither")
    settings = named_settings(dataset, root, overrides)
    if settings is None:
        raise CsipError(
            f"unknown data set {dataset!r}: there is no configs/{dataset}.yaml (known: {', '.join(known_names())}) and no "
            f"folder data/{dataset} with PERSON/CAMERA/[TRACKLET/]FRAME.jpg in it{did_you_mean(dataset)}"
        )
    return settings


def run_folder(settings: Settings, run: Path | None) -> Path:
    """Return the folder of a run: as given, or ``runs/NAME``."""
    return run if run is not None else Path("runs") / settings.dataset.name


def skeleton_file(settings: Settings, skeletons: Path | None) -> Path:
    """Return the skeleton cache of a data set: as given, or ``skeletons.h5`` in its folder."""
    return skeletons if skeletons is not None else settings.dataset.path / "skeletons.h5"
