"""The current names of cameras and identities of embedded tracklets."""

from __future__ import annotations

from dataclasses import dataclass

from csip.config import DatasetSettings
from csip.data import folder
from csip.data.dataset import DISTRACTOR
from csip.data.labels import LABELS, check_replaceable
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.retrieval.descriptors import Descriptors


@dataclass(frozen=True)
class Labels:
    """Names of the cameras and identities of described tracklets.

    Attributes
    ----------
    cameras
        (tracklets,) names of their cameras, or numbers where there are no names.
    identities
        (tracklets,) names of the people, or their numbers; None where unknown.
    """

    cameras: tuple[str, ...]
    identities: tuple[str | None, ...]

    @staticmethod
    def numbers(descriptors: Descriptors) -> Labels:
        """Return the numbers that the descriptors hold."""
        return Labels(
            tuple(map(str, descriptors.cameras.tolist())),
            tuple(None if pid == DISTRACTOR else str(pid) for pid in descriptors.identities.tolist()),
        )

    @staticmethod
    def of(settings: DatasetSettings, descriptors: Descriptors) -> Labels:
        """Ask the data set, where it is there: labels may have changed since the tracklets were embedded."""
        plain = Labels.numbers(descriptors)
        root = settings.path
        if not root.is_dir():
            return plain
        if not has_table(settings):
            people = _numbered(settings)
            return Labels(plain.cameras, tuple(map(people.get, descriptors.names)))
        sightings, people = folder.read_sightings(root), folder.read_people(root)
        cameras = tuple(
            sightings[name].camera if name in sightings else camera
            for name, camera in zip(descriptors.names, plain.cameras, strict=True)
        )
        return Labels(cameras, tuple(map(people.get, descriptors.names)))


def has_table(settings: DatasetSettings) -> bool:
    """Whether a data set is a table of tracklets, which alone has labels and moments beside it."""
    return settings.layout == "folder" and (settings.path / folder.TABLE).exists()


def known_identities(settings: DatasetSettings, replace_unreadable: bool = False) -> dict[str, str]:
    """Return the people that somebody knows, by tracklet; an earlier proposal that nobody has touched is no knowledge.

    Parameters
    ----------
    replace_unreadable
        Labels that cannot be read are to be replaced, and so are no knowledge either.

    Raises
    ------
    CsipError
        A line of the table or of the labels cannot be used.
    """
    root = settings.path
    if not has_table(settings):
        return _numbered(settings) if root.is_dir() else {}
    try:
        check_replaceable(root / LABELS)
    except CsipError:
        try:
            return folder.read_people(root)
        except CsipError:
            if not replace_unreadable:
                raise
    return folder.read_people(root, labels=False)


def _numbered(settings: DatasetSettings) -> dict[str, str]:
    dataset = load_dataset(settings)
    everyone = (*dataset.train, *dataset.query, *dataset.gallery)
    return {t.name: str(t.pid) for t in everyone if t.pid != DISTRACTOR}
