"""The skeletons of a list of tracklets, in memory, paired with their frames by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csip.data.dataset import Dataset, Tracklet, is_labelled
from csip.errors import CsipError
from pose_cache.joints import JointSet
from pose_cache.plan import FrameSequence
from pose_cache.store import SkeletonStore

SPLITS = ("train", "query", "gallery")


class Skeletons:
    """Root-centred joints of tracklets, indexed like the tracklets they were made for.

    Attributes
    ----------
    joint_set
        What the joints are.
    joints
        One (T, J, 3) float32 array a tracklet: camera axes, the cache's unit, the root joint at the origin.
    valid
        One (T,) bool array a tracklet; where False the joints are zero. True also for interpolated frames.
    """

    def __init__(self, joint_set: JointSet, joints: list[np.ndarray], valid: list[np.ndarray]) -> None:
        self.joint_set, self.joints, self.valid = joint_set, joints, valid

    def subset(self, tracklets: Sequence[int]) -> Skeletons:
        """Return the skeletons of some of the tracklets."""
        return Skeletons(self.joint_set, [self.joints[i] for i in tracklets], [self.valid[i] for i in tracklets])

    def of_others(self, labels: np.ndarray, seed: int) -> Skeletons:
        """Return a control: every tracklet with the skeletons of one of another identity, that one the same for all of it.

        Parameters
        ----------
        labels : ndarray
            (tracklets,) identities, 0 to N - 1. Where the other's tracklet is shorter, it begins again.
        seed
            Of who gets whose.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(labels.max() + 1)
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)  # one circle through all: nobody keeps their own
        sources = [int(rng.choice(np.flatnonzero(labels == other[label]))) for label in labels]
        frames = [np.arange(len(own)) % len(self.valid[i]) for own, i in zip(self.valid, sources, strict=True)]
        return Skeletons(
            self.joint_set,
            [self.joints[i][rows] for i, rows in zip(sources, frames, strict=True)],
            [self.valid[i][rows] for i, rows in zip(sources, frames, strict=True)],
        )

    def known(self) -> np.ndarray:
        """Return (tracklets,) bool: which have a skeleton in any frame."""
        return np.array([valid.any() for valid in self.valid])


def load_skeletons(path: Path, tracklets: Sequence[Tracklet], max_gap: int = 0) -> Skeletons:
    """Read the skeletons of these tracklets from a cache.

    Frames and skeletons pair by frame name; a frame that the cache does not have is an invalid one.

    Parameters
    ----------
    path
        The cache.
    tracklets
        Whose skeletons to read.
    max_gap
        Gaps of at most this many frames are filled, see `fill_gaps`.

    Raises
    ------
    CsipError
        A tracklet is not in the cache at all, or no frame of any tracklet has a pose.
    """
    joints, valid = [], []
    with SkeletonStore(path) as store:
        joint_set = store.joint_set
        root = joint_set.root
        missing = [t.name for t in tracklets if t.name not in store]
        if missing:
            raise CsipError(
                f"{path}: no skeletons for {len(missing)} of {len(tracklets)} tracklets, e.g. {missing[0]}; "
                "the cache was made from other data: make this data set's",
                parameter="skeletons",
            )
        for tracklet in tracklets:
            stored = store.read(tracklet.name)
            row = {frame: i for i, frame in enumerate(stored.frames)}
            rows = np.array([row.get(frame, -1) for frame in tracklet.frames])
            seen = (rows >= 0) & stored.valid[rows]
            if not np.isfinite(stored.joints[stored.valid]).all():
                raise CsipError(
                    f"{path}: tracklet {tracklet.name} has joints that are not finite where its pose is valid; the cache is "
                    "damaged",
                    parameter="damaged_skeletons",
                )
            centred = stored.joints[rows] - stored.joints[rows][:, root : root + 1]
            points, known = fill_gaps(np.where(seen[:, None, None], centred, 0).astype(np.float32), seen, max_gap)
            joints.append(points)
            valid.append(known)
    if not any(v.any() for v in valid):
        raise CsipError(f"{path}: no frame of the {len(tracklets)} tracklets has a valid skeleton")
    return Skeletons(joint_set, joints, valid)


def fill_gaps(joints: np.ndarray, valid: np.ndarray, max_gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate frames without a pose, linearly in time, where valid ones are near on both sides.

    Parameters
    ----------
    joints : ndarray, shape (T, J, 3), float32
        Root-centred, consecutive frames.
    valid : ndarray, shape (T,), bool
        Which frames have a pose.
    max_gap
        Frames of the longest gap that is filled. Longer ones, and the frames before the first pose and after the last,
        stay as they are: a person moves on in ways that a straight line, or none, does not tell.

    Returns
    -------
    joints, valid
        Of the same shapes, new where anything changed.
    """
    known = np.flatnonzero(valid)
    missing = np.diff(known) - 1
    gaps = np.flatnonzero((missing > 0) & (missing <= max_gap))
    if not len(gaps):
        return joints, valid
    joints, valid = joints.copy(), valid.copy()
    for first, last in zip(known[gaps], known[gaps + 1], strict=True):
        share = (np.arange(1, last - first, dtype=np.float32) / (last - first))[:, None, None]
        joints[first + 1 : last] = (1 - share) * joints[first] + share * joints[last]
        valid[first + 1 : last] = True
    return joints, valid


def splits_for(dataset: Dataset, test_too: bool) -> Sequence[str]:
    """Return whose skeletons are wanted: those that train; everybody where asked for, or where nobody is known yet."""
    return SPLITS if test_too or not is_labelled(dataset) else ("train",)


def frame_sequences(dataset: Dataset, splits: Sequence[str]) -> list[FrameSequence]:
    """List the tracklets of some splits, each once (a query may be in the gallery, too).

    Raises
    ------
    CsipError
        A split has another name than the three.
    """
    if unknown := [split for split in splits if split not in SPLITS]:
        raise CsipError(f"unknown split {unknown[0]!r}: expected some of {', '.join(SPLITS)}")
    tracklets: dict[str, Tracklet] = {t.name: t for split in splits for t in getattr(dataset, split)}
    return [FrameSequence(t.name, t.frames) for t in tracklets.values()]
