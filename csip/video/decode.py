"""Frames of a video, or of a folder of pictures, one after the other: upright, with the time at which each is shown.

Frames are numbered from 1, as in MOTChallenge; a folder whose pictures are named by numbers alone (000001.jpg) keeps those.
Times come from the file's own time stamps, so a variable frame rate needs nothing special; the first frame is at 0 s.
One frame is in memory at a time.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import av
import numpy as np

from csip.data.dataset import is_image
from csip.errors import CsipError
from pose_cache.images import read_frame

PICTURE_RATE: Final = 25.0
"""Pictures a second of a folder without a seqinfo.ini that says it."""

_PATIENCE: Final = 100  # errors in a row that a decoder may make before the first frames


class UnreadableVideo(CsipError):
    """Nothing can be decoded from a video."""


class Frame(NamedTuple):
    """A decoded frame: its number, its time in seconds, and the picture, (H, W, 3) uint8, BGR."""

    number: int
    time: float
    image: np.ndarray


class VideoReader:
    """Reads the frames of a video file or of a folder of pictures, from the first to the last, as often as it is iterated.

    Parameters
    ----------
    path : Path
        A file of any format that FFmpeg knows, or a folder of pictures in the order of their names.

    Attributes
    ----------
    expected : int
        How many frames there are by what the file says of itself; 0 where it says nothing. For progress only.
    rate : float
        Frames a second, on average, by what the file says.
    problem : str
        What went wrong in the last iteration, where something was left out; empty otherwise.

    Raises
    ------
    UnreadableVideo
        The file is empty, no video, or has nothing in it that can be decoded; while iterating, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._pictures = _pictures(path) if path.is_dir() else None
        if self._pictures is not None:
            self.expected, self.rate = len(self._pictures), _picture_rate(path)
        else:
            self.expected, self.rate = self._probe()

    def __iter__(self) -> Iterator[Frame]:
        self.problem = ""
        found = False
        for frame in self._from_pictures(self._pictures) if self._pictures is not None else self._from_file():
            found = True
            yield frame
        if not found:
            raise UnreadableVideo(f"{self.path}: no frame of it can be decoded")

    def _probe(self) -> tuple[int, float]:
        with _open(self.path) as container:
            stream = _stream(container, self.path)
            rate = float(stream.average_rate or stream.guessed_rate or PICTURE_RATE)
            length = (stream.duration or 0) * (stream.time_base or 0) or (container.duration or 0) / av.time_base
            return int(stream.frames) or round(float(length) * rate), rate

    def _from_file(self) -> Iterator[Frame]:
        damaged = number = 0
        start: float | None = None
        time = 0.0
        with _open(self.path) as container:
            stream = _stream(container, self.path)
            stream.thread_type = "AUTO"
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                    frames = [] if packet is None else packet.decode()
                except (av.error.FFmpegError, EOFError, ValueError):
                    # What follows a damaged stretch can often be decoded; a file that ends too soon just ends.
                    damaged += 1
                    if damaged > _PATIENCE and damaged > number:
                        break
                    continue
                if packet is None:
                    break
                for frame in frames:
                    if frame.is_corrupt:
                        damaged += 1
                    number += 1
                    # Some streams have no time stamps, or repeat one.
                    stamp = None if frame.time is None else float(frame.time)
                    start = stamp if start is None else start
                    shown = None if stamp is None or start is None else stamp - start
                    time = (
                        shown
                        if shown is not None and (shown > time or number == 1)
                        else time + (number > 1) / self.rate
                    )
                    yield Frame(number, time, _upright(frame))
        if damaged:
            self.problem = f"{damaged} damaged places in it; {number} frames could be read"
        elif number and self.expected > number * 1.02 + 1:
            self.problem = f"ends after {number} of {self.expected} frames"

    def _from_pictures(self, names: list[str]) -> Iterator[Frame]:
        stems = [Path(name).stem for name in names]
        by_name = all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems)
        numbers = [int(stem) for stem in stems] if by_name else list(range(1, len(names) + 1))
        first, damaged = min(numbers), 0
        for number, name in sorted(zip(numbers, names, strict=True)):
            image = read_frame(self.path / name)
            if image is None:
                damaged += 1
                continue
            yield Frame(number, (number - first) / self.rate, image)
        if damaged:
            self.problem = f"{damaged} of {len(names)} pictures cannot be read"


def _open(path: Path) -> av.container.InputContainer:
    if not path.exists():
        raise UnreadableVideo(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path}: the file is empty")
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableVideo(f"{path}: cannot be opened as a video ({reason})") from error


def _stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """Return the first stream of moving pictures; music has its cover as a video stream."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return stream
    raise UnreadableVideo(f"{path}: there is no video stream in it")


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Decode to BGR and turn as the file says, which is in quarters; phones write that instead of turning pixels."""
    image = frame.to_ndarray(format="bgr24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _pictures(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if is_image(entry.name) and not entry.name.startswith("."))
    if not names:
        raise UnreadableVideo(f"{folder}: no pictures in it")
    return names


def _picture_rate(folder: Path) -> float:
    """Return what MOTChallenge's seqinfo.ini beside the folder says, or the usual rate."""
    parser = configparser.ConfigParser()
    try:
        parser.read([folder / "seqinfo.ini", folder.parent / "seqinfo.ini"], encoding="utf-8")
        rate = parser.getfloat("Sequence", "frameRate", fallback=PICTURE_RATE)
    except (configparser.Error, ValueError, UnicodeDecodeError):
        return PICTURE_RATE
    return rate if rate > 0 else PICTURE_RATE
