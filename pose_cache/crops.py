"""Crops from Python: paths, arrays, Pillow images."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.images import read_frame

if TYPE_CHECKING:
    from PIL import Image

Frame: TypeAlias = "str | Path | np.ndarray | Image.Image"


def read_crop(frame: Frame, number: int) -> np.ndarray:
    """Return a crop as (H, W, 3) uint8, BGR.

    Parameters
    ----------
    frame : path, np.ndarray or PIL.Image.Image
        An array is (H, W, 3) uint8, RGB.
    number : int
        Its place among others, for messages.

    Raises
    ------
    PoseCacheError
        The file is missing or cannot be decoded, or it is nothing of the above.
    """
    if isinstance(frame, str | Path):
        image = read_frame(Path(frame))
        if image is None:
            what = "not an image that can be decoded" if Path(frame).exists() else "no such file"
            raise PoseCacheError(f"frame {number}, {frame}: {what}")
        return image
    return np.ascontiguousarray(as_rgb(frame, number)[..., ::-1])


def as_rgb(frame: "np.ndarray | Image.Image", number: int) -> np.ndarray:
    """Return an array or a Pillow image as (H, W, 3) uint8, RGB.

    Raises
    ------
    PoseCacheError
        It is neither, or the array is none of an RGB image.
    """
    if not isinstance(frame, np.ndarray):
        from PIL import Image

        if not isinstance(frame, Image.Image):
            raise PoseCacheError(
                f"frame {number}: expected a path, an array or a Pillow image, found {type(frame).__name__}"
            )
        return np.asarray(frame.convert("RGB"))
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise PoseCacheError(
            f"frame {number}: expected an array (height, width, 3) of uint8, RGB, found {frame.shape} of {frame.dtype}"
        )
    return frame
