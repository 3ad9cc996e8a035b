"""A contact sheet: crops with their 2D keypoints, and their 3D skeletons from two sides."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.images import read_frame
from pose_cache.joints import COCO17, JointSet
from pose_cache.store import SkeletonStore, TrackletSkeletons

_HEIGHT = 224
_VIEW = 150
_HEADER = 22
_GAP = 6
_WHITE = (255, 255, 255)
_GREY = (120, 120, 120)
# BGR, as OpenCV draws.
_COLOURS = {"left": (200, 90, 0), "right": (40, 40, 220), "middle": (40, 140, 40)}


def draw_contact_sheet(
    store: SkeletonStore, root: Path, out: Path, *, tracklets: int = 6, frames: int = 4, names: Sequence[str] = ()
) -> Path:
    """Draw frames of some tracklets with their skeletons into a PNG file.

    A row is a tracklet. For each of its frames there is the crop with the 2D keypoints, the 3D skeleton from the front (x to
    the right, y down, as the camera sees it) and from the side (z, away from the camera, to the right). The person's
    right side is red, the left side blue. Of a frame without a pose the views stay empty and the keypoints, if any were found,
    are grey.

    Parameters
    ----------
    store : SkeletonStore
        The skeletons.
    root : Path
        Folder that the frames' paths are relative to.
    out : Path
        The picture to make.
    tracklets, frames : int
        How many, evenly spread over the cache and over each tracklet.
    names : sequence of str
        These tracklets instead.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    PoseCacheError
        If the cache is empty or the picture cannot be written.
    """
    if not len(store):
        raise PoseCacheError(f"{store.path} has no tracklets to draw")
    spread = np.unique(np.linspace(0, len(store) - 1, tracklets).round().astype(int))
    chosen = list(names) or [store.names[index] for index in spread]
    rows = [_draw_row(store.read(name), root, store.joint_set, frames) for name in chosen]
    width = max(row.shape[1] for row in rows)
    header = _label(f"red: the person's right, blue: left | crop, front, side | {store.provenance.estimator}", width)
    sheet = np.vstack(
        [header, *(np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows)]
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), sheet):
        raise PoseCacheError(f"cannot write the picture {out}; its name must end in .png or .jpg")
    return out


def _draw_row(tracklet: TrackletSkeletons, root: Path, joints: JointSet, frames: int) -> np.ndarray:
    rows = np.unique(np.linspace(0, len(tracklet.frames) - 1, frames).round().astype(int))
    centred = tracklet.joints - tracklet.joints[:, joints.root : joints.root + 1]
    reach = np.abs(centred[tracklet.valid]).max() if tracklet.valid.any() else 1.0
    cells = []
    for row in rows:
        cells += [_draw_crop(tracklet, row, root), np.full((_HEIGHT, _GAP, 3), 255, np.uint8)]
        for axis in (0, 2):
            cells.append(_draw_view(centred[row][:, [axis, 1]], joints, float(reach), bool(tracklet.valid[row])))
    strip = np.hstack(cells)
    return np.vstack([_label(f"{tracklet.name}  frames {', '.join(map(str, rows))}", strip.shape[1]), strip])


def _draw_crop(tracklet: TrackletSkeletons, row: int, root: Path) -> np.ndarray:
    """Draw the crop at the sheet's height with the 2D keypoints, if there are any."""
    crop = read_frame(root / tracklet.frames[row])
    if crop is None:
        return _label("not readable", _HEIGHT // 2, _HEIGHT)
    scale = _HEIGHT / crop.shape[0]
    picture = cv2.resize(crop, (max(1, round(crop.shape[1] * scale)), _HEIGHT), interpolation=cv2.INTER_AREA)
    keypoints = tracklet.keypoints2d[row]
    if len(keypoints) == COCO17.size and keypoints.any():
        _draw_bones(picture, (keypoints[:, :2] + 0.5) * scale, COCO17, None if tracklet.valid[row] else _GREY)
    return picture


def _draw_view(points: np.ndarray, joints: JointSet, reach: float, valid: bool) -> np.ndarray:
    """Draw root-centred points (J, 2); `reach` is the length from the middle to the edge."""
    if not valid:
        return _label("no pose", _VIEW, _HEIGHT)
    picture = np.full((_HEIGHT, _VIEW, 3), 255, np.uint8)
    scale = (_HEIGHT / 2 - 8) / max(reach, 1e-6)
    _draw_bones(picture, points * scale + [_VIEW / 2, _HEIGHT / 2], joints)
    return picture


def _draw_bones(
    picture: np.ndarray, points: np.ndarray, joints: JointSet, colour: tuple[int, int, int] | None = None
) -> None:
    """Draw bones and joints, in one colour or in those of the sides."""
    # Four more bits of position than pixels have: thin lines stay smooth.
    fixed = np.clip(points * 16, -(2**20), 2**20).round().astype(int)
    for a, b in joints.bones:
        side = colour or _colour(joints.joints[b], joints.joints[a])
        cv2.line(picture, fixed[a].tolist(), fixed[b].tolist(), side, 2, cv2.LINE_AA, shift=4)
    for name, point in zip(joints.joints, fixed, strict=True):
        cv2.circle(picture, point.tolist(), 40, colour or _colour(name, name), -1, cv2.LINE_AA, shift=4)


def _colour(name: str, other: str) -> tuple[int, int, int]:
    for side in ("left", "right"):
        if name.startswith(side) or other.startswith(side):
            return _COLOURS[side]
    return _COLOURS["middle"]


def _label(text: str, width: int, height: int = _HEADER) -> np.ndarray:
    picture = np.full((height, width, 3), _WHITE, np.uint8)
    cv2.putText(picture, text, (4, height // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _GREY, 1, cv2.LINE_AA)
    return picture
