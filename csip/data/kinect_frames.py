"""BIWI RGBD-ID, IAS-Lab RGBD-ID and KS20: one text file per frame, one comma-separated line per joint.

Each line begins with ``id,x,y,z`` in metres; BIWI and IAS-Lab go on with ``x2d,y2d,TrackingState,QualityFlag,...``, where
state 0 is a joint that was not tracked: such frames are left out, as are frames without a skeleton (an empty file).

    BIWI      root/Training/NNN/*skel.txt   root/Testing/Still/NNN/*skel.txt   root/Testing/Walking/NNN/*skel.txt
    IAS-Lab   root/Training/PERSON/*skel.txt   root/TestingA/PERSON/*skel.txt   root/TestingB/PERSON/*skel.txt
    KS20      root/{frontal,left_diagonal,left_lateral,right_diagonal,right_lateral}/gcN_bodyP_TIME....txt

Frames are in the order of their names (KS20: of their time). IAS-Lab's names of people are the same in its three folders.
KS20 is distributed as .mat files; these are its text files as those who publish on it convert and pass them on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from csip.data.names import natural_order
from csip.data.numerals import parse_number
from csip.data.sequences import SkeletonDataset, SkeletonSequence, from_sensor
from csip.errors import CsipError
from pose_cache.joints import KINECT20, KINECT25, JointSet

BIWI = {"Still": "Testing/Still", "Walking": "Testing/Walking"}
IAS = {"A": "TestingA", "B": "TestingB"}
KS20_VIEWS = ("frontal", "left_diagonal", "left_lateral", "right_diagonal", "right_lateral")
_KS20_NAME = re.compile(r"(gc\d+)_body(\d+)_(\d+)")


def load_biwi(root: Path, probe: str | None = None, name: str = "biwi") -> SkeletonDataset:
    """Read BIWI: `probe` is Still (the default), ranked against Walking, or Walking, ranked against Still.

    Raises
    ------
    CsipError
        A folder is missing or empty, a file is broken, or `probe` is neither.
    """
    return _two_tests(Path(root), BIWI, probe, name)


def load_ias(root: Path, probe: str | None = None, name: str = "ias") -> SkeletonDataset:
    """Read IAS-Lab: `probe` is A (the default), ranked against B, or B, ranked against A.

    Raises
    ------
    CsipError
        As of `load_biwi`.
    """
    return _two_tests(Path(root), IAS, probe, name)


def load_ks20(root: Path, seed: int, name: str = "ks20") -> SkeletonDataset:
    """Read KS20 (20 people, 5 views, 3 walks a view) and split each person's walks by chance.

    Of each person one walk, in all views, is the gallery, one the probe, and the rest train.

    Raises
    ------
    CsipError
        A view's folder is missing, a file is broken or has another name, or a person has fewer than three walks.
    """
    root = Path(root)
    people: dict[int, dict[str, list[SkeletonSequence]]] = {}
    for view in KS20_VIEWS:
        for walk, sequence in _view(_folder(root / view, "a folder of frames gcN_bodyP_TIME.txt")):
            people.setdefault(sequence.pid, {}).setdefault(walk, []).append(sequence)
    random = np.random.default_rng(seed)
    parts: tuple[list[SkeletonSequence], ...] = ([], [], [])
    for pid, walks in sorted(people.items()):
        if len(walks) < 3:
            raise CsipError(
                f"{root}: person {pid} has {len(walks)} walk(s) ({', '.join(sorted(walks))}); the split needs three: gallery, "
                "probe, training"
            )
        order = [sorted(walks)[i] for i in random.permutation(len(walks))]
        for place, walk in enumerate(order):
            parts[(2, 1, 0)[min(place, 2)]].extend(walks[walk])
    protocol = f"split {seed}: of each person 1 walk gallery, 1 probe, the rest train, all views"
    train, probe, gallery = (tuple(part) for part in parts)
    return SkeletonDataset(name, root, KINECT25.name, protocol, train, probe, gallery)


def _view(folder: Path) -> Iterator[tuple[str, SkeletonSequence]]:
    """Read the walks of one view, each with its walk's name (gc1, gc2, ...)."""
    walks: dict[tuple[int, str], dict[int, Path]] = {}
    for file in sorted(folder.glob("*.txt")):
        match = _KS20_NAME.match(file.stem)
        if match is None:
            raise CsipError(f"{file}: expected a name like gc1_body7_000123.txt")
        frames = walks.setdefault((int(match[2]), match[1]), {})
        if int(match[3]) in frames:
            raise CsipError(f"{file} and {frames[int(match[3])].name} are the same frame of the same walk")
        frames[int(match[3])] = file
    if not walks:
        raise CsipError(f"{folder}: no frames (gcN_bodyP_TIME.txt) in it")
    for (pid, walk), frames in sorted(walks.items()):
        read = [_read_frame(file, KINECT25, tracking=False) for _, file in sorted(frames.items())]
        yield walk, _sequence(f"{folder.name}/{walk}_body{pid}", pid, read, KINECT25, folder)


def _two_tests(root: Path, tests: Mapping[str, str], probe: str | None, name: str) -> SkeletonDataset:
    probe = probe or next(iter(tests))
    if probe not in tests:
        raise CsipError(f"dataset.probe is {probe!r}, expected one of {', '.join(tests)}")
    other = next(part for part in tests if part != probe)
    numbers = _numbers([root / "Training", *(root / folder for folder in tests.values())])
    protocol = f"train Training, probe {probe} against gallery {other}"
    parts = [_people(root, folder, numbers) for folder in ("Training", tests[probe], tests[other])]
    return SkeletonDataset(name, root, KINECT20.name, protocol, *parts)


def _numbers(folders: list[Path]) -> dict[str, int]:
    """Give people numbers: by their folder's name where all are numbers, otherwise by its place among all names."""
    names = {person.name for folder in folders for person in _person_folders(folder)}
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def _people(root: Path, folder: str, numbers: Mapping[str, int]) -> tuple[SkeletonSequence, ...]:
    sequences = []
    for person in _person_folders(root / folder):
        files = sorted(person.glob("*skel.txt"), key=lambda file: natural_order(file.name))
        if not files:
            raise CsipError(f"{person}: no frames (*skel.txt) in it")
        frames = [_read_frame(file, KINECT20, tracking=True) for file in files]
        sequences.append(_sequence(f"{folder}/{person.name}", numbers[person.name], frames, KINECT20, person))
    return tuple(sequences)


def _person_folders(folder: Path) -> list[Path]:
    people = sorted(p for p in _folder(folder, "a folder for each person").iterdir() if p.is_dir())
    if not people:
        raise CsipError(f"{folder}: no folders of people in it")
    return people


def _folder(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise CsipError(f"{path}: missing; expected {what}")
    return path


def _read_frame(file: Path, joints: JointSet, tracking: bool) -> np.ndarray | None:
    """Read the joints of a frame, (J, 3); None where there is no skeleton or a joint was not tracked."""
    lines = file.read_text("utf-8-sig", errors="replace").split()
    if not lines:
        return None
    if len(lines) < joints.size:
        raise CsipError(f"{file}: {len(lines)} joints, expected {joints.size}; the file is cut short")
    if len(lines) > joints.size and len(lines) % joints.size == 0:
        raise CsipError(
            f"{file}: {len(lines)} joints, expected {joints.size}: these are {len(lines) // joints.size} skeletons; keep the "
            "person's"
        )
    points = np.empty((joints.size, 3), np.float32)
    for row, line in enumerate(lines[: joints.size]):
        fields = line.split(",")
        try:
            points[row] = [parse_number(value) for value in fields[1:4]]
            if tracking and parse_number(fields[6]) == 0:
                return None
        except (ValueError, IndexError) as error:
            form = "id,x,y,z,x2d,y2d,TrackingState,..." if tracking else "id,x,y,z"
            raise CsipError(f"{file}, line {row + 1}: expected {form}, got {line[:60]!r}") from error
    return points


def _sequence(name: str, pid: int, frames: list[np.ndarray | None], joints: JointSet, source: Path) -> SkeletonSequence:
    kept = [frame for frame in frames if frame is not None]
    if not kept:
        raise CsipError(f"{source}: none of the {len(frames)} frames of {name} has a tracked skeleton")
    return SkeletonSequence(name, pid, from_sensor(np.stack(kept), joints.size, f"{source}: {name}"))
