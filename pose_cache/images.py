"""Frames on the disk, whatever their format, and what becomes of those that are odd.

    greyscale, CMYK, with alpha, 16-bit   converted to 8-bit BGR as OpenCV does it (alpha is dropped, not blended)
    missing                               no file of that name
    unreadable                            a folder, a device, or a file that may not or cannot be read
    zero bytes, not an image              nothing to decode
    truncated                             a JPEG or PNG without its end: decoders would fill the rest with grey
    too small                             a side below `MIN_SIDE` pixels: no person can be seen
    too large                             more than `MAX_PIXELS` by its header, or `MAX_BYTES`: never decoded, as a few
                                          kilobytes can unpack to gigabytes

Those of the first line are used, the others are not; a cache holds the kind of every frame (`pose_cache.sources`).
"""

import os
import stat
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from PIL import Image

from pose_cache.sources import FrameKind

MIN_SIDE: Final = 4
MAX_PIXELS: Final = 50_000_000
MAX_BYTES: Final = 256 * 2**20

# Where the end of a file is looked for; some cameras append a few bytes.
_TAIL: Final = 4096
_ENDS: Final = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
_KINDS: Final = {
    "1": FrameKind.GREY,
    "L": FrameKind.GREY,
    "LA": FrameKind.ALPHA,
    "La": FrameKind.ALPHA,
    "PA": FrameKind.ALPHA,
    "RGBA": FrameKind.ALPHA,
    "RGBa": FrameKind.ALPHA,
    "CMYK": FrameKind.CMYK,
    "I": FrameKind.DEEP,
    "F": FrameKind.DEEP,
}
# `MAX_PIXELS` is below Pillow's own limit of what it warns of.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class FrameSource(NamedTuple):
    """A frame's file as it was read: its size (-1 where it was not), the CRC-32 of its bytes, and its kind."""

    size: int
    crc: int
    kind: FrameKind


def read_frame(path: Path) -> np.ndarray | None:
    """Decode an image file to (H, W, 3) uint8, BGR, whatever its channels and depth; None if that cannot be done."""
    return load_frame(path)[0]


def load_frame(path: Path | str) -> tuple[np.ndarray | None, FrameSource]:
    """Decode an image file and say what it was.

    Returns
    -------
    np.ndarray or None
        (H, W, 3) uint8, BGR; None where nothing was decoded.
    FrameSource
        Its kind says whether the picture is of use (`FrameKind.usable`).
    """
    data, source = _read(path)
    if data is None:
        return None, source
    kind = _kind(data)
    if not kind.usable:
        return None, source._replace(kind=kind)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        kind = FrameKind.NOT_AN_IMAGE
    elif min(image.shape[:2]) < MIN_SIDE:
        kind = FrameKind.TOO_SMALL
    return image, source._replace(kind=kind)


def has_changed(path: Path | str, size: int, crc: int, kind: int, since: float) -> bool:
    """Tell whether a frame's file is another one than was read, with that size, CRC-32 and `FrameKind`.

    It is where its size differs, or where its time of modification is not before `since` (seconds since 1970) and the
    CRC-32 of its bytes differs. A file that is gone is not a change: its skeleton stays.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each of a million frames takes seconds)
    except OSError:
        return False
    if found.st_size == size and found.st_mtime < since and stat.S_ISREG(found.st_mode):
        return False
    if kind == FrameKind.UNKNOWN:
        return False
    if size < 0:
        return kind == FrameKind.MISSING or _read(path)[0] is not None
    return _read(path)[1][:2] != (size, crc)


def _read(path: Path | str) -> tuple[bytes | None, FrameSource]:
    """Read a file's bytes, where there are any that should be decoded."""
    try:
        found = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait forever
            return None, FrameSource(-1, 0, FrameKind.UNREADABLE)
        if found.st_size > MAX_BYTES:
            return None, FrameSource(found.st_size, 0, FrameKind.TOO_LARGE)
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None, FrameSource(-1, 0, FrameKind.MISSING)
    except (OSError, ValueError):
        return None, FrameSource(-1, 0, FrameKind.UNREADABLE)
    if not data:
        return None, FrameSource(0, 0, FrameKind.EMPTY)
    return data, FrameSource(len(data), zlib.crc32(data), FrameKind.COLOUR)


def _kind(data: bytes) -> FrameKind:
    """Tell the kind of an image file from its first and last bytes, without decoding it."""
    for start, end in _ENDS.items():
        if data.startswith(start) and end not in data[-_TAIL:]:
            return FrameKind.TRUNCATED
    try:
        with Image.open(BytesIO(data)) as header:
            (width, height), mode, info = header.size, header.mode, header.info
    except Image.DecompressionBombError:
        return FrameKind.TOO_LARGE
    except Exception:  # Pillow's readers raise whatever they stumble over
        return FrameKind.NOT_AN_IMAGE
    if width * height > MAX_PIXELS:
        return FrameKind.TOO_LARGE
    if mode.startswith("I;16") or (data.startswith(b"\x89PNG") and data[24] == 16):
        return FrameKind.DEEP
    return FrameKind.ALPHA if "transparency" in info else _KINDS.get(mode, FrameKind.COLOUR)
