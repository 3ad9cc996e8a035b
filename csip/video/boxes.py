"""Detections from files: MOTChallenge's text files, or tables with a header.

    frame,id,x,y,width,height,confidence[,class,visibility | ,x,y,z]     MOTChallenge: detections (id -1), truth, or results
    frame,track,x,y,width,height,score                                   a table; columns in any order, track and score optional

Frames count from 1 (a folder of pictures named by numbers has those). A line of a track with confidence 0 is to be ignored, and
so is one of a class other than 1, a pedestrian: that is how MOTChallenge's truth marks them.

The file of hall/monday.mp4 is hall/monday.txt or .csv, that of the sequence MOT17-02 MOT17-02.txt, MOT17-02/gt/gt.txt or
MOT17-02/det/det.txt; all may be in a folder of their own.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from csip.errors import CsipError
from csip.video.find import VideoFile
from csip.video.tracking import Detections, Thresholds, Track

THRESHOLDS: Final = Thresholds()
_COLUMNS: Final = {
    "frame": ("frame",),
    "track": ("track", "id"),
    "x": ("x", "left", "bb_left"),
    "y": ("y", "top", "bb_top"),
    "width": ("width", "w", "bb_width"),
    "height": ("height", "h", "bb_height"),
    "score": ("score", "confidence", "conf"),
}
_OPTIONAL: Final = ("track", "score")
_PEDESTRIAN: Final = 1


@dataclass(frozen=True)
class GivenBoxes:
    """The lines of a file of boxes.

    Attributes
    ----------
    frames
        (n,) int64: numbers of frames, rising.
    tracks
        (n,) int64: -1 where there is none.
    boxes
        (n, 4) float64: left, top, right, bottom.
    scores
        (n,) float64.
    """

    frames: np.ndarray
    tracks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @property
    def tracked(self) -> bool:
        """Whether the boxes say whose they are."""
        return bool((self.tracks != -1).all()) and len(self.tracks) > 0

    def by_track(self) -> dict[int, Track]:
        """Return the tracks by their numbers, just as they are given."""
        rows = {int(number): np.flatnonzero(self.tracks == number) for number in np.unique(self.tracks)}
        return {number: Track(self.frames[at], self.boxes[at], self.scores[at]) for number, at in rows.items()}

    def of_frame(self, number: int) -> Detections:
        """Return the boxes of a frame as detections, scores brought to between 0 and 1."""
        first, last = np.searchsorted(self.frames, [number, number + 1])
        return Detections(self.boxes[first:last], self._probabilities()[first:last])

    def _probabilities(self) -> np.ndarray:
        low, high = self.scores.min(initial=np.inf), self.scores.max(initial=-np.inf)
        if low == high:
            return np.ones_like(self.scores)
        if low >= 0 and high <= 1:
            return self.scores
        return 0.1 + 0.9 * (self.scores - low) / (high - low)


def find_boxes(video: VideoFile, folder: Path | None) -> Path:
    """Return the file of a video's boxes: beside it, or in a folder of such files.

    Raises
    ------
    CsipError
        There is none.
    """
    if folder is None:
        place = video.path.parent if video.path.name == "img1" else video.path
        base = place if video.path.is_dir() else place.with_suffix("")
        tries = [base.with_name(base.name + end) for end in (".txt", ".csv")]
    else:
        path = PurePosixPath(video.name)
        base = folder / (path if video.path.is_dir() else path.with_suffix(""))
        places = (base, folder / base.name)
        tries = [place.with_name(base.name + end) for place in places for end in (".txt", ".csv")]
    if video.path.is_dir():
        tries += [base / "gt/gt.txt", base / "det/det.txt"]
    for file in tries:
        if file.is_file():
            return file
    raise CsipError(f"{video.path}: no boxes; looked for {', '.join(map(str, dict.fromkeys(tries)))}")


def read_boxes(path: Path) -> GivenBoxes:
    """Read a file of boxes.

    Raises
    ------
    CsipError
        A line cannot be used, or a track is in a frame twice; the message says which.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows, numbers = [], []
            columns: dict[str, int] | None = None
            for number, cells in enumerate(csv.reader(file), start=1):
                if not any(cell.strip() for cell in cells):
                    continue
                if columns is None:
                    columns, is_head = _columns(cells, path)
                    if is_head:
                        continue
                row = _row(cells, columns, f"{path}: line {number}")
                if row is not None:
                    rows.append(row)
                    numbers.append(number)
    except (UnicodeDecodeError, csv.Error) as error:
        raise CsipError(f"{path}: not a text file of boxes ({error})") from error
    table = np.array(rows, np.float64).reshape(-1, 7)
    frames, tracks = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    _check(path, frames, tracks, numbers)
    order = np.lexsort((tracks, frames))
    boxes = np.concatenate([table[:, 2:4], table[:, 2:4] + table[:, 4:6]], axis=1)
    return GivenBoxes(frames[order], tracks[order], boxes[order], table[order, 6])


def _check(path: Path, frames: np.ndarray, tracks: np.ndarray, numbers: list[int]) -> None:
    some = tracks != -1
    if some.any() and not some.all():
        without = int(np.flatnonzero(~some)[0])
        raise CsipError(
            f"{path}: line {numbers[without]} has no track, but other lines have one; give all of them a track, or none"
        )
    seen: dict[tuple[int, int], int] = {}
    for frame, track, number in zip(frames.tolist(), tracks.tolist(), numbers, strict=True):
        if track != -1 and seen.setdefault((frame, track), number) != number:
            raise CsipError(f"{path}: lines {seen[frame, track]} and {number} both have track {track} in frame {frame}")


def _columns(cells: list[str], path: Path) -> tuple[dict[str, int], bool]:
    """Return where each value is, and whether this line is the head."""
    names = [cell.strip().lower() for cell in cells]
    if _is_number(names[0]):
        return {"frame": 0, "track": 1, "x": 2, "y": 3, "width": 4, "height": 5, "score": 6, "class": 7}, False
    found = {
        column: names.index(name) for column, options in _COLUMNS.items() for name in options[::-1] if name in names
    }
    missing = [column for column in _COLUMNS if column not in found and column not in _OPTIONAL]
    if missing:
        raise CsipError(
            f"{path}: no column {', '.join(missing)} in its head ({', '.join(names)}); expected {', '.join(_COLUMNS)}"
        )
    return found, True


def _row(cells: list[str], columns: dict[str, int], where: str) -> list[float] | None:
    """Return frame, track, left, top, width, height, score; None where the line is to be ignored."""
    values = {}
    for name, default in (("frame", None), ("track", -1.0), ("x", None), ("y", None), ("width", None), ("height", None),
                          ("score", 1.0), ("class", float(_PEDESTRIAN))):  # fmt: skip
        at = columns.get(name)
        text = cells[at].strip() if at is not None and at < len(cells) else ""
        if not text and default is not None:
            values[name] = default
        elif _is_number(text):
            values[name] = float(text)
        else:
            raise CsipError(f"{where}: {name} is {text!r}; expected frame,id,x,y,width,height,confidence as numbers")
    for name in ("frame", "track"):
        if values[name] != round(values[name]):
            raise CsipError(f"{where}: {name} is {values[name]}; expected a whole number")
    # With ten columns the eighth is a coordinate in the world, -1 where it is not known.
    is_class = len(cells) == 9 and "class" in columns
    if values["track"] != -1 and (values["score"] == 0 or (is_class and values["class"] != _PEDESTRIAN)):
        return None
    if values["width"] <= 0 or values["height"] <= 0:
        raise CsipError(f"{where}: the box is {values['width']:g} x {values['height']:g}; expected sides above 0")
    return [values[name] for name in ("frame", "track", "x", "y", "width", "height", "score")]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
