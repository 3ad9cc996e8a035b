"""From settings to a data set: which reader, on which folder."""

from __future__ import annotations

from dataclasses import replace

from csip.config import DatasetSettings
from csip.data import folder, ilidsvid, lsvid, mars, prid2011
from csip.data.dataset import Dataset, is_labelled
from csip.data.labels import LABELS
from csip.errors import CsipError

__all__ = ["is_labelled", "load_dataset", "load_labelled"]


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
            "folder",
            parameter="root",
        )
    dataset = _read(settings)
    # Where nobody is known, every tracklet is in both parts: there is nothing to take out.
    if not is_labelled(dataset):
        return dataset
    # Readers whose data set has a policy of its own have followed it; the others learn of it here.
    if settings.gallery == "without_queries" and dataset.queries_in_gallery:
        return dataset.without_queries()
    return dataset


def load_labelled(settings: DatasetSettings, purpose: str) -> Dataset:
    """Read the index of a data set in which people are known.

    Parameters
    ----------
    purpose
        What needs them, for the message: ``training``.

    Raises
    ------
    CsipError
        No tracklet has a person, or as `load_dataset`.
    """
    dataset = load_dataset(settings)
    if not is_labelled(dataset):
        raise CsipError(
            f"{dataset.root}: no tracklet has a person, which {purpose} needs; expected people in "
            f"{dataset.root / LABELS} (tracklet,person)",
            parameter="people",
        )
    return dataset


def _read(settings: DatasetSettings) -> Dataset:
    path, name = settings.path, settings.name
    match settings.layout:
        case "mars":
            return mars.load(path, settings.gallery, name)
        case "lsvid":
            return lsvid.load(path, settings.gallery, settings.piece_frames, name)
        case "ilidsvid":
            return replace(ilidsvid.load(path, settings.split, name), split=settings.split)
        case "prid2011":
            return replace(prid2011.load(path, settings.split, name), split=settings.split)
        case "folder":
            return folder.load(path, settings.train_share, name=name)
        case "kgbd" | "biwi" | "ias" | "ks20" | "transg":
            raise CsipError(
                f"data set {name} ({settings.layout} layout) has skeletons and no pictures", parameter="skeletons_alone"
            )
