"""One video becomes tracklets in a folder: boxes in a first pass over its frames, crops in a second.

Only boxes and times stay in memory between the two, some ten numbers a person and frame, so that long videos need little.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TypeVar

import cv2
import numpy as np

from csip.data.csv_table import format_rows
from csip.errors import CsipError
from csip.monitor import Monitor
from csip.video.box_raw import BoxesOptions
from csip.video.box_yolo import names_beside
from csip.video.boxes import THRESHOLDS, GivenBoxes, Shown, read_boxes
from csip.video.decode import Frame, VideoReader
from csip.video.find import VideoFile
from csip.video.motion import Changes
from csip.video.tracking import Detections, Thresholds, Track, Tracker
from csip.video.tracklets import Timeline, TrackletRules, make_tracklets

COLUMNS: Final = (
    "tracklet", "person", "camera", "frame", "video", "track", "number", "time", "x", "y", "width", "height", "score",
)  # fmt: skip
_QUALITY: Final = 95
_TOLD: Final = 20  # frames between two signs of progress
_NOTHING: Final = np.zeros((0, 0, 3), np.uint8)
_LEAST: Final = 4  # a strip of fewer pixels is a picture of nobody

T = TypeVar("T")


class Detector(Protocol):
    """Finds people in pictures."""

    thresholds: Thresholds
    batch: int

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the people in each picture, (H, W, 3) uint8, BGR."""


@dataclass(frozen=True)
class IngestOptions:
    """How a video is looked at.

    Attributes
    ----------
    rate
        Looks a second; frames between are interpolated. 0 looks at every frame.
    margin
        What a crop shows beyond the box on each side, as a share of the box's side.
    rules
        What a tracklet has to be like. Tracks that are given are taken as they are.
    """

    rate: float = 10.0
    margin: float = 0.0
    rules: TrackletRules = field(default_factory=TrackletRules)


@dataclass(frozen=True)
class BoxesFile:
    """Boxes that are given instead of a detector: a file, or a folder of YOLO's files, and how to read it."""

    path: Path
    options: BoxesOptions = field(default_factory=BoxesOptions)

    def files(self) -> list[Path]:
        """Return all files that the boxes depend on: those of the frames, and the names of classes beside them."""
        if self.path.is_dir():
            return sorted(self.path.glob("*.txt")) + [file for file in names_beside(self.path) if file.is_file()]
        labels = self.path.with_name("labels.txt")
        return [self.path, labels] if self.path.name == "gt.txt" and labels.is_file() else [self.path]


@dataclass(frozen=True)
class VideoSummary:
    """What became of a video.

    Attributes
    ----------
    frames, seconds
        Length of the video.
    elapsed
        Seconds that it took.
    tracklets, crops
        How many were made.
    dropped
        What was left out, counted by reason.
    problem
        What is wrong with the video, or with its boxes; empty where nothing is.
    boxes
        What the file of boxes was recognised as; empty where people were looked for.
    """

    frames: int
    seconds: float
    elapsed: float
    tracklets: int
    crops: int
    dropped: dict[str, int]
    problem: str = ""
    boxes: str = ""


def ingest_video(
    video: VideoFile, people: Detector | BoxesFile, options: IngestOptions, folder: Path, monitor: Monitor
) -> VideoSummary:
    """Write a video's crops, ``TRACKLET/FRAME.jpg``, and ``tracklets.csv`` into a folder that exists.

    Parameters
    ----------
    video : VideoFile
        Which one.
    people : Detector or BoxesFile
        Who finds the people, or where they are.
    options : IngestOptions
        Looks, crops, rules.
    folder : Path
        Where to write; TRACKLET is the video's stem and the track's number, ``monday-0001``.
    monitor : Monitor
        Hears of the progress.

    Raises
    ------
    UnreadableVideo
        Nothing of it can be decoded.
    CsipError
        The given boxes cannot be read, or do not belong to it.
    """
    started = time.monotonic()
    reader = VideoReader(video.path)
    finder = _given(people, reader, video) if isinstance(people, BoxesFile) else people
    dropped: Counter[str] = Counter(finder.dropped if isinstance(finder, GivenBoxes) else {})
    if isinstance(finder, GivenBoxes) and finder.tracked:
        tracks = finder.by_track()
    else:
        found, timeline = follow(reader, finder, options, monitor, video.name)
        kept, reasons = make_tracklets(found, timeline, options.rules)
        dropped.update(reasons)
        tracks = dict(enumerate(kept, start=1))
    writer = CropWriter(video, tracks, options.margin, folder)
    first: Frame | None = None
    frames = 0
    for frame in _told(prefetch(reader), reader, monitor, f"{video.name}: crops"):
        first, last, frames = first or frame._replace(image=_NOTHING), (frame.number, frame.time), frames + 1
        writer.write(frame)
    assert first is not None  # a video without a frame is unreadable
    crops, tracklets, without = writer.finish()
    if without:
        dropped["crops: outside the video or its picture"] += without
    problems = [reader.problem]
    if isinstance(people, BoxesFile) and isinstance(finder, GivenBoxes):
        if len(finder.frames) and not crops and without:
            raise CsipError(
                f"{video.path}: none of its {len(finder.frames)} boxes lies in a picture of it; frames count from 1, "
                f"the boxes' frames are {finder.frames[0]} to {finder.frames[-1]}, the video has {frames}"
            )
        other = finder.mismatch(first.number, last[0])
        problems.append(f"{people.path.name} {other}" if other else "")
    return VideoSummary(
        frames, last[1] - first.time + 1 / reader.rate, time.monotonic() - started, tracklets, crops, dict(dropped),
        "; ".join(filter(None, problems)), finder.reading if isinstance(finder, GivenBoxes) else "",
    )  # fmt: skip


def _given(people: BoxesFile, reader: VideoReader, video: VideoFile) -> GivenBoxes:
    shown = Shown(reader.geometry, reader.first, reader.last, reader.named, video.name)
    return read_boxes(people.path, people.options, shown)


def follow(
    reader: VideoReader, people: Detector | GivenBoxes, options: IngestOptions, monitor: Monitor, name: str
) -> tuple[list[Track], Timeline]:
    """Find and track the people of a video; the first pass.

    Returns
    -------
    tracks : list of Track
        In the frames that were looked at.
    timeline : Timeline
        All frames.
    """
    rate = options.rate or reader.rate
    given = isinstance(people, GivenBoxes)
    thresholds = THRESHOLDS if isinstance(people, GivenBoxes) else people.thresholds
    if given:
        rate = reader.rate  # looking at a box that is there costs nothing
    tracker = Tracker(thresholds, round(options.rules.max_gap * rate) + 1)
    changes = Changes()
    moved: dict[int, float] = {}
    numbers: list[int] = []
    times: list[float] = []

    def looks() -> Iterator[Frame]:
        tick = -1
        for frame in _told(reader, reader, monitor, f"{name}: people"):
            numbers.append(frame.number)
            times.append(frame.time)
            now = round(frame.time * rate)
            if given or not options.rate or now != tick:
                tick = now
                yield frame

    def track(frame: Frame, detections: Detections) -> None:
        changes.look(frame.image)
        for number, box in tracker.look(frame.number, detections):
            moved[number] = max(moved.get(number, 0.0), changes.share(box))

    if isinstance(people, GivenBoxes):
        for frame in looks():
            track(frame, people.of_frame(frame.number))
    else:
        for batch in prefetch(_batches(looks(), people.batch)):
            found = people.detect([frame.image for frame in batch])
            for frame, detections in zip(batch, found, strict=True):
                track(frame, detections)
    tracks = [replace(found, change=moved[number]) for number, found in tracker.tracks().items()]
    return tracks, Timeline(np.array(numbers, np.int64), np.array(times))


class CropWriter:
    """Cuts tracklets out of a video's frames as they come, and writes the table of them at the end.

    Parameters
    ----------
    video : VideoFile
        Names the tracklets.
    tracks : dict of int to Track
        By their numbers in the video.
    margin : float
        What a crop shows beyond the box, as a share of its side.
    folder : Path
        Gets a folder for each tracklet, and ``tracklets.csv``.
    """

    def __init__(self, video: VideoFile, tracks: dict[int, Track], margin: float, folder: Path) -> None:
        self._video, self._tracks, self._margin, self._folder = video, tracks, margin, folder
        numbers = list(tracks)
        lengths = [len(tracks[number].frames) for number in numbers]
        self._track = np.repeat(np.array(numbers, np.int64), lengths)
        self._row = np.concatenate([np.arange(length) for length in lengths] or [np.zeros(0, np.int64)])
        frames = np.concatenate([tracks[number].frames for number in numbers] or [np.zeros(0, np.int64)])
        order = np.argsort(frames, kind="stable")
        self._frames, self._track, self._row = frames[order], self._track[order], self._row[order]
        self._times = {number: np.full(len(track.frames), np.nan) for number, track in tracks.items()}
        for number in numbers:
            (folder / self._name(number)).mkdir()

    def write(self, frame: Frame) -> None:
        """Write the crops of one frame."""
        first, last = np.searchsorted(self._frames, [frame.number, frame.number + 1])
        for number, row in zip(self._track[first:last].tolist(), self._row[first:last].tolist(), strict=True):
            crop = cut(frame.image, self._tracks[number].boxes[row], self._margin)
            if crop is None:
                continue
            _, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            (self._folder / self._name(number) / f"{frame.number:06d}.jpg").write_bytes(data.tobytes())
            self._times[number][row] = frame.time

    def finish(self) -> tuple[int, int, int]:
        """Write the table; returns how many crops and tracklets were written, and how many boxes gave no crop."""
        crops = tracklets = 0
        with (self._folder / "tracklets.csv").open("w", newline="", encoding="utf-8") as file:
            file.write(format_rows([COLUMNS]))
            for number, track in self._tracks.items():
                times = self._times[number]
                rows = np.flatnonzero(~np.isnan(times))
                if not len(rows):
                    (self._folder / self._name(number)).rmdir()
                    continue
                tracklets, crops = tracklets + 1, crops + len(rows)
                file.write(format_rows(self._line(number, track, int(row), float(times[row])) for row in rows))
        return crops, tracklets, len(self._frames) - crops

    def _line(self, number: int, track: Track, row: int, seconds: float) -> tuple[str | int, ...]:
        left, top, right, bottom = track.boxes[row].tolist()
        tracklet = f"{self._video.camera}/{self._name(number)}"
        at = int(track.frames[row])
        values = (round(value, 3) for value in (seconds, left, top, right - left, bottom - top, track.scores[row]))
        return (
            tracklet, "", self._video.camera, f"crops/{tracklet}/{at:06d}.jpg", self._video.name, number, at,
            *(f"{value:.10g}" for value in values),
        )  # fmt: skip

    def _name(self, number: int) -> str:
        return self._video.tracklet(number)


def cut(image: np.ndarray, box: np.ndarray, margin: float) -> np.ndarray | None:
    """Return what a box (left, top, right, bottom) and its margin show of a picture; None where nothing is left of it."""
    height, width = image.shape[:2]
    beyond = np.tile((box[2:] - box[:2]) * margin, 2) * [-1, -1, 1, 1]
    left, top, right, bottom = np.rint(box + beyond).clip(0, [width, height, width, height]).astype(int).tolist()
    return image[top:bottom, left:right] if min(right - left, bottom - top) >= _LEAST else None


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """Give one thing after the other while the next one is made in a thread."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield item


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch


def _told(frames: Iterable[Frame], reader: VideoReader, monitor: Monitor, task: str) -> Iterator[Frame]:
    """Pass frames on, and tell how many there were."""
    done = 0
    for done, frame in enumerate(frames, start=1):
        if done % _TOLD == 0:
            monitor.progress(task, done, max(reader.expected, done + 1))
        yield frame
    monitor.progress(task, done, max(done, 1))
