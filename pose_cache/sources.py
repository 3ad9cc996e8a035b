"""Records of the image files behind skeletons: their kinds, and how an edited file is noticed."""

from enum import IntEnum
from typing import Final

import numpy as np

SOURCE: Final = np.dtype([("bytes", "<i8"), ("crc", "<u4"), ("kind", "u1")])
"""A frame's file: its size (-1 where it was not read), the CRC-32 of its bytes, and its `FrameKind`."""


class FrameKind(IntEnum):
    """How a frame's file was found. From MISSING on there is no picture to estimate a pose in."""

    COLOUR = 0
    GREY = 1
    ALPHA = 2
    CMYK = 3
    DEEP = 4
    MISSING = 16
    UNREADABLE = 17
    EMPTY = 18
    TRUNCATED = 19
    NOT_AN_IMAGE = 20
    TOO_SMALL = 21
    TOO_LARGE = 22
    DAMAGED = 23
    UNKNOWN = 255

    @property
    def usable(self) -> bool:
        """Whether a pose is estimated."""
        return self < FrameKind.MISSING

    @property
    def label(self) -> str:
        """The kind in words."""
        return _LABELS[self]


_LABELS: Final = {
    FrameKind.COLOUR: "colour",
    FrameKind.GREY: "greyscale",
    FrameKind.ALPHA: "with alpha",
    FrameKind.CMYK: "CMYK",
    FrameKind.DEEP: "16-bit",
    FrameKind.MISSING: "missing",
    FrameKind.UNREADABLE: "unreadable",
    FrameKind.EMPTY: "zero bytes",
    FrameKind.TRUNCATED: "truncated",
    FrameKind.NOT_AN_IMAGE: "not an image",
    FrameKind.TOO_SMALL: "too small",
    FrameKind.TOO_LARGE: "too large",
    FrameKind.DAMAGED: "damaged",
    FrameKind.UNKNOWN: "unknown",
}


def unknown_sources(count: int) -> np.ndarray:
    """Return (count,) `SOURCE` for skeletons that do not come from images."""
    return np.full(count, np.array((-1, 0, FrameKind.UNKNOWN), SOURCE))
