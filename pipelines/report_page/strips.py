"""Small pictures of tracklets: a few frames side by side, which the page shows one after the other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from csip.data.dataset import Tracklet
from csip.errors import CsipError
from pose_cache.errors import PoseCacheError
from pose_cache.images import read_frame
from pose_cache.joints import COCO17
from pose_cache.plan import changed_tracklets
from pose_cache.store import SkeletonStore

FRAMES = 6
LARGE, SMALL = (80, 160), (64, 128)  # width and height of a frame, pixels
QUALITY = 62
MIN_SCORE = 0.3  # keypoints below it are not drawn
UNITS = 1000  # keypoints are in thousandths of the frame's height
THUMB, COLUMNS = (32, 64), 40

# The tree of COCO's keypoints, and the lines that close a body's outline.
BONES = (*COCO17.bones, (5, 6), (11, 12))


def sides() -> list[str]:
    """Name the side of each bone of `BONES`: ``left``, ``right``, or ``middle``."""
    named = []
    for a, b in BONES:
        both = {COCO17.joints[a].partition("_")[0], COCO17.joints[b].partition("_")[0]} - {"nose"}
        named.append(both.pop() if len(both) == 1 else "middle")
    return named


@dataclass(frozen=True)
class Strip:
    """A tracklet's frames side by side.

    Attributes
    ----------
    image
        A data URI.
    frames
        How many frames are in it.
    skeletons
        For each frame the keypoints as [x, y, x, y, ...] in thousandths of the frame's height, None for those not found;
        empty where there are no skeletons.
    """

    image: str
    frames: int
    skeletons: list[list[int | None]]

    @property
    def size(self) -> int:
        """About as many bytes of the page."""
        return len(self.image) + 5 * sum(len(points) for points in self.skeletons) + 40


@dataclass
class StripMaker:
    """Makes strips; keeps those that it has made.

    Attributes
    ----------
    tracklets
        By name.
    root
        Folder that the frames' paths are relative to.
    store
        Skeletons, where there are any.
    cell
        Width and height of a frame, pixels.
    """

    tracklets: dict[str, Tracklet]
    root: Path
    store: SkeletonStore | None
    cell: tuple[int, int] = LARGE
    made: dict[str, Strip | None] = field(default_factory=dict)

    def strip(self, name: str) -> Strip | None:
        """Return a tracklet's strip; None where none of its frames can be read."""
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _make(self, name: str) -> Strip | None:
        tracklet = self.tracklets.get(name)
        if tracklet is None:
            return None
        rows = spread_rows(len(tracklet.frames), FRAMES)
        keypoints = self._keypoints(tracklet)
        cells, skeletons = [], []
        for row in rows:
            image = read_frame(self.root / tracklet.frames[row])
            if image is None:
                continue
            picture, scale, left, top = fit(image, self.cell)
            cells.append(picture)
            if keypoints is not None:
                points = (keypoints[row, :, :2] + 0.5) * scale + (left, top)
                skeletons.append(_thousandths(points / self.cell[1], keypoints[row, :, 2]))
        if not cells:
            return None
        found = any(value is not None for points in skeletons for value in points)
        return Strip(encode(np.hstack(cells)), len(cells), skeletons if found else [])

    def _keypoints(self, tracklet: Tracklet) -> np.ndarray | None:
        """Return the tracklet's keypoints (frames, 17, 3) where the cache has those of just these pictures."""
        try:
            if self.store is None or tracklet.name not in self.store:
                return None
            if self.store.frames(tracklet.name) != tracklet.frames:
                return None
            if changed_tracklets(self.store, [tracklet.name], self.root):
                return None
            keypoints = self.store.keypoints2d(tracklet.name)
        except PoseCacheError:
            return None
        return keypoints if keypoints.shape[1:] == (COCO17.size, 3) and keypoints.any() else None


def spread_rows(length: int, count: int) -> list[int]:
    """Choose at most `count` of `length` frames, evenly."""
    if length <= count:
        return list(range(length))
    return [int((i + 0.5) * length / count) for i in range(count)]


def fit(image: np.ndarray, cell: tuple[int, int]) -> tuple[np.ndarray, float, float, float]:
    """Fit an image into a cell, whole and undistorted, on a blurred and darkened copy of itself.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    cell
        Width and height, pixels.

    Returns
    -------
    picture, scale, left, top
        (height, width, 3) uint8, and what turns the image's pixels into the cell's: ``scale * x + left``.
    """
    width, height = cell
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, inner, interpolation=smooth)
    if inner == (width, height):
        return small, scale, 0.0, 0.0
    behind = cv2.GaussianBlur(cv2.resize(image, cell, interpolation=cv2.INTER_AREA), (0, 0), width / 8)
    picture = (behind * 0.6).astype(np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    picture[top : top + inner[1], left : left + inner[0]] = small
    return picture, scale, float(left), float(top)


def encode(image: np.ndarray, quality: int = QUALITY) -> str:
    """Return a BGR picture as a data URI."""
    buffer = BytesIO()
    Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnails(tracklets: Sequence[Tracklet | None], root: Path) -> str:
    """Put the middle frame of each tracklet on one sheet, `COLUMNS` a row; grey where it cannot be read."""
    width, height = THUMB
    rows = max(-(-len(tracklets) // COLUMNS), 1)
    sheet = np.full((rows * height, COLUMNS * width, 3), 127, np.uint8)
    for number, tracklet in enumerate(tracklets):
        image = None if tracklet is None else read_frame(root / tracklet.frames[len(tracklet.frames) // 2])
        if image is not None:
            y, x = number // COLUMNS * height, number % COLUMNS * width
            sheet[y : y + height, x : x + width] = fit(image, THUMB)[0]
    return encode(sheet, quality=55)


def open_store(path: Path) -> tuple[SkeletonStore | None, str]:
    """Open a skeleton cache; return None and why where it cannot be had."""
    if not path.exists():
        return None, f"there is no {path.name} in the data set"
    try:
        return SkeletonStore(path), ""
    except (PoseCacheError, CsipError) as error:
        return None, str(error)


def as_json(strip: Strip | None) -> dict[str, Any] | None:
    """Return what the page's script reads."""
    return None if strip is None else {"image": strip.image, "frames": strip.frames, "skeletons": strip.skeletons}


def _thousandths(points: np.ndarray, score: np.ndarray) -> list[int | None]:
    result: list[int | None] = []
    for (x, y), known in zip(points.tolist(), (score >= MIN_SCORE).tolist(), strict=True):
        result += [round(x * UNITS), round(y * UNITS)] if known else [None, None]
    return result
