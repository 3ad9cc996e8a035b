"""Background subtraction: OpenCV's mixture of Gaussians, on a small picture."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

_WIDTH: Final = 160
_HISTORY: Final = (
    500  # looks in which the background is learnt anew; a tenth of it makes furniture of what stands still
)


class Changes:
    """Follows the background of one video."""

    def __init__(self) -> None:
        self._background = cv2.createBackgroundSubtractorMOG2(_HISTORY, detectShadows=False)
        self._mask = np.zeros((1, 1), np.float64)
        self._zoom = 1.0
        self._looks = 0

    def look(self, image: np.ndarray) -> None:
        """Take the next picture, (H, W, 3) uint8."""
        self._zoom = min(_WIDTH / image.shape[1], 1.0)
        size = (round(image.shape[1] * self._zoom), max(round(image.shape[0] * self._zoom), 1))
        mask = self._background.apply(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        # Of the first picture nothing is known, and all of it would count.
        changed = (mask > 0) & (self._looks > 0)
        self._looks += 1
        self._mask = np.pad(changed.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def share(self, box: np.ndarray) -> float:
        """Return the share of a box (left, top, right, bottom) that differs from the background."""
        height, width = self._mask.shape
        corners = np.rint(box * self._zoom).clip(0, [width - 1, height - 1] * 2).astype(int)
        left, top, right, bottom = corners.tolist()
        area = (right - left) * (bottom - top)
        inside = self._mask[bottom, right] - self._mask[top, right] - self._mask[bottom, left] + self._mask[top, left]
        return float(inside / area) if area else 0.0
