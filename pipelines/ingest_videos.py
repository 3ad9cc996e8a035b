"""The stage that turns a folder of videos into a data set of tracklets."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from csip.errors import CsipError
from csip.monitor import Monitor
from csip.video.boxes import GivenBoxes, find_boxes, read_boxes
from csip.video.find import VideoFile, find_videos
from csip.video.ingestion import Detector, IngestOptions, VideoSummary, ingest_video
from csip.video.state import FORMAT, IngestState, source_of, write_summary
from pipelines.console import RichMonitor, console
from pose_cache.lock import held
from pose_cache.processor import usable_processors

DetectorName = Literal["auto", "rtmdet", "hog", "boxes"]


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
    """

    name: DetectorName = "auto"
    boxes: Path | None = None
    config: Path | None = None
    checkpoint: Path | None = None
    device: str = "auto"
    batch: int = 8
    smallest: float = 0.3
    threads: int | None = None


def run(
    videos: Path,
    out: Path,
    detector: DetectorOptions | None = None,
    options: IngestOptions | None = None,
    camera: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Make ``out/crops``, ``out/tracklets.csv`` and ``out/ingest.json``; an interrupted run resumes.

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

    Returns
    -------
    dict
        What ingest.json says.

    Raises
    ------
    CsipError
        No video could be read, the folder holds something else, or it was begun with other options.
    """
    summary = ingest(videos, out, detector, options, camera, force)
    _show(summary, out)
    return summary


def ingest(
    videos: Path,
    out: Path,
    detector: DetectorOptions | None = None,
    options: IngestOptions | None = None,
    camera: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Do what `run` does, and leave it to the caller to say what has come of it."""
    detector, options = detector or DetectorOptions(), options or IngestOptions()
    files = find_videos(videos, camera)
    state = IngestState(out)
    state.check()
    with held(state.lock, str(out)), RichMonitor() as monitor:
        name = _choose(detector, state, force, monitor)
        note = state.begin(_fingerprint(name, detector, options, camera), force)
        if note:
            monitor.say(note)
        done, skipped = _ingest(files, state, _Source(name, detector), options, monitor)
        if not done:
            reasons = "; ".join(entry["reason"] for entry in skipped[:3])
            raise CsipError(f"{videos}: none of {len(files)} videos could be read: {reasons}")
        others = state.assemble([file for file in files if file.name in done])
        if others > 0:
            monitor.say(
                f"{others} videos that were ingested before are not below {videos}, or were passed over: left out of the table"
            )
        summary = _summarise(name, files, done, skipped)
        write_summary(out, summary)
    return summary


def _ingest(
    files: list[VideoFile], state: IngestState, source: _Source, options: IngestOptions, monitor: Monitor
) -> tuple[dict[str, VideoSummary], list[dict[str, str]]]:
    done: dict[str, VideoSummary] = {}
    skipped: list[dict[str, str]] = []
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
        except CsipError as error:
            monitor.say(f"passed over {error}")
            skipped.append({"video": video.name, "reason": str(error)})
        monitor.progress("videos", number, len(files), video.name)
    return done, skipped


class _Source:
    """Where videos' people come from; a detector is loaded when the first video needs it."""

    def __init__(self, name: str, options: DetectorOptions) -> None:
        self._name, self._options = name, options
        self._detector: Detector | None = None

    def file(self, video: VideoFile) -> Path | None:
        """Return a video's file of boxes, where boxes are given."""
        return find_boxes(video, self._options.boxes) if self._name == "boxes" else None

    def people(self, boxes: Path | None) -> Detector | GivenBoxes:
        """Return the boxes of that file, or the detector where there is none."""
        if boxes is not None:
            return read_boxes(boxes)
        self._detector = self._detector or self._load()
        return self._detector

    def _load(self) -> Detector:
        chosen = self._options
        if self._name == "hog":
            from csip.video.hog import HogDetector

            return HogDetector(chosen.smallest, chosen.threads or usable_processors())
        from csip.video.rtmdet import RTMDetDetector

        return RTMDetDetector(chosen.config, chosen.checkpoint, chosen.device, chosen.batch)


def _choose(detector: DetectorOptions, state: IngestState, force: bool, monitor: Monitor) -> str:
    if detector.name != "auto":
        return detector.name
    if detector.checkpoint is not None:
        return "rtmdet"
    if detector.boxes is not None:
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
    """Return all that the tracklets depend on but the videos themselves."""
    chosen: dict[str, Any] = {"format": FORMAT, "detector": name, "camera": camera, **asdict(options)}
    chosen.update({f"rules.{key}": value for key, value in chosen.pop("rules").items()})
    if name == "hog":
        chosen["smallest"] = detector.smallest
    if name == "rtmdet":
        for key, path in (("config", detector.config), ("checkpoint", detector.checkpoint)):
            if path is not None and not path.is_file():
                raise CsipError(f"{path}: no such {key} of a detector")
            chosen[key] = None if path is None else f"{path.name} {_digest(path)}"
    return chosen


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _summarise(
    name: str, files: list[VideoFile], done: dict[str, VideoSummary], skipped: list[dict[str, str]]
) -> dict[str, Any]:
    frames = sum(one.frames for one in done.values())
    seconds = sum(one.seconds for one in done.values())
    elapsed = sum(one.elapsed for one in done.values())
    dropped: Counter[str] = Counter()
    for one in done.values():
        dropped.update(one.dropped)
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "detector": name,
        "videos": len(files),
        "ingested": len(done),
        "skipped": skipped,
        "problems": {video: one.problem for video, one in done.items() if one.problem},
        "cameras": sorted({file.camera for file in files if file.name in done}),
        "frames": frames,
        "seconds": round(seconds, 3),
        "elapsed": round(elapsed, 3),
        "frames_per_second": round(frames / elapsed, 2) if elapsed else None,
        "real_time_factor": round(seconds / elapsed, 3) if elapsed else None,
        "tracklets": sum(one.tracklets for one in done.values()),
        "crops": sum(one.crops for one in done.values()),
        "dropped": dict(dropped),
    }


def _show(summary: dict[str, Any], out: Path) -> None:
    table = Table(show_header=False, box=None)
    pace = f"{summary['frames_per_second'] or 0:,.1f} frames/s, {summary['real_time_factor'] or 0:.1f} x real time"
    for what, value in (
        ("videos", f"{summary['ingested']} of {summary['videos']}, {len(summary['skipped'])} passed over"),
        ("frames", f"{summary['frames']:,}, {summary['seconds']:,.0f} s; {pace}"),
        ("cameras", ", ".join(summary["cameras"][:8]) + (" ..." if len(summary["cameras"]) > 8 else "")),
        ("tracklets", f"{summary['tracklets']:,} with {summary['crops']:,} crops ({summary['detector']})"),
        ("left out", ", ".join(f"{key} {count:,}" for key, count in sorted(summary["dropped"].items())) or "nothing"),
    ):
        table.add_row(what, value)
    console.print(table)
    console.print(f"ingest -> {out}/tracklets.csv", markup=False)
    if summary["ingested"] and not summary["tracklets"]:
        console.print(
            "no tracklets: nobody was found, or the rules leave everybody out (see `csip ingest --help`: --smallest, "
            "--min-frames, --min-height)"
        )
