"""What every reader of a data set returns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from csip.errors import CsipError

JUNK = -1
DISTRACTOR = 0
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True)
class Tracklet:
    """One person, seen by one camera, in consecutive frames.

    Attributes
    ----------
    name
        Unique in the data set; the key of the tracklet's skeletons.
    pid
        The person, 1 and up; 0 is a distractor (nobody that is asked for).
    camera
        The camera's number in the data set.
    frames
        Paths relative to the data set's root, in order of time.
    """

    name: str
    pid: int
    camera: int
    frames: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """Training tracklets, and the query and gallery tracklets of the test protocol."""

    name: str
    root: Path
    train: tuple[Tracklet, ...]
    query: tuple[Tracklet, ...]
    gallery: tuple[Tracklet, ...]

    def __post_init__(self) -> None:
        for part, tracklets in (("training", self.train), ("query", self.query), ("gallery", self.gallery)):
            repeated = [name for name, count in Counter(t.name for t in tracklets).items() if count > 1]
            if repeated:
                raise CsipError(f"{self.root}: {len(repeated)} {part} tracklet names appear twice, e.g. {repeated[0]}")
            empty = [t.name for t in tracklets if not t.frames]
            if empty:
                raise CsipError(f"{self.root}: {part} tracklet {empty[0]} has no frames")

    @property
    def queries_in_gallery(self) -> int:
        """Number of query tracklets that are in the gallery too."""
        return len({t.name for t in self.query} & {t.name for t in self.gallery})

    def without_queries(self) -> Dataset:
        """Return the data set with the query tracklets taken out of the gallery.

        Raises
        ------
        CsipError
            Nothing is left in the gallery.
        """
        asked = {t.name for t in self.query}
        left = tuple(t for t in self.gallery if t.name not in asked)
        if not left:
            raise CsipError(f"{self.root}: dataset.gallery is without_queries, but every gallery tracklet is a query")
        return replace(self, gallery=left)


def is_image(name: str) -> bool:
    """Whether a file is a frame by its name."""
    # Asked of millions: a Path for each would take longer than the disk.
    return name[name.rfind(".") :].lower() in IMAGES


def hold_out(train: Sequence[Tracklet], val_ids: int) -> tuple[tuple[Tracklet, ...], tuple[Tracklet, ...]]:
    """Split training tracklets by identity into those that train and those that validate.

    Only identities seen by two cameras can validate a ranking. The choice is a function of the identities alone: a run of
    neighbours in the order of ids, since data sets tend to number people who belong together one after the other, and
    those are the ones that a ranking confuses.

    Raises
    ------
    CsipError
        Fewer than `val_ids` + 2 identities, or too few that two cameras saw.
    """
    cameras: dict[int, set[int]] = {}
    for tracklet in train:
        cameras.setdefault(tracklet.pid, set()).add(tracklet.camera)
    if len(cameras) < val_ids + 2:
        raise CsipError(
            f"dataset.val_ids is {val_ids}, but there are only {len(cameras)} training identities (2 must be left)"
        )
    candidates = sorted(pid for pid, seen in cameras.items() if len(seen) > 1)
    if len(candidates) < val_ids:
        raise CsipError(
            f"dataset.val_ids is {val_ids}, but only {len(candidates)} training identities were seen by two cameras"
        )
    start = int(np.random.default_rng(0).integers(len(candidates) - val_ids + 1))
    held = set(candidates[start : start + val_ids])
    return tuple(t for t in train if t.pid not in held), tuple(t for t in train if t.pid in held)


def relabel(tracklets: Sequence[Tracklet]) -> dict[int, int]:
    """Map each identity to its class label: the rank of its id among the sorted ids, the same in every process."""
    return {pid: label for label, pid in enumerate(sorted({t.pid for t in tracklets}))}


def number_cameras(tracklets: Sequence[Tracklet]) -> dict[int, int]:
    """Map each training camera to its row in the camera embedding."""
    return {camera: row for row, camera in enumerate(sorted({t.camera for t in tracklets}))}


def fingerprint(tracklets: Sequence[Tracklet]) -> str:
    """Digest of names, identities, cameras and frames: equal where training would see the same data."""
    digest = hashlib.sha256()
    for t in tracklets:
        digest.update("\0".join((t.name, str(t.pid), str(t.camera), *t.frames, "")).encode())
    return digest.hexdigest()[:16]
