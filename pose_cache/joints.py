"""Joint sets as data, and conversions between them.

A joint set names its joints in order and says which are connected by bones, which are each other's mirror
image, and which is the root. Axes everywhere: camera axes, x right, y down, z forward (away from the camera).
"Left" and "right" are the person's own.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from pose_cache.errors import PoseCacheError


@dataclass(frozen=True)
class JointSet:
    """An ordered set of joints.

    Attributes
    ----------
    name : str
        The name under which `joint_set` finds it and the cache stores it.
    joints : tuple of str
        Joint names, in order.
    bones : tuple of (int, int)
        The tree of bones, parent first.
    mirror_pairs : tuple of (int, int)
        Joints that change places when the person is mirrored.
    root : int
        The joint that poses are centred on.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    mirror_pairs: tuple[tuple[int, int], ...]
    root: int

    @property
    def size(self) -> int:
        """Number of joints, J."""
        return len(self.joints)

    @property
    def mirror_order(self) -> np.ndarray:
        """The permutation (J,) int64 that swaps left and right: `points[..., order, :]`."""
        order = np.arange(self.size)
        for a, b in self.mirror_pairs:
            order[[a, b]] = b, a
        return order


def _pairs(joints: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Every "left_x" with its "right_x", the lower index first."""
    found = []
    for index, name in enumerate(joints):
        if name.startswith("left_"):
            other = joints.index("right_" + name.removeprefix("left_"))
            found.append((min(index, other), max(index, other)))
    return tuple(sorted(found))


def _limb(*joints: int) -> tuple[tuple[int, int], ...]:
    """Bones of a chain of joints."""
    return tuple(itertools.pairwise(joints))


def _joint_set(name: str, joints: str, bones: tuple[tuple[int, int], ...], root: int) -> JointSet:
    names = tuple(joints.split())
    return JointSet(name, names, bones, _pairs(names), root)


H36M17: Final = _joint_set(
    "h36m17",
    "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head "
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist",
    _limb(0, 1, 2, 3) + _limb(0, 4, 5, 6) + _limb(0, 7, 8, 9, 10) + _limb(8, 11, 12, 13) + _limb(8, 14, 15, 16),
    root=0,
)
"""Human3.6M, 17 joints: the order of the method and of MMPose's lifters."""

# COCO has no pelvis; its tree hangs from the nose, and hips hang from their shoulders.
COCO17: Final = _joint_set(
    "coco17",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle",
    _limb(0, 1, 3)
    + _limb(0, 2, 4)
    + _limb(0, 5, 7, 9)
    + _limb(0, 6, 8, 10)
    + _limb(5, 11, 13, 15)
    + _limb(6, 12, 14, 16),
    root=0,
)
"""COCO, 17 keypoints: the order of MMPose's 2D body models."""

KINECT20: Final = _joint_set(
    "kinect20",
    "hip_center spine shoulder_center head left_shoulder left_elbow left_wrist left_hand "
    "right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot "
    "right_hip right_knee right_ankle right_foot",
    _limb(0, 1, 2, 3)
    + _limb(2, 4, 5, 6, 7)
    + _limb(2, 8, 9, 10, 11)
    + _limb(0, 12, 13, 14, 15)
    + _limb(0, 16, 17, 18, 19),
    root=0,
)
"""Kinect v1, 20 joints."""

KINECT25: Final = _joint_set(
    "kinect25",
    "spine_base spine_mid neck head left_shoulder left_elbow left_wrist left_hand "
    "right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot "
    "right_hip right_knee right_ankle right_foot spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb",
    _limb(0, 1, 20, 2, 3)
    + _limb(20, 4, 5, 6, 7, 21)
    + _limb(6, 22)
    + _limb(20, 8, 9, 10, 11, 23)
    + _limb(10, 24)
    + _limb(0, 12, 13, 14, 15)
    + _limb(0, 16, 17, 18, 19),
    root=0,
)
"""Kinect v2, 25 joints."""

_ALL: Final[Mapping[str, JointSet]] = {joints.name: joints for joints in (H36M17, COCO17, KINECT20, KINECT25)}


def joint_set(name: str) -> JointSet:
    """Return the joint set of that name.

    Raises
    ------
    PoseCacheError
        If there is none; the message lists the names.
    """
    if name not in _ALL:
        raise PoseCacheError(f"unknown joint set {name!r}: expected one of {', '.join(_ALL)}")
    return _ALL[name]


def mirror(points: np.ndarray, joints: JointSet) -> np.ndarray:
    """Mirror poses left to right: negate x and swap the mirror pairs.

    Parameters
    ----------
    points : np.ndarray
        (..., J, D), x first; centred on x = 0 (root-centred 3D poses are).
    joints : JointSet
        The set that the joints axis is in.

    Returns
    -------
    np.ndarray
        A new array of the same shape and type.
    """
    _check_joints(points, joints)
    mirrored = points[..., joints.mirror_order, :]
    mirrored[..., 0] *= -1
    return mirrored


def coco_to_h36m(keypoints: np.ndarray) -> np.ndarray:
    """Convert COCO keypoints to Human3.6M joints, as MMPose's lifters expect them.

    Pelvis and thorax are the middles of the hips and the shoulders, the spine is between them, the head is the
    middle of the eyes and the neck is the nose (MMPose, `convert_keypoint_definition`).

    Parameters
    ----------
    keypoints : np.ndarray
        (..., 17, C); every channel is converted alike, a score too.

    Returns
    -------
    np.ndarray
        (..., 17, C), of the same type.
    """
    _check_joints(keypoints, COCO17)
    out = np.empty_like(keypoints)
    taken = [1, 2, 3, 4, 5, 6, 9, 11, 12, 13, 14, 15, 16]
    out[..., taken, :] = keypoints[..., [12, 14, 16, 11, 13, 15, 0, 5, 7, 9, 6, 8, 10], :]
    out[..., 0, :] = (keypoints[..., 11, :] + keypoints[..., 12, :]) / 2
    out[..., 8, :] = (keypoints[..., 5, :] + keypoints[..., 6, :]) / 2
    out[..., 7, :] = (out[..., 0, :] + out[..., 8, :]) / 2
    out[..., 10, :] = (keypoints[..., 1, :] + keypoints[..., 2, :]) / 2
    return out


def kinect20_to_h36m(points: np.ndarray) -> np.ndarray:
    """Convert Kinect v1 joints to Human3.6M joints; the axes stay as they are.

    Limbs, pelvis and head are taken over. Kinect's shoulder centre lies at the neck and its spine just above
    the hips, so thorax, spine and neck are interpolated: the thorax is the middle of the shoulders (as in
    `coco_to_h36m`), the spine is between pelvis and thorax, the neck between shoulder centre and head.

    Parameters
    ----------
    points : np.ndarray
        (..., 20, C).

    Returns
    -------
    np.ndarray
        (..., 17, C), of the same type.
    """
    _check_joints(points, KINECT20)
    out = np.empty_like(points, shape=(*points.shape[:-2], H36M17.size, points.shape[-1]))
    taken = [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 16]
    out[..., taken, :] = points[..., [0, 16, 17, 18, 12, 13, 14, 3, 4, 5, 6, 8, 9, 10], :]
    out[..., 8, :] = (points[..., 4, :] + points[..., 8, :]) / 2
    out[..., 7, :] = (out[..., 0, :] + out[..., 8, :]) / 2
    out[..., 9, :] = (points[..., 2, :] + points[..., 3, :]) / 2
    return out


def _check_joints(points: np.ndarray, joints: JointSet) -> None:
    if points.ndim < 2 or points.shape[-2] != joints.size:
        raise PoseCacheError(
            f"expected points of joint set {joints.name}, (..., {joints.size}, channels), "
            f"but got the shape {points.shape}"
        )
