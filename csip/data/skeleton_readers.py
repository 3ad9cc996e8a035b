"""From settings to the sequences of skeleton-only re-identification: which reader, on which folder."""

from __future__ import annotations

from csip.config import DatasetSettings
from csip.data import kgbd, kinect_frames, transg
from csip.data.sequences import SkeletonDataset
from csip.errors import CsipError

LAYOUTS = ("kgbd", "biwi", "ias", "ks20", "transg")


def load_skeleton_set(settings: DatasetSettings, seed: int) -> SkeletonDataset:
    """Read a data set of skeletons.

    Parameters
    ----------
    seed
        Which random split, where the protocol has one (KGBD, KS20).

    Raises
    ------
    CsipError
        The layout is none of skeletons, or the folder is missing or not in that layout.
    """
    root = settings.path
    if settings.layout not in LAYOUTS:
        raise CsipError(
            f"data set {settings.name} has the layout {settings.layout}, which is one of images; skeletons alone need "
            f"dataset.layout to be one of {', '.join(LAYOUTS)}"
        )
    if not root.exists():
        raise CsipError(
            f"{root}: no such folder; put data set {settings.name} ({settings.layout} layout) there, or name its folder",
            parameter="root",
        )
    if settings.layout == "kgbd":
        return kgbd.load(root, seed, settings.name)
    if settings.layout == "ks20":
        return kinect_frames.load_ks20(root, seed, settings.name)
    if settings.layout == "biwi":
        return kinect_frames.load_biwi(root, settings.probe, settings.name)
    if settings.layout == "ias":
        return kinect_frames.load_ias(root, settings.probe, settings.name)
    return transg.load(root, settings.probe, settings.name)
