"""Strips and frames of tracklets as small JPEGs, made when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from csip.data.dataset import Tracklet
from pipelines.report_page.strips import FRAMES, LARGE, QUALITY, fit, spread_rows
from pose_cache.images import read_frame

KEPT = 64 << 20  # bytes of pictures that are kept


class Pictures:
    """Pictures of tracklets, by their number.

    Parameters
    ----------
    tracklets
        In the order of their numbers.
    root
        Folder that the frames' paths are relative to.
    """

    def __init__(self, tracklets: Sequence[Tracklet], root: Path) -> None:
        self._tracklets, self._root = tracklets, root
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def frames_of(self, row: int) -> int:
        """Return how many frames a tracklet's strip has."""
        return min(len(self._tracklets[row].frames), FRAMES)

    def strip(self, row: int) -> bytes:
        """Return some frames of a tracklet side by side; grey where one cannot be read."""
        with self._lock:
            if row in self._kept:
                self._kept.move_to_end(row)
                return self._kept[row]
        frames = self._tracklets[row].frames
        picture = self._encoded([self._cell(frames[place]) for place in self.chosen(row)])
        with self._lock:
            if row not in self._kept:
                self._kept[row] = picture
                self._size += len(picture)
                while self._size > KEPT:
                    self._size -= len(self._kept.popitem(last=False)[1])
        return picture

    def tracklet(self, row: int) -> Tracklet:
        """Return a tracklet by its number."""
        return self._tracklets[row]

    def chosen(self, row: int) -> list[int]:
        """Return the numbers of the frames that a tracklet's strip shows, counted from 0."""
        return [int(place) for place in spread_rows(len(self._tracklets[row].frames), FRAMES)]

    def frame(self, row: int, number: int) -> bytes:
        """Return one frame of a tracklet, counted from 0."""
        return self._encoded([self._cell(self._tracklets[row].frames[number])])

    def length(self, row: int) -> int:
        """Return how many frames a tracklet has."""
        return len(self._tracklets[row].frames)

    def _cell(self, frame: str) -> np.ndarray:
        image = read_frame(self._root / frame)
        if image is None:
            return np.full((LARGE[1], LARGE[0], 3), 127, np.uint8)
        return fit(image, LARGE)[0]

    def _encoded(self, cells: list[np.ndarray]) -> bytes:
        done, data = cv2.imencode(".jpg", np.hstack(cells), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert done
        return data.tobytes()
