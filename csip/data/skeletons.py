"""The skeletons of a list of tracklets, in memory, paired with their frames by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csip.data.tracklets import Tracklet
from csip.errors import CsipError
from pose_cache.joints import JointSet
from pose_cache.store import SkeletonStore


class Skeletons:
    """Root-centred joints of tracklets, indexed like the tracklets they were made for.

    Attributes
    ----------
    joint_set
        What the joints are.
    joints
        One (T, J, 3) float32 array a tracklet: camera axes, the cache's unit, the root joint at the origin.
    valid
        One (T,) bool array a tracklet; where False the joints are zero.
    """

    def __init__(self, joint_set: JointSet, joints: list[np.ndarray], valid: list[np.ndarray]) -> None:
        self.joint_set, self.joints, self.valid = joint_set, joints, valid

    def clip(self, tracklet: int, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return joints (T, J, 3) and valid (T,) of the chosen frames of one tracklet."""
        return self.joints[tracklet][frames], self.valid[tracklet][frames]

    def scale(self) -> float:
        """Root mean square coordinate over all valid frames: what makes metres and pixels comparable."""
        total = sum(float(np.square(j, dtype=np.float64).sum()) for j in self.joints)
        count = sum(int(v.sum()) for v in self.valid) * self.joint_set.size * 3
        return float(np.sqrt(total / count))


def load_skeletons(path: Path, tracklets: Sequence[Tracklet]) -> Skeletons:
    """Read the skeletons of these tracklets from a cache.

    Frames and skeletons pair by frame name; a frame that the cache does not have is an invalid one.

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
                "the cache was made from other data: run `csip skeletons` for this data set"
            )
        for tracklet in tracklets:
            stored = store.read(tracklet.name)
            row = {frame: i for i, frame in enumerate(stored.frames)}
            rows = np.array([row.get(frame, -1) for frame in tracklet.frames])
            seen = (rows >= 0) & stored.valid[rows]
            centred = stored.joints[rows] - stored.joints[rows][:, root : root + 1]
            joints.append(np.where(seen[:, None, None], centred, 0).astype(np.float32))
            valid.append(seen)
    if not any(v.any() for v in valid):
        raise CsipError(f"{path}: no frame of the {len(tracklets)} tracklets has a valid skeleton")
    return Skeletons(joint_set, joints, valid)
