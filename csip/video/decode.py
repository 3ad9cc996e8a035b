"""Frames of a video, or of a folder of pictures, one after the other: as a player shows them, with the time of each.

Frames are numbered from 1, as in MOTChallenge; a folder whose pictures are named by numbers alone (000001.jpg) keeps those.
Times come from the file's own time stamps, so a variable frame rate needs nothing special; the first frame is at 0 s.
One frame is in memory at a time.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import av
import numpy as np

from csip.data.dataset import is_image, is_other_picture
from csip.data.names import in_natural_order, is_hidden
from csip.errors import CsipError
from csip.video.container_crop import Crop, container_crop
from csip.video.geometry import Geometry, fit, geometry_of
from pose_cache.images import composed, read_frame

PICTURE_RATE: Final = 25.0
"""Pictures a second of a folder without a seqinfo.ini that says it."""

RATES: Final = "seqinfo.ini"
"""MOTChallenge's notes of a sequence, in its folder or beside that of its pictures."""

MAX_PIXELS: Final = 100_000_000
"""A few kilobytes can unpack to gigabytes."""

_SLACK: Final = 0.02  # share of a video that may be missing at its end before it is called cut
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
    first, last : int
        Numbers of the first and the last frame; the last one of a file is what it says of itself, 0 where it says nothing.
    named : bool
        Whether frames have the numbers that name the pictures of a folder; else they are 1, 2, ...

    Raises
    ------
    UnreadableVideo
        The file is empty, no video, or has nothing in it that can be decoded; while iterating, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self.first, self.named = 1, False
        self._pictures: list[tuple[int, str]] | None = None
        self._geometry: Geometry | None = None
        self._crop: Crop | None = None
        if path.is_dir():
            self._pictures = _pictures(path)
            self.first, self.last = self._pictures[0][0], self._pictures[-1][0]
            self.named = all(Path(name).stem.isdecimal() for _, name in self._pictures)
            self.expected, self.rate = len(self._pictures), _picture_rate(path)
        else:
            self.expected, self.rate = self._probe()
            self.last = self.expected

    @property
    def geometry(self) -> Geometry:
        """How the first frame is shown; reading a folder of pictures, or a stream without a word of it, shows it as it is."""
        if self._geometry is None:
            frame = next(iter(self))
            self._geometry = self._geometry or Geometry((frame.image.shape[1], frame.image.shape[0]))
        return self._geometry

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
        resized: tuple[int, tuple[int, ...]] | None = None
        start: float | None = None
        time = widest = others = 0.0
        with _open(self.path) as container:
            stream = _stream(container, self.path)
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may change on the way
            # Without it some columns that the stream cuts off at the left are kept, so that rows begin at round addresses.
            stream.codec_context.flags |= av.codec.context.Flags.unaligned
            packets = container.demux()
            while True:
                try:
                    packet = next(packets, None)
                    if packet is not None and packet.stream.index != stream.index:
                        others = max(others, _end(packet))
                        continue
                    frames = [] if packet is None else stream.decode(packet)
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
                    advances = shown is not None and (shown > time or number == 1)
                    now = shown if shown is not None and advances else time + (number > 1) / self.rate
                    widest, time = max(widest, now - time), now
                    if self._crop is None:
                        self._crop = container_crop(self.path, (frame.width, frame.height))
                    geometry = geometry_of(frame, stream.sample_aspect_ratio, self._crop)
                    self._geometry = self._geometry or geometry
                    image = geometry.show(_pixels(frame))
                    if image.shape[1::-1] != self._geometry.size:
                        resized, image = resized or (number, image.shape[1::-1]), fit(image, self._geometry.size)
                    yield Frame(number, time, image)
            lasts, indexed = _length(stream, container, start or 0.0), _indexed(stream, container)
            count = len(_moving(container))
        if stream.duration is None and others > 0:
            time = max(time, others - (start or 0.0))  # the length is that of the longest stream
        short = lasts - time > 1.5 * max(1 / self.rate, widest) + _SLACK * lasts
        problems = []
        if damaged:
            problems.append(f"{damaged} damaged places in it; {number} frames could be read")
        elif number and short and not (indexed and number >= indexed * (1 - _SLACK) - 1):
            problems.append(f"ends after {number} frames, at {time:.1f} s of {lasts:.1f} s")
        if resized is not None:
            width, height = resized[1]
            problems.append(
                f"its pictures are {width} x {height} from frame {resized[0]} on, and fitted into the size of the first"
            )
        if count > 1:
            problems.append(f"has {count} video streams, of which the first is read; make a file of each")
        self.problem = "; ".join(problems)

    def _from_pictures(self, pictures: list[tuple[int, str]]) -> Iterator[Frame]:
        damaged = fitted = 0
        size: tuple[int, int] | None = None
        for number, name in pictures:
            image = read_frame(self.path / name)
            if image is None:
                damaged += 1
                continue
            shape = (image.shape[1], image.shape[0])
            size = size or shape
            if shape != size:
                fitted, image = fitted + 1, fit(image, size)
            yield Frame(number, (number - self.first) / self.rate, image)
        problems = [f"{damaged} of {len(pictures)} pictures cannot be read"] if damaged else []
        if fitted and size is not None:
            problems.append(f"{fitted} of {len(pictures)} pictures are not {size[0]} x {size[1]}, and fitted into that")
        self.problem = "; ".join(problems)


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
    """Return the first stream of moving pictures."""
    stream = next(iter(_moving(container)), None)
    if stream is None:
        raise UnreadableVideo(f"{path}: there is no video stream in it")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(
            f"{path}: pictures of {width} x {height}; at most {MAX_PIXELS / 1e6:.0f} million pixels are decoded"
        )
    return stream


def _moving(container: av.container.InputContainer) -> list[av.video.stream.VideoStream]:
    """List the streams of moving pictures: music has its cover, and a film its thumbnail, as a video stream."""
    still = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & still and stream.codec_context is not None
    ]


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as it is coded, (H, W, 3) uint8, BGR; colours that its alpha hides do not count."""
    # By default each frame's conversion starts threads of its own, which stay until it is collected.
    if any(component.is_alpha for component in frame.format.components):
        return composed(frame.to_ndarray(format="bgra", threads=1))
    return frame.to_ndarray(format="bgr24", threads=1)


def _length(stream: av.video.stream.VideoStream, container: av.container.InputContainer, start: float) -> float:
    """Return the seconds from the first frame on that the file says of the stream, else of the whole; 0 where of neither."""
    if stream.duration is not None and stream.time_base is not None:
        # The duration of an AVI is that of what is there; its header counts what was to be.
        ticks = max(stream.duration, stream.frames) if container.format.name == "avi" else stream.duration
        return float(ticks * stream.time_base)
    if container.duration is None:
        return 0.0
    # Some formats say when it ends, others how long it lasts.
    return min(container.duration, (container.start_time or 0) + container.duration) / av.time_base - max(start, 0.0)


def _indexed(stream: av.video.stream.VideoStream, container: av.container.InputContainer) -> int:
    """Return how many frames the index of an MP4 or MOV wants shown, edit lists considered; 0 where there is no such index."""
    if "mp4" not in container.format.name or not stream.frames:
        return 0
    return sum(not entry.is_discard for entry in stream.index_entries)


def _end(packet: av.Packet) -> float:
    """Return when a packet ends, in seconds; 0 where it does not say."""
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _pictures(folder: Path) -> list[tuple[int, str]]:
    """List the pictures with their numbers: their names where all are numbers, else 1, 2, ... in the order of their names."""
    everything = [entry.name for entry in folder.iterdir() if not is_hidden(entry.name)]
    if unread := sorted(filter(is_other_picture, everything)):
        raise UnreadableVideo(
            f"{folder}: {len(unread)} pictures are of formats that cannot be read, e.g. {unread[0]}; convert them to JPEG or "
            "PNG, or move them out"
        )
    names = list(filter(is_image, everything))
    if not names:
        raise UnreadableVideo(f"{folder}: no pictures in it")
    stems = [Path(name).stem for name in names]
    if all(stem.isdecimal() for stem in stems):
        listed = sorted(zip(map(int, stems), names, strict=True))
        twice = next(((one, other) for one, other in pairwise(listed) if one[0] == other[0]), None)
        if twice is not None:
            raise UnreadableVideo(
                f"{folder}: {twice[0][1]} and {twice[1][1]} are both frame {twice[0][0]}; move one of them out"
            )
        return listed
    return list(enumerate(in_natural_order(names), start=1))


def _picture_rate(folder: Path) -> float:
    """Return what MOTChallenge's seqinfo.ini beside the folder says, or the usual rate."""
    parser = configparser.ConfigParser()
    try:
        parser.read([folder / RATES, folder.parent / RATES], encoding="utf-8")
        rate = parser.getfloat("Sequence", "frameRate", fallback=PICTURE_RATE)
    except (configparser.Error, ValueError, UnicodeDecodeError):
        return PICTURE_RATE
    return rate if 0 < rate < math.inf else PICTURE_RATE
