"""What became of a folder of videos."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from csip.files import write_json
from csip.video.find import VideoFile
from csip.video.one_video import VideoSummary


@dataclass(frozen=True)
class Skipped:
    """A video of which nothing could be used, why, and the parameter that would help (see `csip.errors.UserError`)."""

    video: str
    reason: str
    parameter: str = ""


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


def summarise(
    name: str, files: Sequence[VideoFile], done: Mapping[str, VideoSummary], skipped: Sequence[Skipped]
) -> IngestResult:
    """Add up what became of the videos."""
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
        boxes=dict(Counter(kind_of(one.boxes) for one in all_done if one.boxes)),
        cameras=tuple(sorted({file.camera for file in files if file.name in done})),
        frames=sum(one.frames for one in all_done),
        seconds=round(sum(one.seconds for one in all_done), 3),
        elapsed=round(sum(one.elapsed for one in all_done), 3),
        tracklets=sum(one.tracklets for one in all_done),
        crops=sum(one.crops for one in all_done),
        dropped=dict(dropped),
    )


def kind_of(reading: str) -> str:
    """Leave the file's name out of what its boxes were recognised as."""
    return reading.partition(": ")[2]
