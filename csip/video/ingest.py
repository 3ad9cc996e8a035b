"""A folder of videos becomes a data set of tracklets: by one process or many, each video written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from csip.errors import CsipError
from csip.files import digest
from csip.monitor import Monitor, Silent
from csip.video.box_raw import BoxesOptions
from csip.video.boxes import find_boxes
from csip.video.find import VideoFile, find_videos
from csip.video.one_video import BoxesFile, Detector, IngestOptions, VideoSummary, ingest_video
from csip.video.result import IngestResult, Skipped, kind_of, summarise
from csip.video.state import FORMAT, IngestState, empty, source_of
from pose_cache.pieces import Spread
from pose_cache.processor import usable_processors

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


def ingest(
    videos: Path,
    out: Path,
    detector: DetectorOptions | None = None,
    options: IngestOptions | None = None,
    camera: str | None = None,
    force: bool = False,
    monitor: Monitor | None = None,
    spread: Spread | None = None,
) -> IngestResult:
    """Make ``out/crops``, ``out/tracklets.csv`` and ``out/ingest.json``; an interrupted ingest resumes.

    One piece of work is a video, whoever does it, and this process alone puts what comes of it into its place.

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
    spread : Spread, optional
        Which processes do the work, and which share of it this call does. After a share there is no table yet: the same call
        without one makes it when all shares are done, and ingests first what no share has.

    Raises
    ------
    CsipError
        No video could be read, the folder holds something else, or it was begun with other options.
    PoseCacheError
        Somebody else is writing ``out``, or a worker died.
    """
    detector, options, monitor = detector or DetectorOptions(), options or IngestOptions(), monitor or Silent()
    spread = spread or Spread()
    files = find_videos(videos, camera, monitor)
    state = IngestState(out)
    state.check()
    if force and spread.share is not None:
        raise CsipError(
            f"{out}: a share cannot be made anew on its own; delete the folder, or force it once without a share",
            parameter="force",
        )
    with state.jobs.held(spread.share):
        with state.beginning():
            detector = replace(detector, name=_choose(detector, state, force, spread.share is not None, monitor))
            note = state.begin(_fingerprint(detector, options, camera), force, spread.share is not None)
        if note:
            monitor.say(note)
        if spread.merge and state.jobs.absent() != []:
            raise state.jobs.unfinished(f"{out}: videos are not ingested")
        mine = spread.mine(files)
        done, skipped = _Ingest(state, detector, options, monitor).run(mine, spread)
        if mine and not done:
            reasons = "; ".join(entry.reason for entry in skipped[:3])
            raise CsipError(
                f"{videos}: none of {len(mine)} videos could be read: {reasons}", parameter=skipped[0].parameter
            )
        result = summarise(detector.name, mine, done, skipped)
        if spread.share is not None:
            state.jobs.finish(spread.share)
        else:
            others = state.assemble([file for file in files if file.name in done])
            if others > 0:
                monitor.say(
                    f"{others} videos that were ingested before are not below {videos}, or were passed over: left out of "
                    "the table"
                )
            result.save(out / SUMMARY)
            state.jobs.forget_shares()
    return result


class _Ingest:
    """The videos of one call: which are done, who does the others, and what is said of each."""

    def __init__(self, state: IngestState, detector: DetectorOptions, options: IngestOptions, monitor: Monitor) -> None:
        self._state, self._detector, self._options, self._monitor = state, detector, options, monitor
        self._done: dict[str, VideoSummary] = {}
        self._skipped: dict[str, Skipped] = {}
        self._said: set[str] = set()

    def run(self, files: Sequence[VideoFile], spread: Spread) -> tuple[dict[str, VideoSummary], list[Skipped]]:
        """Return what became of the videos, in their order."""
        pieces: list[_Piece] = []
        contents: dict[tuple[int, int, int], str] = {}
        for video in files:
            try:
                boxes = self._boxes(video)
                origin = source_of(video, boxes)
                summary = self._state.finished(video, origin)
                same = contents.setdefault((origin["files"], origin["bytes"], origin["sample"]), video.name)
                if same != video.name:
                    self._monitor.say(
                        f"{video.name} seems to be a copy of {same}: its people are there twice; move one of them out"
                    )
            except (CsipError, OSError) as error:
                self._finish(video, _skipped(video, error), files)
                continue
            if summary is not None:
                self._finish(video, summary, files)
            else:
                pieces.append(_Piece(video, boxes, origin, self._state.start(video)))
        for piece, found in self._results(pieces, spread):
            if isinstance(found, VideoSummary):
                note = self._state.keep(piece.video, piece.origin, found)
                if note:
                    self._monitor.say(note)
            self._finish(piece.video, found, files)
        done = {video.name: self._done[video.name] for video in files if video.name in self._done}
        return done, [self._skipped[video.name] for video in files if video.name in self._skipped]

    def _boxes(self, video: VideoFile) -> BoxesFile | None:
        if self._detector.name != "boxes":
            return None
        return BoxesFile(find_boxes(video, self._detector.boxes), self._detector.reading)

    def _results(self, pieces: Sequence[_Piece], spread: Spread) -> Iterator[tuple[_Piece, VideoSummary | Skipped]]:
        if spread.alone:
            try:
                for piece in pieces:
                    yield _ingest_one(piece, self._detector, self._options, self._monitor)
            finally:
                _detector.cache_clear()
            return
        # Processes share the processors: HOG takes all of them on its own.
        threads = self._detector.threads or max(_processors() // spread.workers, 1)
        work = partial(
            _ingest_one, detector=replace(self._detector, threads=threads), options=self._options, monitor=Silent()
        )
        yield from spread.run(work, pieces)

    def _finish(self, video: VideoFile, found: VideoSummary | Skipped, files: Sequence[VideoFile]) -> None:
        if isinstance(found, Skipped):
            self._skipped[video.name] = found
            self._monitor.say(f"passed over {found.reason}")
        else:
            self._done[video.name] = found
            if found.problem:
                self._monitor.say(f"{video.name}: {found.problem}")
            if found.boxes and kind_of(found.boxes) not in self._said:
                self._said.add(kind_of(found.boxes))
                self._monitor.say(f"{video.name}: boxes read as {found.boxes}")
        self._monitor.progress("videos", len(self._done) + len(self._skipped), len(files), video.name)


@dataclass(frozen=True)
class _Piece:
    """A video to ingest: its boxes where they are given, what its files are, and the folder to write into."""

    video: VideoFile
    boxes: BoxesFile | None
    origin: dict[str, Any]
    folder: Path


def _ingest_one(
    piece: _Piece, detector: DetectorOptions, options: IngestOptions, monitor: Monitor
) -> tuple[_Piece, VideoSummary | Skipped]:
    """Ingest a video, in whatever process; a video that cannot be used comes back with the reason."""
    empty(piece.folder)  # a worker that was lost may have left something
    try:
        people = piece.boxes or _detector(detector)
        return piece, ingest_video(piece.video, people, options, piece.folder, monitor)
    except CsipError as error:
        return piece, _skipped(piece.video, error)


def _skipped(video: VideoFile, error: CsipError | OSError) -> Skipped:
    return Skipped(video.name, str(error), error.parameter if isinstance(error, CsipError) else "")


@lru_cache(maxsize=1)
def _detector(options: DetectorOptions) -> Detector:
    """Load a process's detector, once."""
    if options.name == "hog":
        from csip.video.hog import HogDetector

        return HogDetector(options.smallest, options.threads or _processors())
    from csip.video.rtmdet import RTMDetDetector

    return RTMDetDetector(options.config, options.checkpoint, options.device, options.batch)


def _processors() -> int:
    return usable_processors()


def _choose(detector: DetectorOptions, state: IngestState, force: bool, share: bool, monitor: Monitor) -> DetectorName:
    if detector.name != "auto":
        return detector.name
    if detector.checkpoint is not None:
        return "rtmdet"
    if detector.boxes is not None or detector.reading != BoxesOptions():
        return "boxes"
    begun = (None if force else state.options(share)) or {}
    if begun.get("detector") in get_args(DetectorName):
        return cast(DetectorName, begun["detector"])
    from csip.video.rtmdet import weights_at_hand

    if weights_at_hand():
        return "rtmdet"
    monitor.say(
        "detector hog: RTMDet's weights are not here and cannot be downloaded. HOG finds standing people who are seen "
        "whole; the detector rtmdet says how to get the weights"
    )
    return "hog"


def _fingerprint(detector: DetectorOptions, options: IngestOptions, camera: str | None) -> dict[str, Any]:
    """Return all that the tracklets depend on but the videos and their boxes."""
    chosen: dict[str, Any] = {"format": FORMAT, "detector": detector.name, "camera": camera, **asdict(options)}
    chosen.update({f"rules.{key}": value for key, value in chosen.pop("rules").items()})
    if detector.name == "hog":
        chosen["smallest"] = detector.smallest
    if detector.name == "rtmdet":
        for key, path in (("config", detector.config), ("checkpoint", detector.checkpoint)):
            if path is not None and not path.is_file():
                raise CsipError(f"{path}: no such {key} of a detector")
            chosen[key] = None if path is None else f"{path.name} {digest(path)}"
    return chosen
