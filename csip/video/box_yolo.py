"""YOLO's boxes: class, cx, cy, width, height as shares of the picture, then a confidence, a track, or both.

One file a frame, as YOLOv5, ultralytics and CVAT write them (12.txt, frame_000012.txt, monday_12.txt), or one file in which each
line begins with the number of its frame. The names of classes are in classes.txt, obj.names or labels.txt beside the files, one
a line; without them class 0 is a person, as in COCO.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from csip.errors import CsipError
from csip.video.box_raw import PEOPLE, UNIT, BoxesOptions, RawBoxes, plain
from csip.video.box_table import TextTable, as_number, read_names, read_table

_NAMES: Final = ("classes.txt", "obj.names", "labels.txt")
_PERSON: Final = "0"


def read_lines(table: TextTable, options: BoxesOptions) -> RawBoxes:
    """Read YOLO's lines with a frame's number before each."""
    frames = table.integers(0, "frame")
    rows = [cells[1:] for cells in table.rows]
    raw = _boxes(table.path, rows, frames, [f"line {number}" for number in table.lines])
    raw.people = _people(table.path, raw, [], options)
    return raw


def files_of_frames(folder: Path, title: str, alone: bool = True) -> Iterator[tuple[int, Path]]:
    """List the files of a video's frames: 12.txt and frame_12.txt where the folder is the video's alone, else TITLE_12.txt."""
    if not folder.is_dir():
        return
    prefix = re.escape(title) + "[_-]"
    pattern = re.compile(rf"(?:{prefix}|frame_?|img_?|)(\d+)\.txt" if alone else rf"{prefix}(\d+)\.txt", re.IGNORECASE)
    for entry in sorted(folder.iterdir()):
        match = pattern.fullmatch(entry.name)
        if match:
            yield int(match[1]), entry


def read_folder(folder: Path, name: str, options: BoxesOptions) -> RawBoxes:
    """Read the files of a video's frames.

    Parameters
    ----------
    folder : Path
        Where they are, alone or with those of other videos.
    name : str
        The video's name: its path below the folder of videos.
    options : BoxesOptions
        Classes that are people, if neither their names nor a 0 tell.

    Raises
    ------
    CsipError
        A line cannot be used, or it is not known which classes are people.
    """
    title = PurePosixPath(name).stem if PurePosixPath(name).suffix else PurePosixPath(name).name
    own = [one for one in (PurePosixPath(name).name, title) if list(files_of_frames(folder, one, alone=False))]
    files = list(files_of_frames(folder, own[0], alone=False)) if own else list(files_of_frames(folder, title))
    numbers = sorted(number for number, _ in files)
    rows: list[list[str]] = []
    frames: list[int] = []
    where: list[str] = []
    for number, file in sorted(files):
        table = read_table(file)
        rows += table.rows
        frames += [number] * len(table.rows)
        where += [f"{file.name}: line {line}" for line in table.lines]
    raw = _boxes(folder, rows, np.array(frames, np.int64), where)
    raw.first = 0 if numbers and numbers[0] == 0 else None
    if numbers == list(range(len(numbers))):  # counted from 0, and none missing: frames without people have a file, too
        raw.length = len(numbers)
    raw.people = _people(folder, raw, _class_names(folder), options)
    return raw


def _people(path: Path, raw: RawBoxes, names: list[str], options: BoxesOptions) -> tuple[str, ...]:
    """Return the numbers of the classes that are people: those that are given, else by their names, else 0."""
    if options.classes is not None:
        return tuple(str(names.index(one)) if one in names else one for one in options.classes)
    people = tuple(str(at) for at, one in enumerate(names) if one.lower() in PEOPLE) if names else (_PERSON,)
    found = sorted(set(raw.classes or ()))
    if found and (not people or (not names and _PERSON not in found)):
        why = f"none of {', '.join(names[:8])} is called person" if names else "none is 0, and there is no classes.txt"
        raise CsipError(
            f"{path}: which of its classes ({', '.join(found[:8])}) are people? {why[0].upper()}{why[1:]}; give "
            "those that are people",
            parameter="reading.classes",
        )
    return people


def names_beside(folder: Path) -> list[Path]:
    """Return where the names of YOLO's classes may be, one a line."""
    return [place / name for place in (folder, folder.parent) for name in _NAMES]


def _class_names(folder: Path) -> list[str]:
    for file in names_beside(folder):
        if file.is_file():
            return read_names(file)
    return []


def _boxes(path: Path, rows: Sequence[Sequence[str]], frames: np.ndarray, where: list[str]) -> RawBoxes:
    """Read lines of YOLO: class, cx, cy, width, height, then a confidence, a track, or both.

    Raises
    ------
    CsipError
        A line has fewer than 5 or more than 7 values, or one that is no number.
    """
    table = TextTable(path, None, (), [list(row) for row in rows], list(range(1, len(rows) + 1)))
    for cells, place in zip(rows, where, strict=True):
        if not 5 <= len(cells) <= 7 or any(as_number(cell) is None for cell in cells[1:]):
            raise CsipError(
                f"{path}: {place}: expected class, cx, cy, width, height[, confidence][, id], found {' '.join(cells)}"
            )
    values = np.stack([table.numbers(at, "coordinates") for at in range(1, 5)], axis=1).reshape(-1, 4)
    sixth, seventh = table.optional(5), table.optional(6)
    numbers = sixth[~np.isnan(sixth)]
    both = ~np.isnan(seventh)
    if both.any():
        scores, tracks = sixth, np.where(both, seventh, -1)
    elif len(numbers) and (numbers == np.round(numbers)).all():  # confidences of 1 alone do not happen
        scores, tracks = np.ones(len(rows)), np.nan_to_num(sixth, nan=-1)
    else:
        scores, tracks = sixth, np.full(len(rows), -1.0)
    raw = RawBoxes(
        "yolo", frames, tracks.astype(np.int64), values, np.nan_to_num(scores, nan=1.0), where,
        classes=[plain(row[0]) for row in rows], people=(_PERSON,), coordinates="cxcywh", normalised=True,
    )  # fmt: skip
    if len(values) and np.abs(values).max() > UNIT:
        place = where[int(np.abs(values).max(axis=1).argmax())]
        raise CsipError(
            f"{path}: {place}: YOLO's coordinates are shares of the picture, at most 1, found {np.abs(values).max():g}"
        )
    if (raw.tracks != -1).any():
        raw.select(raw.tracks != -1, "boxes: without a track")
    return raw
