"""OpenCV's built-in people detector: histograms of gradients and a linear classifier. Nothing to download.

It knows standing people, seen whole, of 96 pixels of height or more in a window of 64 x 128. So the picture is brought to the
size at which the smallest person looked for has those 96 pixels, and is continued at its edges, as the window holds a sixth
of background above the head and below the feet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import cv2
import numpy as np

from csip.video.tracking import Detections, Thresholds

PERSON: Final = 96
_WINDOW: Final = (64, 128)
# A standing person is 0.41 as wide as high, by the convention of pedestrian benchmarks.
_ASPECT: Final = 0.41
_STEP: Final = 1.05
_SAME: Final = 0.55  # share of the smaller of two boxes from which on they are one person
_ALIKE: Final = 0.25  # largest difference of two heights, as a logarithm, of boxes that are averaged


class HogDetector:
    """Finds standing people.

    Parameters
    ----------
    smallest : float
        Height of the smallest person to look for, as a share of the picture's. Half of it takes four times as long.
    threads : int
        Pictures that are worked on at once.
    """

    thresholds = Thresholds(start=0.75, high=0.6, low=0.35)
    batch = 8

    def __init__(self, smallest: float = 0.3, threads: int = 1) -> None:
        self._smallest = smallest
        self._threads = threads
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the people in each picture, (H, W, 3) uint8, BGR."""
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)  # a picture a thread scales better than the levels of one picture's pyramid
        try:
            with ThreadPoolExecutor(self._threads) as pool:
                return list(pool.map(self._look, images))
        finally:
            cv2.setNumThreads(before)

    def _look(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        zoom = PERSON / (self._smallest * height)
        method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, (max(round(width * zoom), 1), max(round(height * zoom), 1)), interpolation=method)
        # Someone as high as the picture needs a sixth of that as background on both sides.
        edge = math.ceil(small.shape[0] / 6)
        padded = cv2.copyMakeBorder(small, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
        if padded.shape[0] < _WINDOW[1] or padded.shape[1] < _WINDOW[0]:
            return Detections(np.zeros((0, 4)), np.zeros(0))
        found, weights = self._hog.detectMultiScale(
            padded, hitThreshold=0.0, winStride=(8, 8), padding=(0, 0), scale=_STEP, groupThreshold=0
        )
        windows = np.asarray(found, np.float64).reshape(-1, 4) - [edge, edge, 0, 0]
        boxes, margins = merge_hits(_people(windows) / zoom, np.asarray(weights, np.float64).reshape(-1))
        # Noise ends at a margin of about .5, and 1 is a person nearly always.
        scores = 1 / (1 + np.exp(-3 * (margins - 0.5)))
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        seen = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > 1
        return Detections(boxes[seen], scores[seen])


def _people(windows: np.ndarray) -> np.ndarray:
    """Turn windows (left, top, width, height) into boxes of the people in their middle."""
    middle = windows[:, :2] + windows[:, 2:] / 2
    height = windows[:, 3] * PERSON / _WINDOW[1]
    half = np.stack([_ASPECT * height, height], axis=1) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def merge_hits(boxes: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make one box of each bunch of hits: a mean of those that are nearly as good as the best of it and nearly as large.

    Hits are ranked by margin times height, as a leg or a head and its shoulders often look like a small person, but seldom a
    small person like a part of a large one. The mean is steadier from frame to frame than the best hit alone.

    Parameters
    ----------
    boxes : np.ndarray
        (N, 4), left, top, right, bottom.
    margins : np.ndarray
        (N,), the classifier's, not below 0.

    Returns
    -------
    boxes, margins : np.ndarray
        (M, 4) and (M,): a bunch has the largest margin in it.
    """
    heights = boxes[:, 3] - boxes[:, 1]
    ranks = margins * heights
    order = np.argsort(-ranks, kind="stable")
    boxes, margins, heights, ranks = boxes[order], margins[order], heights[order], ranks[order]
    merged, kept = [], []
    left = np.ones(len(boxes), bool)
    for best in range(len(boxes)):
        if not left[best]:
            continue
        bunch = left & (share_of_smaller(boxes[best], boxes) > _SAME)
        bunch[best] = True
        alike = bunch & (ranks >= 0.3 * ranks[best]) & (np.abs(np.log(heights / heights[best])) < _ALIKE)
        merged.append(np.average(boxes[alike], axis=0, weights=ranks[alike] + 1e-9))
        kept.append(margins[bunch].max())
        left &= ~bunch
    return np.array(merged).reshape(-1, 4), np.array(kept)


def share_of_smaller(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the overlap of a box (4,) with each of boxes (N, 4) as a share of the smaller of the two."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    smaller = np.minimum(areas, np.prod(box[2:] - box[:2]))
    return np.prod(sides.clip(0), axis=1) / np.maximum(smaller, 1e-9)
