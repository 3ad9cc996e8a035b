"""A folder of videos becomes a data set of tracklets: one video after the other, each written whole or not at all."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from csip.errors import CsipError
from csip.files import digest, write_json
from csip.monitor import Monitor, Silent
from csip.video.box_dialects import BoxesOptions
from csip.video.boxes import find_boxes
from csip.video.find import VideoFile, find_videos
from csip.video.one_video import BoxesFile, Detector, IngestOptions, VideoSummary, ingest_video
from csip.video.state import FORMAT, IngestState, source_of
from pose_cache.lock import held

DetectorName = Literal["auto", "rtmdet", "hog", "boxes"]
SUMMARY = "ingest.json"


@dataclass(frozen=True)
class DetectorOptions:
    """Who finds the people.

    Attributes
    ----------
    name
        ``rtmdet``, ``hog``, ``boxes``, or ``auto``: what the data set was begun with, else RTMDet where its weights are here
        or can be downloaded, else HOG.
    boxes
        Folder of the files of boxes; beside the videos where it is not given.
    config, checkpoint
        Another detector of mmdet, and its weights.
    device, batch
        Where it runs, and on how many frames at once.
    smallest
        HOG: height of the smallest person to look for, as a share of the picture's.
    threads
        HOG: pictures looked at at once; all processors where it is not given.
    reading
        How the files of boxes are to be read.
    """

    name: DetectorName = "auto"
    boxes: Path | None = None
    config: Path | None = None
    checkpoint: Path | None = None
    device: str = "auto"
    batch: int = 8
    smallest: float = 0.3
    threads: int | None = None
    reading: BoxesOptions = field(default_factory=BoxesOptions)


@dataclass(frozen=True)
class Skipped:
    """A video of which nothing could be used, and why."""

    video: str
    reason: str


@dataclass(frozen=True)
class IngestResult:
    """What became of a folder of videos; ``ingest.json`` holds the same.

    Attributes
    ----------
    created
        When it was finished, ISO 8601.
    detector
        Who found the people.
    videos, ingested
        How many videos there are, and how many could be used.
    skipped
        The others.
    problems
        What is wrong with a video that was used, or with its boxes, by the video's name.
    boxes
        What files of boxes were recognised as, and of how many videos.
    cameras
        Their names, sorted.
    frames, seconds
        Length of all videos together.
    elapsed
        Seconds that it took, those of earlier starts included.
    tracklets, crops
        How many there are.
    dropped
        What was left out, counted by reason.
    """

    created: str
    detector: str
    videos: int
    ingested: int
    skipped: tuple[Skipped, ...]
    problems: dict[str, str]
    boxes: dict[str, int]
    cameras: tuple[str, ...]
    frames: int
    seconds: float
    elapsed: float
    tracklets: int
    crops: int
    dropped: dict[str, int]

    @property
    def frames_per_second(self) -> float | None:
        """Frames of video read per second of work."""
        return round(self.frames / self.elapsed, 2) if self.elapsed else None

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of video per second of work."""
        return round(self.seconds / self.elapsed, 3) if self.elapsed else None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        rates = {"frames_per_second": self.frames_per_second, "real_time_factor": self.real_time_factor}
        write_json(path, {**asdict(self), **rates})


def ingest(
    videos: Path,
    out: Path,
    detector: DetectorOptions | None = None,
    options: IngestOptions | None = None,
    camera: str | None = None,
    force: bool = False,
    monitor: Monitor | None = None,
) -> IngestResult:
    """Make ``out/crops``, ``out/tracklets.csv`` and ``out/ingest.json``; an interrupted ingest resumes.

    Parameters
    ----------
    videos : Path
        A folder of videos, or one.
    out : Path
        The data set's folder.
    detector : DetectorOptions, optional
        Who finds the people.
    options : IngestOptions, optional
        Looks, crops and the rules of tracklets.
    camera : str, optional
        Regular expression that finds the camera in a video's path.
    force : bool
        Make a data set anew that was made otherwise.
    monitor : Monitor, optional
        Hears of the progress.

    Raises
    ------
    CsipError
        No video could be read, the folder holds something else, or it was begun with other options.
    """
    detector, options, monitor = detector or DetectorOptions(), options or IngestOptions(), monitor or Silent()
    files = find_videos(videos, camera, monitor)
    state = IngestState(out)
    state.check()
    with held(state.lock, str(out)):
        name = _choose(detector, state, force, monitor)
        note = state.begin(_fingerprint(name, detector, options, camera), force)
        if note:
            monitor.say(note)
        done, skipped = _ingest(files, state, _Source(name, detector), options, monitor)
        if not done:
            reasons = "; ".join(entry.reason for entry in skipped[:3])
            raise CsipError(f"{videos}: none of {len(files)} videos could be read: {reasons}")
        others = state.assemble([file for file in files if file.name in done])
        if others > 0:
            monitor.say(
                f"{others} videos that were ingested before are not below {videos}, or were passed over: left out of the table"
            )
        result = _summarise(name, files, done, skipped)
        result.save(out / SUMMARY)
    return result


def _ingest(
    files: Sequence[VideoFile], state: IngestState, source: _Source, options: IngestOptions, monitor: Monitor
) -> tuple[dict[str, VideoSummary], list[Skipped]]:
    done: dict[str, VideoSummary] = {}
    skipped: list[Skipped] = []
    said: set[str] = set()
    for number, video in enumerate(files, start=1):
        try:
            boxes = source.file(video)
            origin = source_of(video, boxes)
            summary = state.finished(video, origin)
            if summary is None:
                folder = state.start(video)
                summary = ingest_video(video, source.people(boxes), options, folder, monitor)
                state.keep(video, origin, summary)
            done[video.name] = summary
            if summary.problem:
                monitor.say(f"{video.name}: {summary.problem}")
            if summary.boxes and _kind(summary.boxes) not in said:
                said.add(_kind(summary.boxes))
                monitor.say(f"{video.name}: boxes read as {summary.boxes}")
        except CsipError as error:
            monitor.say(f"passed over {error}")
            skipped.append(Skipped(video.name, str(error)))
        monitor.progress("videos", number, len(files), video.name)
    return done, skipped


class _Source:
    """Where videos' people come from; a detector is loaded when the first video needs it."""

    def __init__(self, name: str, options: DetectorOptions) -> None:
        self._name, self._options = name, options
        self._detector: Detector | None = None

    def file(self, video: VideoFile) -> BoxesFile | None:
        """Return a video's file of boxes, where boxes are given."""
        if self._name != "boxes":
            return None
        return BoxesFile(find_boxes(video, self._options.boxes), self._options.reading)

    def people(self, boxes: BoxesFile | None) -> Detector | BoxesFile:
        """Return that file, or the detector where there is none."""
        if boxes is not None:
            return boxes
        self._detector = self._detector or self._load()
        return self._detector

    def _load(self) -> Detector:
        chosen = self._options
        if self._name == "hog":
            from csip.video.hog import HogDetector

            return HogDetector(chosen.smallest, chosen.threads or len(os.sched_getaffinity(0)))
        from csip.video.rtmdet import RTMDetDetector

        return RTMDetDetector(chosen.config, chosen.checkpoint, chosen.device, chosen.batch)


def _choose(detector: DetectorOptions, state: IngestState, force: bool, monitor: Monitor) -> str:
    if detector.name != "auto":
        return detector.name
    if detector.checkpoint is not None:
        return "rtmdet"
    if detector.boxes is not None or detector.reading != BoxesOptions():
        return "boxes"
    begun = None if force else state.options()
    if begun is not None:
        return str(begun["detector"])
    from csip.video.rtmdet import weights_at_hand

    if weights_at_hand():
        return "rtmdet"
    monitor.say(
        "detector hog: RTMDet's weights are not here and cannot be downloaded. HOG finds standing people who are seen "
        "whole; --detector rtmdet says how to get the weights"
    )
    return "hog"


def _fingerprint(name: str, detector: DetectorOptions, options: IngestOptions, camera: str | None) -> dict[str, Any]:
    """Return all that the tracklets depend on but the videos and their boxes."""
    chosen: dict[str, Any] = {"format": FORMAT, "detector": name, "camera": camera, **asdict(options)}
    chosen.update({f"rules.{key}": value for key, value in chosen.pop("rules").items()})
    if name == "hog":
        chosen["smallest"] = detector.smallest
    if name == "rtmdet":
        for key, path in (("config", detector.config), ("checkpoint", detector.checkpoint)):
            if path is not None and not path.is_file():
                raise CsipError(f"{path}: no such {key} of a detector")
            chosen[key] = None if path is None else f"{path.name} {digest(path)}"
    return chosen


def _summarise(
    name: str, files: Sequence[VideoFile], done: Mapping[str, VideoSummary], skipped: Sequence[Skipped]
) -> IngestResult:
    all_done = done.values()
    dropped: Counter[str] = Counter()
    for one in all_done:
        dropped.update(one.dropped)
    return IngestResult(
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        detector=name,
        videos=len(files),
        ingested=len(done),
        skipped=tuple(skipped),
        problems={video: one.problem for video, one in done.items() if one.problem},
        boxes=dict(Counter(_kind(one.boxes) for one in all_done if one.boxes)),
        cameras=tuple(sorted({file.camera for file in files if file.name in done})),
        frames=sum(one.frames for one in all_done),
        seconds=round(sum(one.seconds for one in all_done), 3),
        elapsed=round(sum(one.elapsed for one in all_done), 3),
        tracklets=sum(one.tracklets for one in all_done),
        crops=sum(one.crops for one in all_done),
        dropped=dict(dropped),
    )


def _kind(reading: str) -> str:
    """Leave the file's name out of what its boxes were recognised as."""
    return reading.partition(": ")[2]
