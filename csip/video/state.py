"""State of an ingestion on disk.

data/NAME/.ingest/options.json         what all of it was made with
data/NAME/.ingest/videos/KEY.csv       the tracklets of a video that is done
data/NAME/.ingest/videos/KEY.json      and what it was: written last, so that a video with it is done
data/NAME/.ingest/work/                the video that is being read; thrown away by the next run
data/NAME/crops/CAMERA/TRACKLET/       moved there from work/ when the video is done
data/NAME/tracklets.csv                all videos' tables, one after the other
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from csip.errors import CsipError
from csip.video.find import VideoFile
from csip.video.ingestion import COLUMNS, VideoSummary

FORMAT: Final = 1
_STATE: Final = ".ingest"
_TABLE: Final = "tracklets.csv"


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
    def lock(self) -> Path:
        """File that one process holds while it writes."""
        return self._state / "lock"

    def options(self) -> dict[str, Any] | None:
        """Return the options that the data set was begun with; None as long as no video is done."""
        if next(self._videos.glob("*.json"), None) is None:
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
            raise CsipError(f"{self.out}: holds something else than an ingested data set; give another --out folder")

    def begin(self, options: dict[str, Any], force: bool) -> str:
        """Start, or go on with the same options.

        Returns
        -------
        str
            What a person should know of it; empty where there is nothing.

        Raises
        ------
        CsipError
            It was begun with other options and ``force`` is not set.
        """
        before = self.options()
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
                    "--force to make it anew, or another --out folder"
                )
            note = self._clear()
        self._videos.mkdir(parents=True, exist_ok=True)
        _write(self._state / "options.json", json.dumps(options, indent=1))
        return note

    def _clear(self) -> str:
        shutil.rmtree(self._videos, ignore_errors=True)
        for name in (_TABLE, "ingest.json"):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(self.out / "crops", ignore_errors=True)
        labels = self.out / "labels.csv"
        if not labels.exists():
            return ""
        labels.replace(labels.with_suffix(".csv.old"))
        return f"{labels} names tracklets that are made anew: kept as {labels.name}.old"

    def finished(self, video: VideoFile, source: dict[str, Any]) -> VideoSummary | None:
        """Return the summary of a video that is done, and was what it is now; else None."""
        record = _read_json(self._record(video))
        if record is None or record["video"] != _identity(video) or record["source"] != source:
            return None
        return VideoSummary(**record["summary"])

    def start(self, video: VideoFile) -> Path:
        """Return an empty folder to write a video's tracklets into; what it had left before is removed."""
        self._record(video).unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        return self.work

    def keep(self, video: VideoFile, source: dict[str, Any], summary: VideoSummary) -> None:
        """Put what is in the folder of `start` into its place; from then on the video is done."""
        os.sync()  # all crops at once: thousands of single ones take long
        place = self.out / "crops" / video.camera
        place.mkdir(parents=True, exist_ok=True)
        mine = re.compile(rf"{re.escape(video.stem)}-\d{{4,}}")
        for old in [entry for entry in place.iterdir() if mine.fullmatch(entry.name)]:
            shutil.rmtree(old)
        for folder in sorted(entry for entry in self.work.iterdir() if entry.is_dir()):
            folder.rename(place / folder.name)
        if not any(place.iterdir()):
            place.rmdir()
        (self.work / _TABLE).replace(self._record(video).with_suffix(".csv"))
        record = {"video": _identity(video), "source": source, "summary": asdict(summary)}
        _write(self._record(video), json.dumps(record, indent=1))
        shutil.rmtree(self.work, ignore_errors=True)

    def assemble(self, videos: Sequence[VideoFile]) -> int:
        """Write the table of these videos, which are done; returns how many others are, too."""
        temporary = self._state / _TABLE
        mine = [self._record(video) for video in videos]
        with temporary.open("w", encoding="utf-8", newline="") as table:
            table.write(",".join(COLUMNS) + "\n")
            for record in mine:
                with record.with_suffix(".csv").open(encoding="utf-8", newline="") as part:
                    next(part)
                    shutil.copyfileobj(part, table)
            table.flush()
            os.fsync(table.fileno())
        temporary.replace(self.out / _TABLE)
        return len(set(self._videos.glob("*.json")) - set(mine))

    def _record(self, video: VideoFile) -> Path:
        return self._videos / f"{hashlib.sha256(video.name.encode()).hexdigest()[:20]}.json"


def source_of(video: VideoFile, boxes: Path | None) -> dict[str, Any]:
    """Describe the files that a video's tracklets come from: when they differ, the tracklets are stale."""
    files = [video.path] if video.path.is_file() else sorted(e for e in video.path.iterdir() if e.is_file())
    found = [file.stat() for file in [*files, *([boxes] if boxes else [])]]
    return {
        "files": len(files),
        "bytes": sum(one.st_size for one in found),
        "modified": max((one.st_mtime_ns for one in found), default=0),
        "boxes": None if boxes is None else boxes.name,
    }


def write_summary(out: Path, summary: dict[str, Any]) -> None:
    """Write ingest.json."""
    _write(out / "ingest.json", json.dumps(summary, indent=1, ensure_ascii=False))


def _identity(video: VideoFile) -> dict[str, str]:
    return {"name": video.name, "camera": video.camera, "stem": video.stem}


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise CsipError(f"{path}: is damaged ({error}); delete it and run again") from error


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
