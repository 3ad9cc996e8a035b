"""Reading of frames in any format, and what becomes of unusual ones.

    greyscale, CMYK, palette              converted to 8-bit BGR
    with alpha                            composed on plain grey (`BACKGROUND`): the colours that it hides do not count
    more than 8 bits                      scaled to 8 by what the file uses, see `to_8_bits`
    turned                                upright, as EXIF says, in every format that carries it
    missing                               no file of that name
    unreadable                            a folder, a device, or a file that may not or cannot be read
    zero bytes, not an image              nothing to decode
    truncated                             a JPEG or PNG without its end: decoders would fill the rest with grey
    damaged                               the header is that of a picture, but decoding it fails or, in a JPEG, needs guesses
    too small                             a side below `MIN_SIDE` pixels: no person can be seen
    too large                             more than `MAX_PIXELS` by its header, or `MAX_BYTES`: never decoded, as a few
                                          kilobytes can unpack to gigabytes

Those down to "turned" are used, the others are not; a cache holds the kind of every frame (`pose_cache.sources`).

A JPEG has no checksum. Damage is found where the entropy-coded data end too early or too late, or hold an impossible code or a
misplaced marker; libjpeg mends these with a warning and grey. A stretch of zeros, which is what a disk or a copy leaves where
nothing was written, is damage where the file's codes make noise of it. Other damage that leaves as many codes as before goes
unnoticed, as does damage inside the lossy data of a WebP, AVIF or uncompressed file. A PNG has checksums.

What that comes to, over 600 damaged copies each of 27 crops of 128 x 256: 1,024 random bytes within the scan pass in 0.3 %,
64 in 24 %, 8 in 57 %, one in 73 %, one flipped bit in 81 % of the files. Visibly wrong among all (a hundredth of the pixels off
by 24 levels) are 0.3, 18, 18, 9 and 7 %: most of what passes changes a block's coefficient, which nobody can tell from another
picture. A second decoder that is strict with runs of coefficients, FFmpeg's, finds a third of what is visible and passes, and
doubles the time of decoding: it is not used.
"""

import os
import re
import stat
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from pose_cache.sources import FrameKind

DECODING: Final = 1
"""Version of what a file's bytes become as pixels. Raise it with every change to that: nothing made before is then mixed in."""

MIN_SIDE: Final = 4
MAX_PIXELS: Final = 50_000_000
MAX_BYTES: Final = 256 * 2**20
BACKGROUND: Final = 128
"""What shows through transparent pixels: near the mean that encoders subtract."""

# What is opened, by Pillow's names: other formats of its are no frames, and some start programs.
_FORMATS: Final = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "PPM")
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
# libjpeg's warnings about headers, which leave the picture whole.
_HARMLESS: Final = re.compile(r"unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters")
_EXTRANEOUS: Final = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_HOLE: Final = bytes(16)
# What ends a scan: no stuffed byte, no restart.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ORIENTATION: Final = 0x0112
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PHOTOMETRIC: Final = 262
# Behind the magic number of a PGM: width, height, largest value; comments between them.
_MAXVAL: Final = re.compile(rb"P[25](?:\s+(?:#[^\n]*\n\s*)*\d+){2}\s+(?:#[^\n]*\n\s*)*(\d{1,5})\s")
_PNG_EXIF: Final = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_PLAIN: Final = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_DEPTHS: Final = (8, 10, 12, 14, 16)
# Fewer grey levels than this, and the range in use is spread instead of the whole range of the depth.
_FEW_LEVELS: Final = 32
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
        (H, W, 3) uint8, BGR, upright; None where nothing was decoded.
    FrameSource
        Its kind says whether the picture is of use (`FrameKind.usable`).
    """
    data, source = _read(path)
    if data is None:
        return None, source
    image, kind = _decode(data)
    if image is not None and min(image.shape[:2]) < MIN_SIDE:
        kind = FrameKind.TOO_SMALL
    return image, source._replace(kind=kind)


def read_source(path: Path | str) -> FrameSource:
    """Read a file's size and the CRC-32 of its bytes; nothing is decoded, and the kind says only whether it was read."""
    return _read(path)[1]


def has_changed(path: Path | str, size: int, crc: int, kind: int, since: float) -> bool:
    """Tell whether a frame's file is another one than was read, with that size, CRC-32 and `FrameKind`.

    It is where its size differs, or where it was written or its entry changed not before `since` (seconds since 1970) and the
    CRC-32 of its bytes differs. A file that is gone is not a change: its skeleton stays.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each of a million frames takes seconds)
    except OSError:
        return False
    # A copy that keeps the time of modification still changes the entry.
    newest = max(found.st_mtime, found.st_ctime)
    if found.st_size == size and newest < since and stat.S_ISREG(found.st_mode):
        return False
    if kind == FrameKind.UNKNOWN:
        return False
    if size < 0:
        return kind == FrameKind.MISSING or _read(path)[0] is not None
    return _read(path)[1][:2] != (size, crc)


def decoding_mark() -> bytes:
    """Return what belongs into a digest of pixels beside that of the files; nothing for version 1, which was not noted."""
    return f"decoding {DECODING}".encode() if DECODING > 1 else b""


def to_8_bits(deep: np.ndarray, white: float | None = None) -> np.ndarray:
    """Scale pixels of more than 8 bits to 8, by the range that the file uses.

    Sensors of 10, 12 or 14 bits save the low bits of 16: the least of these depths that holds the largest value is taken for
    the whole range, so that 4095 is white in a picture of 12 bits and black stays black. Where a picture then had fewer than 32
    grey levels, as a thermal camera's has, the range that its pixels use (0.1 to 99.9 %) is spread instead. Numbers with a
    fraction are taken as 0 to 1 where they are, and are spread otherwise. A function of one picture alone: a video
    whose largest value crosses a depth changes its brightness there.

    Parameters
    ----------
    deep : np.ndarray
        (H, W) or (H, W, C) of any numbers; what is not finite counts as the least.
    white : float, optional
        The whole range, where the file says it.

    Returns
    -------
    np.ndarray
        The same shape, uint8.
    """
    values = deep.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(deep.shape, np.uint8)
    values[~finite] = values[finite].min()
    low, high = float(values.min()), float(values.max())
    depth = next((bits for bits in _DEPTHS if high < 2**bits), 32)
    top = white or (1.0 if deep.dtype.kind == "f" else 2.0**depth - 1)
    begin, end = np.percentile(values, (0.1, 99.9))
    if low < 0 or high > top or (end - begin) * 256 < _FEW_LEVELS * top:
        low, top = (float(begin), float(end)) if end > begin else (low, high)
        values, top = values - low, top - low
    return np.clip(np.round(values * (255 / top if top > 0 else 0)), 0, 255).astype(np.uint8)


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


def _decode(data: bytes) -> tuple[np.ndarray | None, FrameKind]:
    """Decode a file's bytes to (H, W, 3) uint8, BGR, upright, and tell their kind."""
    for start, end in _ENDS.items():
        if data.startswith(start) and end not in data[-_TAIL:]:
            return None, FrameKind.TRUNCATED
    if data.startswith(_PNG) and not _has_whole_chunks(data):
        return None, FrameKind.DAMAGED
    try:
        picture = Image.open(BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        return None, FrameKind.TOO_LARGE
    except Exception:  # Pillow's readers raise whatever they stumble over
        return None, FrameKind.NOT_AN_IMAGE
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            return None, FrameKind.TOO_LARGE
        kind = _kind(picture, data)
        try:
            image = _pixels(picture, data, kind)
        except Exception:  # the same, and OpenCV's
            image = None
    return (None, FrameKind.DAMAGED) if image is None else (image, kind)


def _has_whole_chunks(data: bytes) -> bool:
    """Whether the chunks of a PNG end before the file does: OpenCV takes as much memory for one as its length says."""
    at = len(_PNG)
    while at + 8 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _kind(picture: Image.Image, data: bytes) -> FrameKind:
    """Tell the kind of a picture from its header."""
    if picture.mode.startswith("I;16") or (picture.format == "PNG" and data[24] == 16):
        return FrameKind.DEEP
    if picture.format == "TIFF" and max(picture.tag_v2.get(258, (8,))) > 8:  # type: ignore[attr-defined]
        return FrameKind.DEEP
    return FrameKind.ALPHA if "transparency" in picture.info else _KINDS.get(picture.mode, FrameKind.COLOUR)


def _pixels(picture: Image.Image, data: bytes, kind: FrameKind) -> np.ndarray | None:
    if kind is FrameKind.DEEP:
        image = _deep(picture, data)
    elif kind is FrameKind.ALPHA:
        pixels = np.asarray(picture.convert("RGBA"))[..., [2, 1, 0, 3]]
        # Programs that know of no alpha leave the fourth byte of a BMP's pixels empty.
        image = (
            composed(pixels) if picture.format not in ("BMP", "DIB") or pixels[..., 3].any() else pixels[..., :3].copy()
        )
    elif picture.format in ("JPEG", "MPO"):
        image = _jpeg(data, kind)
    elif picture.format in ("TIFF", "AVIF", "PPM"):
        image = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])
    else:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _PLAIN)
    if image is None or picture.format == "TIFF":  # which both Pillow and OpenCV have turned by now
        return image
    # Of a PNG without any of these, Pillow would decode all the pixels to look for them behind.
    return (
        image if picture.format == "PNG" and not any(mark in data for mark in _PNG_EXIF) else _upright(image, picture)
    )


def _jpeg(data: bytes, kind: FrameKind) -> np.ndarray | None:
    """Decode a JPEG; None where its data are damaged."""
    if _has_hole(data):
        return None
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, "BGR")
        if kind is not FrameKind.CMYK:  # whose inks are mixed as OpenCV does it
            return image
    except ValueError as error:
        if not _is_harmless(str(error), data):
            return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), _PLAIN)


def _has_hole(data: bytes) -> bool:
    """Whether zeros lie in a scan where they cannot have been written.

    To a baseline decoder they are the shortest code of a block's coefficients, again and again. Where that code does not end
    the block, as it may in plain pictures, 16 such bytes are more than 40 equal coefficients in a row, which no picture has.
    Zeros before the end marker are padding. Source: ITU-T T.81, B.1.1.3 and B.2.
    """
    first: dict[int, int] = {}  # the symbol of the shortest code of each table of coefficients
    at, baseline = 2, False
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data) and data[at + 1] != 0xD9:
        kind, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body, at = data[at + 4 : at + 2 + size], at + 2 + size
        baseline |= kind in (0xC0, 0xC1)
        while kind == 0xC4 and len(body) > 17:
            if body[0] >> 4 == 1:
                first[body[0] & 15] = body[17]
            body = body[17 + sum(body[1:17]) :]
        if kind == 0xDA:
            behind = _MARKER.search(data, at)
            end = behind.start() if behind else len(data)
            scan, at = data[at:end].rstrip(b"\0"), end
            tables = [number & 15 for number in body[2:-3:2]]
            if baseline and _HOLE in scan and any(first.get(table, 0) != 0 for table in tables):
                return True
    return False


def _is_harmless(warning: str, data: bytes) -> bool:
    """Whether a decoder's warning leaves the picture whole: odd headers, and zeros that pad the end of the scan."""
    padding = _EXTRANEOUS.search(warning)
    if padding is None:
        return _HARMLESS.search(warning) is not None
    end = data.rindex(b"\xff\xd9")
    return not any(data[max(end - int(padding[1]), 0) : end])


def _deep(picture: Image.Image, data: bytes) -> np.ndarray | None:
    """Decode more than 8 bits; the alpha that may be with them counts."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype == np.uint8:
        picture.load()
        if picture.mode not in ("F", "I") and not picture.mode.startswith("I;"):
            return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., ::-1])
        image = np.asarray(picture)
    if image.ndim == 2:
        return _deep_grey(image, picture, data)
    if image.shape[2] == 4:
        alpha = np.round(image[..., 3:].astype(np.float64) * (255 / 65535)).astype(np.uint8)
        seen = np.where(image[..., 3:] > 0, image[..., :3], 0)  # hidden colours have no say in the range
        return composed(np.concatenate([to_8_bits(seen), alpha], axis=2))
    return to_8_bits(image[..., :3])


def _deep_grey(image: np.ndarray, picture: Image.Image, data: bytes) -> np.ndarray:
    """Scale (H, W) of more than 8 bits, as the file says that its numbers are meant."""
    transparent = picture.info.get("transparency")
    hidden = image == transparent if isinstance(transparent, int) else np.zeros(image.shape, bool)
    image = np.where(hidden, 0, image)  # hidden colours have no say in the range
    stated = _MAXVAL.match(data) if picture.format == "PPM" else None
    # A whole range of 16 bits says nothing: sensors of fewer save theirs in it.
    grey = to_8_bits(image, float(stated[1]) if stated and int(stated[1]) < 65535 else None)
    if picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        grey = 255 - grey  # 0 is white, which Pillow and OpenCV heed in 8 bits alone
    return composed(np.dstack([grey, grey, grey, np.where(hidden, 0, 255).astype(np.uint8)]))


def composed(image: np.ndarray) -> np.ndarray:
    """Put (H, W, 4) BGRA on the plain background."""
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.ascontiguousarray(np.round(image[..., :3] * alpha + BACKGROUND * (1 - alpha)).astype(np.uint8))


def _upright(image: np.ndarray, picture: Image.Image) -> np.ndarray:
    """Turn an image as its EXIF says."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    if orientation not in range(2, 9):
        return image
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
