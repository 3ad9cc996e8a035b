"""KGBD, the Kinect Gait Biometry Dataset (Andersson and Araujo, AAAI 2015): 164 people, 822 walks, Kinect v1.

    root/PersonNNN/K.txt      a walk: lines "Joint;x;y;z" in metres, 20 per frame, always in the order of `FILE_ORDER`
    root/kgbd.npz             the same as arrays PersonNNN_K, (frames, 20, 3): metres as floats, or int16 in units of 0.1 mm
                              measured from (0, 0, 2.2)

The folders may also lie in ``root/Data`` or in ``root/kinect gait raw dataset``, as they were distributed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from csip.data.numerals import parse_number
from csip.data.sequences import SkeletonDataset, SkeletonSequence, from_sensor, random_split
from csip.errors import CsipError
from pose_cache.arrays import read_npz
from pose_cache.errors import PoseCacheError
from pose_cache.joints import KINECT20

FILE_ORDER = (
    "Head", "Shoulder-Center", "Shoulder-Right", "Shoulder-Left", "Elbow-Right", "Elbow-Left", "Wrist-Right", "Wrist-Left",
    "Hand-Right", "Hand-Left", "Spine", "Hip-centro", "Hip-Right", "Hip-Left", "Knee-Right", "Knee-Left", "Ankle-Right",
    "Ankle-Left", "Foot-Right", "Foot-Left",
)  # fmt: skip
# The file's right limbs take the places of Kinect's first, "left" ones: the sensor's picture is a mirror.
TO_KINECT = (11, 10, 1, 0, 2, 4, 6, 8, 3, 5, 7, 9, 12, 14, 16, 18, 13, 15, 17, 19)
UNIT, ORIGIN = 1e-4, np.array([0, 0, 2.2], np.float32)
GALLERY_WALKS = 2
_FOLDERS = ("", "Data", "kinect gait raw dataset")


def load(root: Path, seed: int, name: str = "kgbd") -> SkeletonDataset:
    """Read all walks and split each person's by chance: 2 gallery, 1 probe, the rest train (1, 1, rest below 4 walks).

    Raises
    ------
    CsipError
        There are no walks, one cannot be read, is there twice, or has another shape than documented.
    """
    root = Path(root)
    archives = [path for path in (root, root / "kgbd.npz") if path.is_file()]
    walks: dict[str, SkeletonSequence] = {}
    for walk in _from_archive(archives[0]) if archives else _from_text(root):
        if walk.name in walks:
            raise CsipError(f"{root}: walk {walk.name} is there twice")
        walks[walk.name] = walk
    if not walks:
        raise CsipError(f"{root}: no walks; expected kgbd.npz or PersonNNN/K.txt in it")
    train, probe, gallery = random_split(list(walks.values()), seed, root, GALLERY_WALKS)
    protocol = f"split {seed}: of each person {GALLERY_WALKS} walks gallery, 1 probe, the rest train"
    return SkeletonDataset(name, root, KINECT20.name, protocol, train, probe, gallery)


def _from_archive(path: Path) -> Iterator[SkeletonSequence]:
    try:
        arrays = read_npz(path)
    except PoseCacheError as error:
        raise CsipError(str(error)) from error
    for key, stored in arrays.items():
        match = re.fullmatch(r"(?i)person(\d+)_(\d+)", key)
        if match is None:
            raise CsipError(f"{path}: array {key!r}: expected names PersonNNN_K")
        if stored.dtype.kind not in "iuf" or stored.ndim != 3 or stored.shape[2] != 3:
            raise CsipError(
                f"{path}: array {key!r} has the shape {stored.shape} of {stored.dtype}, expected (frames, 20, 3)"
            )
        joints = stored.astype(np.float32)
        if stored.dtype == np.int16:
            joints = joints * UNIT + ORIGIN
        yield _walk(int(match[1]), int(match[2]), joints, f"{path}: {key}")


def _from_text(root: Path) -> Iterator[SkeletonSequence]:
    if not root.is_dir():
        raise CsipError(f"{root}: no such folder; expected kgbd.npz or PersonNNN/K.txt in it")
    for base in (root / folder for folder in _FOLDERS):
        for person in sorted(path for path in base.glob("*") if path.is_dir() and path.name not in _FOLDERS):
            number = re.fullmatch(r"(?i)person[ _-]?(\d+)", person.name)
            files = sorted(path for path in person.iterdir() if path.suffix.lower() == ".txt")
            if number is None:
                if files or person.name.lower().startswith("person"):
                    raise CsipError(f"{person}: expected a folder named PersonNNN")
                continue
            if not files:
                raise CsipError(f"{person}: no walks (1.txt, 2.txt, ...) in it")
            for file in files:
                if not file.stem.isdecimal():
                    raise CsipError(f"{file}: expected a walk's number, as in 1.txt")
                yield _walk(int(number[1]), int(file.stem), read_text(file), str(file))


def read_text(file: Path) -> np.ndarray:
    """Read one walk of the original distribution, (frames, 20, 3) metres, in the order of `FILE_ORDER`.

    Raises
    ------
    CsipError
        A line is not "Joint;x;y;z", a joint is not the one whose turn it is, or the last frame is cut short.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.strip().split(";")
        expected = FILE_ORDER[len(rows) % len(FILE_ORDER)]
        if fields[0] != expected:
            raise CsipError(f"{file}, line {number}: expected joint {expected}, got {fields[0][:40]!r}")
        try:
            rows.append([parse_number(value.replace(",", ".")) for value in fields[1:4]])
        except ValueError as error:
            raise CsipError(f"{file}, line {number}: expected {expected};x;y;z, got {line[:60]!r}") from error
        if len(rows[-1]) != 3:
            raise CsipError(f"{file}, line {number}: expected {expected};x;y;z, got {line[:60]!r}")
    if len(rows) % len(FILE_ORDER):
        raise CsipError(
            f"{file}: {len(rows)} joints are no whole number of frames of {len(FILE_ORDER)}; the file is cut short"
        )
    return np.array(rows, np.float32).reshape(-1, len(FILE_ORDER), 3)


def _walk(person: int, number: int, joints: np.ndarray, source: str) -> SkeletonSequence:
    joints = from_sensor(joints, KINECT20.size, source)[:, TO_KINECT]
    return SkeletonSequence(f"Person{person:03d}_{number}", person, joints)
