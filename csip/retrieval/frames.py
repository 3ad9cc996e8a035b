"""Frames of one person from Python: paths, arrays, Pillow images, or a folder of crops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from csip.config import ClipSettings
from csip.data.clips import read_frame
from csip.data.dataset import is_image, is_other_picture
from csip.data.names import in_natural_order
from csip.errors import CsipError
from pose_cache.crops import Frame, as_rgb


def frames_in(folder: Path) -> list[Path]:
    """Return the images in a folder, in the natural order of their names (1, 2, 10).

    Raises
    ------
    CsipError
        There are none, or some are of a format that cannot be read.
    """
    files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    unread = sorted(entry.name for entry in files if is_other_picture(entry.name))
    if unread:
        raise CsipError(
            f"{folder}: {len(unread)} pictures are of formats that cannot be read, e.g. {unread[0]}; convert them to JPEG or "
            "PNG, or move them out"
        )
    frames = [folder / name for name in in_natural_order(entry.name for entry in files if is_image(entry.name))]
    if not frames:
        raise CsipError(
            f"{folder}: no images in it; expected crops of one person, .jpg or .png, in the order of their names"
        )
    return frames


def read_pixels(frames: Iterable[Frame], settings: ClipSettings) -> np.ndarray:
    """Decode frames of any kind and resize them (bilinear).

    Parameters
    ----------
    frames
        Paths of images; arrays (H, W, 3) uint8, RGB; Pillow images. Crops of one person, in order of time.

    Returns
    -------
    ndarray, shape (T, 3, height, width), uint8
        RGB.

    Raises
    ------
    CsipError, PoseCacheError
        There are none, a file cannot be decoded, or an array is none of an image.
    """
    size = settings.height, settings.width
    images = [_read(frame, number, *size) for number, frame in enumerate(frames)]
    if not images:
        raise CsipError("there are no frames: expected at least one crop of a person")
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _read(frame: Frame, number: int, height: int, width: int) -> np.ndarray:
    if isinstance(frame, str | Path):
        return read_frame(Path(frame), height, width)
    image = as_rgb(frame, number)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
