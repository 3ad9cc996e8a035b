"""Detections from files: `read_boxes` reads whatever dialect they are in, and fits them to their video.

`csip.video.box_dialects` lists the dialects of text, `csip.video.box_json` has COCO's. What comes out are people alone, in
pixels of the picture that a player shows (`csip.video.geometry`), by the numbers of the video's frames: 1, 2, ... or those
that name the pictures of a folder.

Frames count from 1 in the file, too, unless a frame 0 proves otherwise. Where all confidences of a file of tracks are 0 or 1
and both occur, 0 means that a box is to be ignored, as MOTChallenge's truth says it.

The file of hall/monday.mp4 is hall/monday.txt, .csv, .tsv or .json, or YOLO's hall/monday/*.txt, one a frame; that of the
sequence MOT17-02 MOT17-02.txt, MOT17-02/gt/gt.txt or MOT17-02/det/det.txt. All may be in a folder of their own, and one JSON
there may have the boxes of all videos.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from csip.data.names import canonical
from csip.errors import CsipError
from csip.video.box_dialects import interpret
from csip.video.box_json import holds, read_coco
from csip.video.box_raw import BoxesOptions, RawBoxes
from csip.video.box_table import read_table
from csip.video.box_yolo import files_of_frames, read_folder
from csip.video.find import VideoFile
from csip.video.geometry import Geometry
from csip.video.tracking import Detections, Thresholds, Track

THRESHOLDS: Final = Thresholds()
_ENDS: Final = (".txt", ".csv", ".tsv", ".json")
_FOLDERS: Final = ("", "labels", "obj_train_data")
_BEYOND: Final = 0.05  # share of the picture that boxes of people at its edge may stick out
_TOLERANCE: Final = 0.02
_MANY: Final = 20  # boxes that tell per cent from pixels
_PER_CENT: Final = (50, 100.5)
_PROOF: Final = 0.2  # share of boxes outside the picture that proves a reading wrong


@dataclass(frozen=True)
class Shown:
    """What has to be known of a video to read its boxes.

    Attributes
    ----------
    geometry
        How its pictures are shown.
    first, last
        Numbers of its first and its last frame; the last one is what the file says of itself, 0 where it says nothing.
    named
        Whether its frames are pictures named by numbers.
    name
        Path below the folder of videos.
    """

    geometry: Geometry
    first: int = 1
    last: int = 0
    named: bool = False
    name: str = ""


@dataclass(frozen=True)
class GivenBoxes:
    """The people in a file of boxes.

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
    reading
        What the file was recognised as, in words.
    dropped
        How many boxes were left out, by reason.
    length
        Frames that the file is about, where it says it.
    """

    frames: np.ndarray
    tracks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    reading: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    length: int | None = None

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

    def mismatch(self, first: int, last: int) -> str:
        """Say that the boxes are of a longer or a shorter video than that of these frames; empty where nothing tells."""
        count = last - first + 1
        if self.length is not None and self.length != count:
            return f"is about {self.length} frames, the video has {count}"
        if not len(self.frames):
            return ""
        if self.frames[-1] > last:
            return f"goes to frame {self.frames[-1]}, the video to {last}"
        if self.frames[-1] - first + 1 < 0.9 * count - 1:
            return f"ends at frame {self.frames[-1]}, the video at {last}"
        return ""

    def _probabilities(self) -> np.ndarray:
        low, high = self.scores.min(initial=np.inf), self.scores.max(initial=-np.inf)
        if low == high:
            return np.ones_like(self.scores)
        if low >= 0 and high <= 1:
            return self.scores
        return 0.1 + 0.9 * (self.scores - low) / (high - low)


def find_boxes(video: VideoFile, folder: Path | None) -> Path:
    """Return the file of a video's boxes, or the folder of YOLO's files: beside it, or in a folder of such files.

    Raises
    ------
    CsipError
        There is none.
    """
    place = video.path.parent if video.path.name == "img1" else video.path
    if folder is None:
        bases = [place if video.path.is_dir() else place.with_suffix("")]
    else:
        path = PurePosixPath(video.name)
        base = folder / (path if video.path.is_dir() else path.with_suffix(""))
        bases = [base, folder / base.name]
    tries = [base.with_name(base.name + end) for base in bases for end in _ENDS]
    tries += [base / inside for base in bases[:1] for inside in ("gt/gt.txt", "det/det.txt")]
    there = [file for file in map(_as_on_disk, tries) if file.is_file()]
    rivals = [file for file in there[1:] if file.parent == there[0].parent and file.suffix != there[0].suffix]
    rivals = [file for file in rivals if file.suffix != ".json" or holds(file, video.name)]
    if rivals:
        raise CsipError(
            f"{there[0]}: {rivals[0].name} beside it may be the boxes of {video.name}, too; move one of them out, or name "
            "a folder that has one"
        )
    if there:
        return there[0]
    for base in bases:
        for inside in _FOLDERS:
            if next(files_of_frames(base / inside, base.name), None) is not None:
                return base / inside
    if folder is not None:
        for inside in _FOLDERS:
            if next(files_of_frames(folder / inside, bases[0].name, alone=False), None) is not None:
                return folder / inside
        for file in sorted(folder.glob("*.json")):
            if holds(file, video.name):
                return file
    raise CsipError(f"{video.path}: no boxes; looked for {', '.join(map(str, dict.fromkeys(tries)))}")


def _as_on_disk(path: Path) -> Path:
    """Return the path of a file as its folder has it: a name may be written in another of Unicode's forms there."""
    if path.exists() or path.name.isascii() or not path.parent.is_dir():
        return path
    alike = (entry for entry in path.parent.iterdir() if canonical(entry.name) == canonical(path.name))
    return next(alike, path)


def read_boxes(path: Path, options: BoxesOptions | None = None, video: Shown | None = None) -> GivenBoxes:
    """Read a file of boxes, or a folder of YOLO's files.

    Parameters
    ----------
    path : Path
        See `find_boxes`.
    options : BoxesOptions, optional
        What need not be recognised.
    video : Shown, optional
        The video that they are of; without it boxes are left in the pixels and frames of the file.

    Raises
    ------
    CsipError
        A line cannot be used, a track is in a frame twice, or the file can be read in more than one way; the message says
        which, and the option that decides.
    """
    options = options or BoxesOptions()
    raw = _read(path, options, video.name if video else path.stem)
    found = [f"{path.name}: {raw.title}"]
    if raw.classes is not None:
        found.append(_select_people(raw, options))
    if _has_flags(raw):
        raw.select(raw.scores != 0, "boxes: marked to be ignored (confidence 0)")
    elif len(raw.scores) and not raw.scores.any():
        found.append("all confidences are 0, which is taken for unknown")
    _drop_repeated(raw)
    frames = _frames(raw, path, options, video, found)
    boxes = _corners(raw, path, video, found)
    if video is not None:
        boxes = _display(boxes, raw, path, options, video.geometry, found)
    _check(path, frames, raw)
    order = np.lexsort((raw.tracks, frames))
    return GivenBoxes(
        frames[order], raw.tracks[order], boxes[order], raw.scores[order], "; ".join(found), raw.dropped, raw.length
    )


def _read(path: Path, options: BoxesOptions, name: str) -> RawBoxes:
    if path.is_dir():
        return read_folder(path, name, options)
    if path.suffix == ".json":
        return read_coco(path, name, options)
    return interpret(read_table(path), options)


# ---- who, when, where ------------------------------------------------------------------------------------------------


def _select_people(raw: RawBoxes, options: BoxesOptions) -> str:
    """Leave out the classes that are nobody, counted one by one; returns what was taken for people."""
    given = options.classes is not None and raw.dialect not in (
        "cvat",
        "coco",
        "yolo",
    )  # those have looked up the names
    people = {name.lower() for name in (options.classes or () if given else raw.people)}
    present = sorted({name for name in raw.classes or () if name.lower() in people})
    for other in sorted(set(raw.classes or ()) - set(present)):
        if other:  # a line without a class is of somebody
            keep = np.array(raw.classes, str) != other
            raw.select(keep, f"boxes: class {other}")
    return f"people are class {', '.join(present or sorted(people))}"


def _has_flags(raw: RawBoxes) -> bool:
    """Whether a file of tracks marks boxes with 0 and 1; a tracker's confidences, or zeros alone, are no marks."""
    return bool((raw.tracks != -1).any()) and {0.0, 1.0} == set(np.unique(raw.scores).tolist())


def _drop_repeated(raw: RawBoxes) -> None:
    """Leave out lines that say what an earlier one says."""
    if len(raw.frames):
        lines = np.column_stack([raw.frames, raw.tracks, raw.values, raw.scores])
        keep = np.zeros(len(lines), bool)
        keep[np.unique(lines, axis=0, return_index=True)[1]] = True
        raw.select(keep, "boxes: the same line again")


def _frames(raw: RawBoxes, path: Path, options: BoxesOptions, video: Shown | None, found: list[str]) -> np.ndarray:
    """Return the boxes' frames by the numbers of the video."""
    frames = raw.frames
    if len(frames) and frames.min() < 0:
        at = int(frames.argmin())
        raise CsipError(f"{path}: {raw.where[at]}: frame is {frames[at]}; expected 0 or more")
    first = video.first if video else 1
    base = options.first_frame
    if base is None and (raw.first == 0 or (len(frames) and frames.min() == 0)):
        base = 0
    if base is None:
        base = 1
        if video is not None and video.named and len(frames):
            by_name = bool(((frames >= video.first) & (frames <= video.last)).any())
            in_order = frames.max() <= video.last - video.first + 1
            past = video.first == 0 and frames.max() == video.last + 1
            base = 1 if (in_order and not by_name) or past else video.first
    elif base == 0 and options.first_frame is None and first == 0:
        base = first
    found.append(f"frames count from {base}")
    return frames + (first - base)


def _corners(raw: RawBoxes, path: Path, video: Shown | None, found: list[str]) -> np.ndarray:
    """Return left, top, right, bottom in the file's own unit."""
    first, second = raw.values[:, :2], raw.values[:, 2:]
    kind = raw.coordinates or _pixels(raw, path, video)
    if kind != "xywh":
        found.append({"xyxy": "left, top, right, bottom", "cxcywh": "centre, width, height"}[kind])
    sides = second - first if kind == "xyxy" else second
    # Beside a number without end a width is nothing.
    wrong = np.flatnonzero(((sides <= 0) | (first + sides <= first)).any(axis=1))
    if len(wrong):
        at = int(wrong[0])
        raise CsipError(
            f"{path}: {raw.where[at]}: the box is {sides[at, 0]:g} x {sides[at, 1]:g}; expected sides above 0"
        )
    low = first - second / 2 if kind == "cxcywh" else first
    return np.concatenate([low, low + sides], axis=1)


def _pixels(raw: RawBoxes, path: Path, video: Shown | None) -> str:
    """Tell xyxy from xywh where both would be boxes: by the picture that one of them leaves."""
    if video is None or not len(raw.values):
        return "xywh"
    size = np.ones(2) if raw.normalised else np.array(raw.size or video.geometry.size, float)
    far = raw.values[:, :2] + raw.values[:, 2:]
    out = (far > size * (1 + _BEYOND)).any(axis=1).mean()
    inside = (raw.values[:, 2:] <= size * (1 + _TOLERANCE)).all()
    if out == 0 or not inside:
        return "xywh"
    if out >= _PROOF and len(far) >= 10:
        return "xyxy"
    at = int((far / size).max(axis=1).argmax())
    raise CsipError(
        f"{path}: {raw.where[at]} is {', '.join(f'{value:g}' for value in raw.values[at])}: left, top, width, height would leave "
        f"the picture of {size[0]:g} x {size[1]:g}, left, top, right, bottom would not; give "
        "the coordinates, xywh or xyxy",
        parameter="reading.coordinates",
    )


def _display(
    boxes: np.ndarray, raw: RawBoxes, path: Path, options: BoxesOptions, geometry: Geometry, found: list[str]
) -> np.ndarray:
    """Bring boxes to the pixels of the picture that a player shows."""
    if raw.normalised:
        found.append("shares of the picture")
        return boxes * np.tile(np.array(geometry.size, float), 2)
    size = _measured(path, options.picture, geometry) or raw.size
    if size is None:
        size = _proved(boxes, path, geometry)
    size = (round(size[0]), round(size[1]))
    found.append(
        f"pixels of {size[0]} x {size[1]}" + ("" if size == geometry.size else ", which the video is not shown in")
    )
    if size == geometry.size:
        return geometry.boxes(boxes) if options.picture == "coded" else boxes
    if size == geometry.coded and size != geometry.square:  # a video lying on its side, as it is stored
        return geometry.boxes(boxes)
    if abs(np.log(size[0] / size[1] / (geometry.size[0] / geometry.size[1]))) > 0.02 and size != geometry.square:
        raise CsipError(
            f"{path}: its boxes are of a picture of {size[0]} x {size[1]}, the video is shown in {geometry.size[0]} x "
            f"{geometry.size[1]}, another shape; give display or coded if that is what they were measured on",
            parameter="reading.picture",
        )
    return boxes * np.tile(np.array(geometry.size, float) / size, 2)


def _measured(path: Path, picture: str, geometry: Geometry) -> tuple[float, float] | None:
    if picture == "auto":
        return None
    if picture in ("display", "coded"):
        return geometry.size if picture == "display" else geometry.coded
    match = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", picture)
    if match is None:
        raise CsipError(
            f"{path}: measured on the picture {picture!r}? Expected display, coded, or a size such as 1920x1080",
            parameter="reading.picture",
        )
    return float(match[1]), float(match[2])


def _proved(boxes: np.ndarray, path: Path, geometry: Geometry) -> tuple[int, int]:
    """Tell which picture boxes were measured on: as shown, with pixels taken for square ones, or as stored, by what they fit."""
    shown, square = geometry.size, geometry.square
    reach = boxes.max(axis=0, initial=0.0)[2:]
    if (
        len(boxes) >= _MANY
        and _PER_CENT[0] <= reach.min()
        and reach.max() <= _PER_CENT[1]
        and min(shown) >= 3 * _PER_CENT[1]
    ):
        raise CsipError(
            f"{path}: all its {len(boxes):,} boxes lie in the upper left {reach[0]:g} x {reach[1]:g} pixels of a picture of "
            f"{shown[0]} x {shown[1]}: are they per cent? Then divide them by 100; if they are pixels, give display",
            parameter="reading.picture",
        )
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = list(dict.fromkeys((shown, square, geometry.coded)))
    fits = [size for size in sizes if not len(boxes) or (middle > size).any(axis=1).mean() <= _TOLERANCE]
    if len(fits) == 1:
        return fits[0]
    if (
        square != shown
        and square in fits
        and shown in fits
        and square[0] * square[1] < shown[0] * shown[1]
        and len(boxes)
    ):
        raise CsipError(
            f"{path}: pixels of the video are not square: it is stored in {square[0]} x {square[1]} and shown in {shown[0]} x "
            f"{shown[1]}, and its boxes fit both; give the one that they were measured on, "
            f"{square[0]}x{square[1]} or {shown[0]}x{shown[1]}",
            parameter="reading.picture",
        )
    out = 0.0 if not len(boxes) else float((middle > shown).any(axis=1).mean())
    if not fits and out >= _PROOF:
        right, bottom = boxes[:, 2:].max(axis=0)
        raise CsipError(
            f"{path}: {out:.0%} of its boxes lie outside the picture of {shown[0]} x {shown[1]}; they reach to {right:g} x "
            f"{bottom:g}: if they were measured on another size, give WIDTHxHEIGHT, else display",
            parameter="reading.picture",
        )
    return shown if shown in fits or not fits else fits[0]


def _check(path: Path, frames: np.ndarray, raw: RawBoxes) -> None:
    some = raw.tracks != -1
    if some.any() and not some.all():
        without = int(np.flatnonzero(~some)[0])
        raise CsipError(
            f"{path}: {raw.where[without]} has no track, but other lines have one; give all of them a track, or none"
        )
    seen: dict[tuple[int, int], int] = {}
    for at, (frame, track) in enumerate(zip(frames.tolist(), raw.tracks.tolist(), strict=True)):
        if track != -1 and seen.setdefault((frame, track), at) != at:
            places = f"{raw.where[seen[frame, track]]} and {raw.where[at]}"
            if places.count("line ") == 2 and ":" not in places:
                places = "lines " + places.replace("line ", "")
            raise CsipError(f"{path}: {places} both have track {track} in frame {frame}")
