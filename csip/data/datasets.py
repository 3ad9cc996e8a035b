"""From settings to a data set: which reader, on which folder."""

from __future__ import annotations

from csip.config import DatasetSettings
from csip.data import folder, mars
from csip.data.tracklets import Dataset
from csip.errors import CsipError


def load_dataset(settings: DatasetSettings) -> Dataset:
    """Read the index of a data set.

    Raises
    ------
    CsipError
        The folder is missing, or its content is not the layout that the settings name.
    """
    if not settings.path.is_dir():
        raise CsipError(
            f"{settings.path}: no such folder; put data set {settings.name} ({settings.layout} layout) there, or name its "
            "folder with --root"
        )
    if settings.layout == "mars":
        return mars.load(settings.path, settings.gallery, settings.name)
    return folder.load(settings.path, settings.train_share, name=settings.name)
