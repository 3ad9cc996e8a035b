"""Frames on the disk, whatever their format."""

from pathlib import Path

import cv2
import numpy as np


def read_frame(path: Path) -> np.ndarray | None:
    """Decode an image file to (H, W, 3) uint8, BGR, whatever its channels and depth; None if that cannot be done.

    A JPEG that is cut short counts as unreadable: decoders fill what is missing with grey.
    """
    import mmcv

    try:
        data = path.read_bytes()
    except OSError:
        return None
    if not data or (data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-4096:]):
        return None
    try:
        return mmcv.imfrombytes(data, flag="color", channel_order="bgr", backend="cv2")
    except cv2.error:
        return None
