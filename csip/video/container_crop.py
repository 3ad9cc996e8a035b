"""What a container cuts off a picture: MP4's clean aperture and Matroska's PixelCrop, which PyAV does not tell of.

    MP4, MOV     moov/trak/mdia/minf/stbl/stsd/ENTRY/clap: width, height, and offsets of the middle, each a fraction
    Matroska     Segment/Tracks/TrackEntry/Video/PixelCrop{Top,Bottom,Left,Right}: pixels

Sources: ISO/IEC 14496-12, 12.1.4; RFC 9559, 5.1.4.1.28.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

Crop = tuple[int, int, int, int]
NOTHING: Final = (0, 0, 0, 0)
_PATH: Final = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_ENTRY: Final = 78  # bytes of a picture's sample entry before its boxes
_LARGEST: Final = 64 << 20  # bytes of an index that is looked into
_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_CROPS: Final = {0x54CC: 0, 0x54BB: 1, 0x54DD: 2, 0x54AA: 3}  # left, top, right, bottom
_CLUSTER: Final = 0x1F43B675


def container_crop(path: Path, size: tuple[int, int]) -> Crop:
    """Return how many pixels the container cuts off: left, top, right, bottom.

    Parameters
    ----------
    path : Path
        A video file.
    size : tuple of int
        Width and height of the coded picture: the first track of this size counts.

    Returns
    -------
    tuple of int
        Zeros where the container says nothing, is another one, or is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(12)
            file.seek(0)
            if start[:4] == b"\x1aE\xdf\xa3":
                return _matroska(file, size)
            return _mp4(file, size) if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") else NOTHING
    except (OSError, struct.error, ValueError, OverflowError, ZeroDivisionError):
        return NOTHING


# ---- MP4 -------------------------------------------------------------------------------------------------------------


def _mp4(file: BinaryIO, size: tuple[int, int]) -> Crop:
    end = file.seek(0, 2)
    at = 0
    while at + 8 <= end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", file.read(8)), 16
        length = length or end - at
        if length < head:
            break
        if kind == b"moov" and length <= _LARGEST:
            return next((crop for crop in _apertures(file.read(length - head), size)), NOTHING)
        at += length
    return NOTHING


def _apertures(data: bytes, size: tuple[int, int], depth: int = 0) -> Iterator[Crop]:
    """Yield what is cut off by each track of this size that has a clean aperture."""
    for kind, body in _boxes(data):
        if kind != _PATH[depth]:
            continue
        if kind != b"stsd":
            yield from _apertures(body, size, depth + 1)
            continue
        for _, entry in _boxes(body[8:]):
            if len(entry) < _ENTRY or struct.unpack(">HH", entry[24:28]) != size:
                continue
            for inner, values in _boxes(entry[_ENTRY:]):
                if inner == b"clap":
                    yield _aperture(struct.unpack(">IIIIiIiI", values[:32]), size)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if length < 8:
            return
        yield kind, data[at + 8 : at + length]
        at += length


def _aperture(values: tuple[int, ...], size: tuple[int, int]) -> Crop:
    wide, high, right, down = (values[at] / values[at + 1] for at in (0, 2, 4, 6))
    left, top = (size[0] - wide) / 2 + right, (size[1] - high) / 2 + down
    edges = (left, top, size[0] - wide - left, size[1] - high - top)
    if min(edges) < -0.5 or wide < 1 or high < 1:
        return NOTHING
    return tuple(max(math.floor(edge + 0.5), 0) for edge in edges)  # type: ignore[return-value]


# ---- Matroska --------------------------------------------------------------------------------------------------------


def _matroska(file: BinaryIO, size: tuple[int, int]) -> Crop:
    end = file.seek(0, 2)
    file.seek(0)
    _, length = _element(file)
    file.seek(length, 1)  # behind the EBML header
    kind, _ = _element(file)
    if kind != _SEGMENT:
        return NOTHING
    while file.tell() < end:
        kind, length = _element(file)
        if kind == _TRACKS and length <= _LARGEST:
            return _of_tracks(file, file.tell() + length, size)
        if kind == _CLUSTER or length >= end:  # pictures follow; the tracks come before them
            break
        file.seek(length, 1)
    return NOTHING


def _of_tracks(file: BinaryIO, end: int, size: tuple[int, int]) -> Crop:
    while file.tell() < end:
        kind, length = _element(file)
        after = file.tell() + length
        while kind == _TRACK and file.tell() < after:
            inner, inside = _element(file)
            beyond = file.tell() + inside
            if inner == _VIDEO:
                values = dict(_numbers(file, beyond))
                if (values.get(0xB0), values.get(0xBA)) == size:
                    found = [0, 0, 0, 0]
                    for name, place in _CROPS.items():
                        found[place] = values.get(name, 0)
                    return found[0], found[1], found[2], found[3]
            file.seek(beyond)
        file.seek(after)
    return NOTHING


def _numbers(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    while file.tell() < end:
        kind, length = _element(file)
        data = file.read(length) if length <= 8 else b""
        if length > 8:
            file.seek(length, 1)
        yield kind, int.from_bytes(data, "big")


def _element(file: BinaryIO) -> tuple[int, int]:
    """Read an element's name and its length; an unknown length is larger than any file."""
    return _variable(file, keep=True), _variable(file, keep=False)


def _variable(file: BinaryIO, keep: bool) -> int:
    first = file.read(1)
    if not first or not first[0]:
        raise ValueError("no element")
    count = 8 - first[0].bit_length()
    rest = file.read(count)
    if len(rest) < count:
        raise ValueError("cut")
    value = int.from_bytes(first + rest, "big")
    if keep:
        return value
    value -= 1 << (7 * (count + 1))
    return 1 << 62 if value == (1 << (7 * (count + 1))) - 1 else value
