"""Sequences of skeletons, the data of skeleton-only re-identification: splits and windows."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from csip.errors import CsipError

# Metres from end to end of a body; a sensor that loses a foot may throw it a few metres away.
_SMALLEST, _LARGEST = 0.02, 8.0
_UNITS = {10: "decimetres", 100: "centimetres", 1000: "millimetres"}


@dataclass(frozen=True)
class SkeletonSequence:
    """One recording of one person: a walk, or a person standing.

    Attributes
    ----------
    name
        Unique in the data set.
    pid
        The person.
    joints
        (T, J, 3) float32, metres, camera axes (y down), not root-centred.
    cut
        Where the data set has already cut its windows: their length. A window then starts at a multiple of it. None where
        frames follow each other in time throughout.
    """

    name: str
    pid: int
    joints: np.ndarray
    cut: int | None = None


@dataclass(frozen=True)
class SkeletonDataset:
    """Training sequences, and the probe and gallery sequences of the test protocol; people may be in all three.

    Attributes
    ----------
    joint_set
        Name of the joint set of all sequences.
    protocol
        How the parts were made, for people.
    """

    name: str
    root: Path
    joint_set: str
    protocol: str
    train: tuple[SkeletonSequence, ...]
    probe: tuple[SkeletonSequence, ...]
    gallery: tuple[SkeletonSequence, ...]

    def __post_init__(self) -> None:
        parts = {"training": self.train, "probe": self.probe, "gallery": self.gallery}
        for part, sequences in parts.items():
            if not sequences:
                raise CsipError(f"{self.root}: there are no {part} sequences")
        repeated = [name for name, n in Counter(s.name for part in parts.values() for s in part).items() if n > 1]
        if repeated:
            raise CsipError(f"{self.root}: {len(repeated)} sequences appear twice, e.g. {repeated[0]}")


def from_sensor(joints: np.ndarray, count: int, source: str) -> np.ndarray:
    """Turn a depth sensor's joints (y up) into camera axes (y down), (T, `count`, 3) float32.

    Raises
    ------
    CsipError
        Another shape, no frames, numbers that are not finite, or bodies far larger or smaller than people in metres.
    """
    if joints.ndim != 3 or joints.shape[1:] != (count, 3):
        raise CsipError(f"{source}: expected joints of the shape (frames, {count}, 3), got {joints.shape}")
    if not len(joints):
        raise CsipError(f"{source}: no frames in it")
    with np.errstate(over="ignore"):
        joints = joints.astype(np.float32)
    if not np.isfinite(joints).all():
        bad = int((~np.isfinite(joints)).any(axis=(1, 2)).sum())
        raise CsipError(f"{source}: {bad} of {len(joints)} frames have coordinates that are not finite")
    size = float(np.median(np.linalg.norm(np.ptp(joints, axis=1), axis=1)))
    if size > _LARGEST:
        factor = min(_UNITS, key=lambda factor: abs(math.log(size / factor / 2)))
        raise CsipError(
            f"{source}: a body is {size:,.0f} units from end to end, expected about 2 metres; these look like {_UNITS[factor]}: "
            f"divide all coordinates by {factor}"
        )
    if 0 < size < _SMALLEST:
        raise CsipError(
            f"{source}: a body is {size:.2g} units from end to end, expected about 2 metres: multiply all coordinates by what "
            "one unit is in metres"
        )
    return joints * np.array([1, -1, 1], np.float32)


def random_split(
    sequences: Sequence[SkeletonSequence], seed: int, source: Path, gallery: int
) -> tuple[tuple[SkeletonSequence, ...], ...]:
    """Divide each person's sequences into training, probe and gallery by chance.

    Parameters
    ----------
    gallery
        Sequences of a person that go into the gallery; one where the person has fewer than four. One is the probe, the rest
        train.

    Returns
    -------
    tuple
        Training, probe, gallery.

    Raises
    ------
    CsipError
        A person has fewer than three sequences.
    """
    people: dict[int, list[SkeletonSequence]] = {}
    for sequence in sorted(sequences, key=lambda s: (s.pid, s.name)):
        people.setdefault(sequence.pid, []).append(sequence)
    random = np.random.default_rng(seed)
    train, probe, found = [], [], []
    for pid, own in people.items():
        if len(own) < 3:
            names = ", ".join(s.name for s in own)
            raise CsipError(
                f"{source}: person {pid} has {len(own)} sequence(s) ({names}); the split needs three of each person: one "
                "to train, one probe, one for the gallery"
            )
        order = [own[i] for i in random.permutation(len(own))]
        count = gallery if len(order) >= 4 else 1
        found += order[:count]
        probe.append(order[count])
        train += order[count + 1 :]
    return tuple(train), tuple(probe), tuple(found)


def hold_out_sequences(
    train: Sequence[SkeletonSequence], share: float
) -> tuple[tuple[SkeletonSequence, ...], tuple[SkeletonSequence, ...]]:
    """Take away from training what chooses the epoch.

    One whole sequence of each of a share of the people, spread evenly over those who have two or more. Where too few people
    have, the last part of every sequence instead, as large as the share.

    Returns
    -------
    tuple
        What trains, and what is held out; nothing is where `share` is 0.
    """
    if share == 0:
        return tuple(train), ()
    counts = Counter(s.pid for s in train)
    wanted = max(round(share * len(counts)), 1)
    able = sorted(pid for pid, count in counts.items() if count > 1)
    if len(able) >= wanted:
        people = {able[i] for i in np.linspace(0, len(able) - 1, wanted).round().astype(int)}
        last = {s.pid: s.name for s in train if s.pid in people}
        held = tuple(s for s in train if last.get(s.pid) == s.name)
        return tuple(s for s in train if last.get(s.pid) != s.name), held
    kept, held_parts = [], []
    for s in train:
        unit = s.cut or 1
        edge = round((1 - share) * len(s.joints) / unit) * unit
        if not 0 < edge < len(s.joints):
            kept.append(s)
            continue
        kept.append(replace(s, joints=s.joints[:edge]))
        held_parts.append(replace(s, name=f"{s.name} (end)", joints=s.joints[edge:]))
    return tuple(kept), tuple(held_parts)


def windows(sequences: Sequence[SkeletonSequence], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut sequences into consecutive windows that do not overlap; what is left over at the end is dropped.

    Returns
    -------
    ndarray, shape (W, frames, J, 3), float32
        The windows of the sequences, one sequence after the other.
    ndarray, shape (W,), int64
        Which sequence each is of.

    Raises
    ------
    CsipError
        A sequence is shorter than a window, or the data set has cut windows of another length.
    """
    parts, owners = [], []
    for row, s in enumerate(sequences):
        if s.cut not in (None, frames):
            raise CsipError(
                f"{s.name}: the data set holds windows of {s.cut} frames, but skeleton_training.frames is {frames}"
            )
        count = len(s.joints) // frames
        if not count:
            raise CsipError(f"{s.name}: {len(s.joints)} frames, too few for one window of {frames}")
        parts.append(s.joints[: count * frames].reshape(count, frames, *s.joints.shape[1:]))
        owners.append(np.full(count, row, dtype=np.int64))
    return np.concatenate(parts), np.concatenate(owners)


def fingerprint_sequences(sequences: Sequence[SkeletonSequence]) -> str:
    """Digest of names, people and joints."""
    digest = hashlib.sha256()
    for s in sequences:
        digest.update(f"{s.name}\0{s.pid}\0{s.cut}\0{s.joints.shape}\0".encode())
        digest.update(np.ascontiguousarray(s.joints).tobytes())
    return digest.hexdigest()[:16]
