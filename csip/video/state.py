"""State of an ingestion on disk.

data/NAME/.ingest/options.json         what all of it was made with
data/NAME/.ingest/videos/KEY.csv       the tracklets of a video that is done
data/NAME/.ingest/videos/KEY.json      and what it was: written last, so that a video with it is done
data/NAME/.ingest/work/KEY/            a video that is being read; thrown away by the next run
data/NAME/crops/CAMERA/TRACKLET/       moved there from work/ when the video is done
data/NAME/tracklets.csv                all videos' tables, one after the other
"""

from __future__ import annotations

import csv
import filecmp
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from csip.data.csv_table import format_rows, parse_table
from csip.data.labels import LABELS
from csip.data.names import canonical
from csip.errors import CsipError
from csip.files import atomic, flush, parse_json, write_bytes, write_json, write_text
from csip.video.decode import RATES
from csip.video.find import VideoFile
from csip.video.one_video import COLUMNS, BoxesFile, VideoSummary
from pose_cache.errors import PoseCacheError
from pose_cache.lock import held
from pose_cache.parts import PartsFolder

FORMAT: Final = 1
_STATE: Final = ".ingest"
_TABLE: Final = "tracklets.csv"
_WAIT: Final = 0.1  # seconds until another share may have written the options
_ATTEMPTS: Final = 600
_SAMPLED: Final = 16  # files of a folder of pictures that are looked into
_PIECE: Final = 4096


class IngestState:
    """The folder of an ingested data set, as it grows.

    Parameters
    ----------
    out : Path
        The data set's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._state = out / _STATE
        self._videos = self._state / "videos"
        self.work = self._state / "work"

    @property
    def jobs(self) -> PartsFolder:
        """Who writes: one process, or jobs that each do a share."""
        return PartsFolder(self._state, self.out)

    def options(self, share: bool = False) -> dict[str, Any] | None:
        """Return the options that the data set was begun with; None as long as no video is done, unless for a ``share``."""
        if not share and next(self._videos.glob("*.json"), None) is None:
            return None
        return _read_json(self._state / "options.json")

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises
        ------
        CsipError
            It is no folder, or holds files, but no ingested data set.
        """
        if self.out.exists() and not self.out.is_dir():
            raise CsipError(f"{self.out}: is a file; expected a folder to make")
        if self.out.is_dir() and not self._state.is_dir() and any(self.out.iterdir()):
            raise CsipError(
                f"{self.out}: holds something else than an ingested data set; give another folder", parameter="out"
            )

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Wait until no other share of this data set is between looking at its options and writing them."""
        with ExitStack() as stack:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    stack.enter_context(held(self._state / "lock-options", str(self.out)))
                    break
                except PoseCacheError:
                    if attempt == _ATTEMPTS:
                        raise
                    time.sleep(_WAIT)
            yield

    def begin(self, options: dict[str, Any], force: bool, share: bool = False) -> str:
        """Start, or go on with the same options.

        Parameters
        ----------
        options : dict
            All that the tracklets depend on but the videos.
        force : bool
            Make a data set anew that was begun with other options.
        share : bool
            Others may have begun with these options a moment ago, though nothing is done yet.

        Returns
        -------
        str
            What a person should know of it; empty where there is nothing.

        Raises
        ------
        CsipError
            It was begun with other options and ``force`` is not set.
        """
        before = self.options(share)
        note = ""
        if before is not None and (force or before != options):
            if not force:
                changes = [
                    f"{key} {_said(before.get(key))} -> {_said(options.get(key))}"
                    for key in sorted(before.keys() | options.keys())
                    if before.get(key) != options.get(key)
                ]
                raise CsipError(
                    f"{self.out}: was ingested with other options ({'; '.join(changes)}); give the same ones to go on, "
                    "force it to be made anew, or give another folder",
                    parameter="force",
                )
            note = self._clear()
        self._videos.mkdir(parents=True, exist_ok=True)
        if self.options(share=True) != options:
            write_json(self._state / "options.json", options)
        return note

    def _clear(self) -> str:
        labels = self.out / "labels.csv"
        labelled = labels.exists()
        if labelled:  # first, so that a kill leaves no labels of tracklets that are gone
            labels.replace(labels.with_suffix(".csv.old"))
        shutil.rmtree(self._videos, ignore_errors=True)
        for name in (_TABLE, "ingest.json"):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / "crops", ignore_errors=True)
        return f"{labels} names tracklets that are made anew: kept as {labels.name}.old" if labelled else ""

    def finished(self, video: VideoFile, source: dict[str, Any]) -> VideoSummary | None:
        """Return the summary of a video that is done, and was what it is now; else None."""
        record = _read_json(self._record(video))
        if record is None or not self._record(video).with_suffix(".csv").is_file():
            return None
        known = record.get("source")
        if record.get("video") != _identity(video) or not isinstance(known, dict) or not known:
            return None
        # What an earlier version did not note has no say.
        if known != {key: source.get(key) for key in known}:
            return None
        try:
            return VideoSummary(**record["summary"])
        except (KeyError, TypeError) as error:
            raise CsipError(f"{self._record(video)}: is damaged ({error}); delete it and run again") from error

    def start(self, video: VideoFile) -> Path:
        """Return an empty folder to write a video's tracklets into; what it had left before is removed."""
        self._record(video).unlink(missing_ok=True)
        flush(self._videos)
        return empty(self._work(video))

    def keep(self, video: VideoFile, source: dict[str, Any], summary: VideoSummary) -> str:
        """Put what is in the folder of `start` into its place; from then on the video is done.

        Returns
        -------
        str
            What a person should know of it; empty where there is nothing.
        """
        work, record = self._work(video), self._record(video)
        os.sync()  # all crops at once: thousands of single ones take long
        place = self.out / "crops" / video.camera
        note = self._forget_labels(record.with_suffix(".csv"), work, place)
        place.mkdir(parents=True, exist_ok=True)
        for old in [entry for entry in place.iterdir() if video.owns(entry.name)]:
            shutil.rmtree(old)
        for folder in sorted(entry for entry in work.iterdir() if entry.is_dir()):
            folder.rename(place / folder.name)
        flush(place)
        if not any(place.iterdir()):
            place.rmdir()
        flush(self.out / "crops")
        (work / _TABLE).replace(record.with_suffix(".csv"))
        flush(self.out)
        write_json(record, {"video": _identity(video), "source": source, "summary": asdict(summary)})
        shutil.rmtree(work, ignore_errors=True)
        return note

    def _forget_labels(self, before: Path, work: Path, place: Path) -> str:
        """Take the labels of a video's tracklets out of ``labels.csv`` where they are not what they were under the same names."""
        labels = self.out / LABELS
        if not labels.exists() or not before.exists() or _same(before, work, place):
            return ""
        with before.open(encoding="utf-8", newline="") as table:
            gone = {row["tracklet"] for row in csv.DictReader(table)}
        rows = list(parse_table(labels.read_bytes(), labels, ("tracklet",)))
        kept = [row for _, row in rows if canonical(row["tracklet"]) not in gone]
        if len(kept) == len(rows):
            return ""
        old = labels.with_suffix(".csv.old")
        write_bytes(old, labels.read_bytes())
        columns = list(rows[0][1])
        write_text(labels, format_rows([columns, *([row[column] for column in columns] for row in kept)]))
        return (
            f"{labels}: the video of {len(rows) - len(kept)} labelled tracklets has changed, and their labels are taken out; the "
            f"table as it was is {old.name}"
        )

    def assemble(self, videos: Sequence[VideoFile]) -> int:
        """Write the table of these videos, which are done; returns how many others are, too."""
        mine = [self._record(video) for video in videos]
        with (
            atomic(self.out / _TABLE, if_changed=True) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as table,
        ):
            table.write(",".join(COLUMNS) + "\n")
            for record in mine:
                with record.with_suffix(".csv").open(encoding="utf-8", newline="") as part:
                    next(part)
                    shutil.copyfileobj(part, table)
        shutil.rmtree(self.work, ignore_errors=True)
        return len(set(self._videos.glob("*.json")) - set(mine))

    def _work(self, video: VideoFile) -> Path:
        return self.work / self._record(video).stem

    def _record(self, video: VideoFile) -> Path:
        return self._videos / f"{hashlib.sha256(video.name.encode()).hexdigest()[:20]}.json"


def _same(before: Path, work: Path, place: Path) -> bool:
    """Tell whether a video that was read again has the tracklets that it had, picture for picture."""
    if before.read_bytes() != (work / _TABLE).read_bytes():
        return False
    for folder in (entry for entry in work.iterdir() if entry.is_dir()):
        names = [entry.name for entry in folder.iterdir()]
        if not (place / folder.name).is_dir() or any(filecmp.cmpfiles(folder, place / folder.name, names, False)[1:]):
            return False
    return True


def empty(folder: Path) -> Path:
    """Make a folder that has nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def source_of(video: VideoFile, boxes: BoxesFile | None) -> dict[str, Any]:
    """Describe the files that a video's tracklets come from: when they differ, the tracklets are stale."""
    files = [video.path] if video.path.is_file() else sorted(e for e in video.path.iterdir() if e.is_file())
    found = [(file.name, file.stat()) for file in files]
    names = "\0".join(f"{name} {one.st_size} {one.st_mtime_ns}" for name, one in found)
    source: dict[str, Any] = {
        "files": len(found),
        "bytes": sum(one.st_size for _, one in found),
        "digest": _short(names.encode("utf-8", "surrogateescape")),
        "sample": _sample(files),
        "boxes": None,
    }
    notes = [place / RATES for place in (video.path, video.path.parent)] if video.path.is_dir() else []
    if rates := [file.read_bytes() for file in notes if file.is_file()]:
        source["rates"] = _short(b"\0".join(rates))
    if boxes is not None:
        text = b"\0".join(file.name.encode("utf-8", "surrogateescape") + file.read_bytes() for file in boxes.files())
        source["boxes"] = {"name": boxes.path.name, "digest": _short(text), **asdict(boxes.options)}
        source["boxes"]["classes"] = list(boxes.options.classes) if boxes.options.classes is not None else None
    return source


def _sample(files: Sequence[Path]) -> int:
    """CRC-32 of some pieces of files, evenly spread: what replaces a file may have its size, and its time from a copy."""
    crc = 0
    for path in files[:: max(len(files) // _SAMPLED, 1)]:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            for at in (0, end // 2, max(end - _PIECE, 0)):
                file.seek(at)
                crc = zlib.crc32(file.read(_PIECE), crc)
    return crc


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _identity(video: VideoFile) -> dict[str, str]:
    return {"name": video.name, "camera": video.camera, "stem": video.stem}


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CsipError(f"{path}: is damaged ({error}); delete it and run again") from error
    if not isinstance(found, dict):
        raise CsipError(
            f"{path}: is damaged (expected an object, found {type(found).__name__}); delete it and run again"
        )
    return found
