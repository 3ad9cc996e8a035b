"""What every reader of a data set returns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np

from csip.errors import CsipError

JUNK = -1
DISTRACTOR = 0
IMAGES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".pgm", ".ppm"}
)
# Pictures that nothing here decodes: they must not be dropped as if they were notes beside the frames.
OTHER_PICTURES = frozenset({
    ".heic", ".heif", ".hif", ".gif", ".jp2", ".j2k", ".jxl", ".jxr", ".tga", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw",
    ".orf", ".rw2", ".raf", ".raw", ".psd", ".pnm", ".pbm", ".pfm", ".dcm", ".ras", ".sgi", ".pcx", ".fit", ".fits",
})  # fmt: skip


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


class Tracklets(tuple[Tracklet, ...]):
    """Tracklets of one data set, which they know: a part of it, or a slice of a part.

    Attributes
    ----------
    dataset : Dataset
        Where their frames are, and which of them are queries.
    """

    dataset: Dataset

    def __new__(cls, tracklets: Iterable[Tracklet], dataset: Dataset | None = None) -> Tracklets:
        part = super().__new__(cls, tracklets)
        if dataset is not None:  # missing only while one is unpickled: its attributes follow
            part.dataset = dataset
        return part

    @overload
    def __getitem__(self, index: SupportsIndex) -> Tracklet: ...
    @overload
    def __getitem__(self, index: slice) -> Tracklets: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Tracklet | Tracklets:
        if isinstance(index, slice):
            return Tracklets(super().__getitem__(index), self.dataset)
        return super().__getitem__(index)


@dataclass(frozen=True)
class Dataset:
    """Training tracklets, and the query and gallery tracklets of the test protocol.

    Attributes
    ----------
    name
        Cameras are numbered by each data set for itself; a model knows those of the data set of this name.
    root
        The folder that the tracklets' frames are relative to.
    train, query, gallery
        Each a `Tracklets`, whatever sequence they were made of.
    split
        Which split of the identities, where the protocol has several.
    """

    name: str
    root: Path
    train: tuple[Tracklet, ...]
    query: tuple[Tracklet, ...]
    gallery: tuple[Tracklet, ...]
    split: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        for part in ("train", "query", "gallery"):
            object.__setattr__(self, part, Tracklets(getattr(self, part), self))
        for part, tracklets in (("training", self.train), ("query", self.query), ("gallery", self.gallery)):
            repeated = [name for name, count in Counter(t.name for t in tracklets).items() if count > 1]
            if repeated:
                raise CsipError(f"{self.root}: {len(repeated)} {part} tracklet names appear twice, e.g. {repeated[0]}")
            empty = [t.name for t in tracklets if not t.frames]
            if empty:
                raise CsipError(f"{self.root}: {part} tracklet {empty[0]} has no frames")
        nobody = [t.name for t in self.query if t.pid <= DISTRACTOR]
        if nobody and is_labelled(self):
            raise CsipError(
                f"{self.root}: {len(nobody)} queries have no identity that could be found, e.g. {nobody[0]}; take them out "
                "of the query part"
            )

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


def is_labelled(dataset: Dataset) -> bool:
    """Whether anybody is known in a data set."""
    return bool(dataset.train) or any(t.pid != DISTRACTOR for t in dataset.query)


def is_image(name: str) -> bool:
    """Whether a file is a frame by its name."""
    # Asked of millions: a Path for each would take longer than the disk.
    return name[name.rfind(".") :].lower() in IMAGES


def is_other_picture(name: str) -> bool:
    """Whether a file is a picture by its name, but of a format that cannot be read."""
    return name[name.rfind(".") :].lower() in OTHER_PICTURES


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
