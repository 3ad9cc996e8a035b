"""Your own people: one folder a person, a camera, and optionally a tracklet.

    root/PERSON/CAMERA/FRAME.jpg             one tracklet of this person at this camera
    root/PERSON/CAMERA/TRACKLET/FRAME.jpg    several
    root/train/PERSON/...  root/test/PERSON/...   where you decide who trains; otherwise a share of the people does

Frames are taken in the order of their names. Person and camera folders may have any name; they are numbered in sorted order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csip.data.tracklets import Dataset, Tracklet
from csip.errors import CsipError

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def load(root: Path, train_share: float = 0.5, seed: int = 0, name: str = "folder") -> Dataset:
    """Read the folders; no image is opened.

    Every test tracklet is a query, and the gallery is all of them: a query is ranked against the other cameras.

    Raises
    ------
    CsipError
        The root is missing, no person folder is in it, a folder is empty, or frames lie where a folder should.
    """
    root = Path(root)
    if not root.is_dir():
        raise CsipError(f"{root}: no such folder; expected {root}/PERSON/CAMERA/[TRACKLET/]FRAME.jpg")
    if (root / "train").is_dir() and (root / "test").is_dir():
        parts = {part: _folders(root / part) for part in ("train", "test")}
    else:
        people = _folders(root)
        order = np.random.default_rng(seed).permutation(len(people))
        cut = min(max(round(train_share * len(people)), 1), len(people) - 1)
        parts = {"train": [people[i] for i in sorted(order[:cut])], "test": [people[i] for i in sorted(order[cut:])]}
    for part, people in parts.items():
        if not people:
            raise CsipError(
                f"{root}: no person folders to {part} on; at least one for training and one for the test are needed"
            )
    pids = {path: pid for pid, path in enumerate(sorted(parts["train"] + parts["test"]), start=1)}
    names = sorted({camera.name for path in pids for camera in _folders(path)})
    cameras = {camera: number for number, camera in enumerate(names, start=1)}

    def read(people: list[Path]) -> tuple[Tracklet, ...]:
        return tuple(t for person in people for t in _person(root, person, pids[person], cameras))

    test = read(parts["test"])
    return Dataset(name, root, read(parts["train"]), test, test)


def _person(root: Path, person: Path, pid: int, cameras: dict[str, int]) -> list[Tracklet]:
    tracklets = []
    for camera in _folders(person):
        for folder in _folders(camera) or [camera]:
            frames = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGES)
            if not frames:
                raise CsipError(f"{folder}: no frames ({', '.join(sorted(IMAGES))}) in it")
            paths = tuple(f.relative_to(root).as_posix() for f in frames)
            tracklets.append(Tracklet(folder.relative_to(root).as_posix(), pid, cameras[camera.name], paths))
    if not tracklets:
        raise CsipError(f"{person}: no camera folders in it; expected {person.name}/CAMERA/[TRACKLET/]FRAME.jpg")
    return tracklets


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
