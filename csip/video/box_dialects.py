"""What the columns of a text of boxes mean: the dialects of trackers and benchmarks, told apart by proof or asked for.

    mot        frame,id,left,top,width,height[,confidence[,-1,-1,-1]]       MOTChallenge detections and results, ByteTrack
    mot-gt     frame,id,left,top,width,height,flag,class[,visibility]       MOTChallenge truth; class 1 is a pedestrian; CVAT
    tracker    frame,id,left,top,width,height,confidence,class[,...]        classes from 0 as in COCO; class 0 is a person
    visdrone   frame,id,left,top,width,height,score,category,truncation,occlusion     1 pedestrian, 2 people
    yolo       [frame,]class,cx,cy,width,height[,confidence][,id]           shares of the picture; class 0 is a person
    table      with a header line that names the columns

No dialect is guessed: where the lines fit two that make different people of them, the error shows a line, the readings, and
the option that decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from csip.errors import CsipError
from csip.video.box_raw import PEOPLE, UNIT, WORDS, BoxesOptions, Format, RawBoxes, plain
from csip.video.box_table import TextTable, as_number, read_names
from csip.video.box_yolo import read_lines

_TOLERANCE: Final = 0.02
_STEPS: Final = 20  # from one box of a track to the next that tell frames from tracks
_LEAP: Final = 0.5  # of a box's width: what nobody moves from frame to frame
_MOT_CLASSES: Final = 13
_VISDRONE_CLASSES: Final = 11
_CLASSES: Final = {"mot-gt": ("1",), "tracker": ("0",), "visdrone": ("1", "2"), "yolo": ("0",)}


def interpret(table: TextTable, options: BoxesOptions) -> RawBoxes:
    """Say what the columns of a text are.

    Raises
    ------
    CsipError
        A cell cannot be used, or the lines fit more than one dialect.
    """
    if table.header is not None:
        return _with_header(table, options)
    if not table.rows:
        return _mot(table, "mot", options)
    labels = _cvat_labels(table.path)
    if labels is not None and options.format in ("auto", "mot-gt"):
        return _cvat(table, labels, options)
    name = options.format
    if name == "coco":
        raise CsipError(f"{table.path}: is a text; the format coco expects JSON", parameter="reading.format")
    if name == "auto":
        name = _recognise(table)
    if name == "yolo":
        return read_lines(table, options)
    raw = _mot(table, name, options)
    if options.format == "auto" and _is_swapped(raw):
        raise CsipError(
            f"{table.path}: its first two columns seem to be id,frame, expected frame,id: read as they should be, people leap "
            f"from one place to another, and the other way round they do not; {table.example()}; exchange them, or give the "
            f"format {name} if they are right",
            parameter="reading.format",
        )
    return _coordinates(raw, table, options)


def _with_header(table: TextTable, options: BoxesOptions) -> RawBoxes:
    header = table.header or {}
    kinds = {
        "xyxy": ("x", "y", "right", "bottom"),
        "cxcywh": ("cx", "cy", "width", "height"),
        "xywh": ("x", "y", "width", "height"),
    }
    whole = [kind for kind, columns in kinds.items() if all(column in header for column in columns)]
    kind = "xywh" if not whole or "xywh" in whole else whole[0]
    size = None
    if options.coordinates in whole:
        kind = options.coordinates
    elif kind == "xywh" and "xyxy" in whole and table.rows:
        kind, size = _size_of_box_or_picture(table, header)
    missing = [column for column in ("frame", *kinds[kind]) if column not in header]
    if missing:
        raise CsipError(
            f"{table.path}: no column {', '.join(missing)} in its head ({', '.join(table.names)}); expected "
            "frame, track, x, y, width, height, score"
        )
    values = np.stack([table.numbers(header[column], column) for column in kinds[kind]], axis=1)
    raw = RawBoxes(
        "table",
        table.integers(header["frame"], "frame"),
        table.integers(header.get("track"), "track", -1),
        values,
        table.numbers(header.get("score"), "score", 1.0),
        [f"line {number}" for number in table.lines],
        coordinates=kind if options.coordinates == "auto" else options.coordinates,
        normalised=bool(len(values) and np.abs(values).max() <= UNIT),
        size=size,
    )
    if "class" in header:
        raw.classes = [plain(text) for text in table.texts(header["class"])]
        raw.people = _people_of_unknown_base(raw.classes, table, options)
    return raw


def _size_of_box_or_picture(table: TextTable, header: dict[str, int]) -> tuple[str, tuple[float, float] | None]:
    """Tell whether a width and a height beside two corners are the box's or the picture's; return coordinates and the latter."""
    left, top, right, bottom, width, height = (
        table.numbers(header[name], name) for name in ("x", "y", "right", "bottom", "width", "height")
    )
    if (np.abs(right - left - width) <= 1.5).all() and (np.abs(bottom - top - height) <= 1.5).all():
        return "xywh", None
    size = float(width[0]), float(height[0])
    if (width == size[0]).all() and (height == size[1]).all() and (right > left).all() and (bottom > top).all():
        return "xyxy", size if max(right.max(), bottom.max()) > UNIT else None
    raise CsipError(
        f"{table.path}: its head has two corners, a width and a height, which do not agree; {table.example()}; say which to "
        "read, xywh or xyxy",
        parameter="reading.coordinates",
    )


def _people_of_unknown_base(classes: Sequence[str], table: TextTable, options: BoxesOptions) -> tuple[str, ...]:
    """Tell which classes are people: by name, or by number where a 0 proves that they count from 0, or all are 1."""
    if options.classes is not None:
        return options.classes
    if options.format in _CLASSES and all(as_number(name) is not None for name in classes if name):
        return _CLASSES[options.format]
    found = {name.lower() for name in classes if name}
    named = tuple(name for name in found if name in PEOPLE)
    if named or not found or found == {"-1"}:
        return named or ("-1",)
    if "0" in found:
        return ("0",)
    if found == {"1"}:
        return ("1",)
    raise CsipError(
        f"{table.path}: which of its classes ({', '.join(sorted(found)[:8])}) are people? No class is called person, and none "
        f"is 0; {table.example()}; give those that are people, e.g. 1",
        parameter="reading.classes",
    )


def _mot(table: TextTable, dialect: str, options: BoxesOptions) -> RawBoxes:
    raw = RawBoxes(
        dialect,
        table.integers(0, "frame"),
        table.integers(1, "track", -1),
        np.stack([table.numbers(2 + at, name) for at, name in enumerate(("x", "y", "width", "height"))], axis=1),
        table.numbers(6, "score", 1.0),
        [f"line {number}" for number in table.lines],
    )
    if dialect in _CLASSES:
        raw.classes, raw.people = [plain(text) for text in table.texts(7)], _CLASSES[dialect]
        if any(as_number(name) is None for name in raw.classes if name):
            raw.people = _people_of_unknown_base(raw.classes, table, options)
    return raw


def _recognise(table: TextTable) -> Format:
    """Return the dialect of a text without a header line."""
    unit = [table.optional(at) for at in range(2, 6)]
    if table.width >= 6 and all(np.nanmax(np.abs(column), initial=0) <= UNIT for column in unit):
        dialect = _recognise_normalised(table)
        if dialect != "auto":
            return dialect
    if table.width < 8:
        return "mot"
    score, kind, *tail = (table.optional(at) for at in range(6, 10))
    known = kind[~np.isnan(kind)]
    if any(as_number(text) is None for text in table.texts(7) if text):
        return "tracker"  # classes by name
    nothing = all(_within(column, {-1}) for column in tail)
    if _within(known, {-1}):
        # Some trackers write the number of the camera last, which is 0 for one.
        if nothing or (_within(tail[0], {-1}) and _within(tail[1], {0})):
            return "mot"
        raise _ambiguous(
            table,
            ("mot",),
            "column 8, the class, is -1, but a later one is not; all boxes are people only if it is no class",
        )
    whole = bool((known == np.round(known)).all() and known.min() >= 0)
    if _within(known, set(range(-1, 1000))) and known.min() == -1:
        raise _ambiguous(table, ("mot", "tracker"), "column 8 is -1 in some lines and looks like a class in others")
    if table.width >= 10 and not whole:
        return "mot"  # coordinates in the world
    if not whole:
        raise _ambiguous(table, ("mot",), "column 8 is no class; all boxes are people only if there is none")
    if table.width == 10 and not nothing and _within(tail[0], {0, 1}) and _within(tail[1], {0, 1, 2}):
        return _recognise_visdrone(table, score, known, tail)
    if table.width > 10 or (table.width == 10 and not (nothing or _within(tail[1], {-1, 0, 1}))):
        raise _ambiguous(table, ("mot", "tracker", "visdrone"), f"it has {table.width} columns that no dialect has")
    found = set(known.tolist())
    if 0 in found:
        return "tracker"
    truth = table.width == 9 and _within(score, {0, 1}) and np.nanmin(tail[0]) >= 0 and np.nanmax(tail[0]) <= 1
    if found == {1} or (truth and known.max() <= _MOT_CLASSES):
        return "mot-gt"
    raise _ambiguous(
        table,
        ("mot-gt", "tracker", "visdrone"),
        f"its classes are {', '.join(f'{one:g}' for one in sorted(found)[:8])}, and no 0 proves that they count from 0",
    )


def _recognise_visdrone(table: TextTable, score: np.ndarray, kind: np.ndarray, tail: list[np.ndarray]) -> Format:
    """Tell VisDrone's truth, whose category 0 is a region without a score, from a tracker's class 0."""
    nobody = kind == 0
    if (~_in(score, {0, 1})).any() or (nobody.any() and (score[nobody] != 0).any()):
        return "tracker" if nobody.any() else _fail(table)
    hidden = any((column > 0).any() for column in tail)
    if kind.max() <= _VISDRONE_CLASSES and (hidden or set(kind.tolist()) == {1}) and (score != 0).any():
        return "visdrone"
    return _fail(table)


def _fail(table: TextTable) -> Format:
    raise _ambiguous(table, ("visdrone", "tracker", "mot-gt"), "nothing in it tells where its classes count from")


def _recognise_normalised(table: TextTable) -> Format:
    """Tell YOLO's class from a track's number in the second column: a track is in a frame once; ``auto`` where it is one."""
    second = table.numbers(1, "track", -1)
    if table.width >= 9 or (second == -1).all():
        return "auto"
    pairs = set(zip(table.numbers(0, "frame").tolist(), second.tolist(), strict=True))
    if len(pairs) < len(second):
        return "yolo"
    raise _ambiguous(
        table, ("mot", "yolo"), "its coordinates are shares of the picture, and column 2 may be a track or a class"
    )


def _is_swapped(raw: RawBoxes) -> bool:
    """Whether boxes of one number in the first column are near each other, and those of one in the second are not."""
    if (raw.tracks == -1).any():
        return False
    steps = []
    for one, other in ((raw.tracks, raw.frames), (raw.frames, raw.tracks)):
        order = np.lexsort((other, one))
        again = np.diff(one[order]) == 0
        if again.sum() < _STEPS:
            return False
        way = np.abs(np.diff(raw.values[order, :2], axis=0)[again]).max(axis=1)
        steps.append(float(np.median(way / raw.values[order, 2][1:][again].clip(1e-9))))
    return steps[0] > _LEAP and steps[0] > 5 * steps[1]


def _coordinates(raw: RawBoxes, table: TextTable, options: BoxesOptions) -> RawBoxes:
    """Tell left, top, width, height from two corners and from a centre."""
    a, b, c, d = raw.values.T
    raw.normalised = bool(np.abs(raw.values).max() <= UNIT)
    if options.coordinates != "auto":
        raw.coordinates = options.coordinates
        return raw
    corners = bool((c > a).all() and (d > b).all())
    if not raw.normalised:
        raw.coordinates = "" if corners else "xywh"
        return raw
    low, high = -_TOLERANCE, 1 + _TOLERANCE
    fits = {
        "xyxy": corners,
        "xywh": bool(min(a.min(), b.min()) >= low and max((a + c).max(), (b + d).max()) <= high),
        "cxcywh": bool(
            min((a - c / 2).min(), (b - d / 2).min()) >= low and max((a + c / 2).max(), (b + d / 2).max()) <= high
        ),
    }
    found = [name for name, fit in fits.items() if fit]
    if len(found) != 1:
        raise CsipError(
            f"{table.path}: its coordinates are shares of the picture that may be {' or '.join(found or fits)}; "
            f"{table.example()}; say which",
            parameter="reading.coordinates",
        )
    raw.coordinates = found[0]
    return raw


def _cvat_labels(path: Path) -> list[str] | None:
    labels = path.with_name("labels.txt")
    if path.name != "gt.txt" or not labels.is_file():
        return None
    return read_names(labels)


def _cvat(table: TextTable, labels: list[str], options: BoxesOptions) -> RawBoxes:
    raw = _mot(table, "mot-gt", options)
    raw.dialect = "cvat"
    named = tuple(str(at) for at, name in enumerate(labels, start=1) if name.lower() in PEOPLE)
    if options.classes is not None:  # by their names, or by their numbers
        named = tuple(str(labels.index(name) + 1) if name in labels else name for name in options.classes)
    if not named:
        raise CsipError(
            f"{table.path.with_name('labels.txt')}: none of its labels is called person or pedestrian "
            f"({', '.join(labels[:8])}); give those that are people, e.g. {labels[0] if labels else 'NAME'}",
            parameter="reading.classes",
        )
    raw.people = named
    return _coordinates(raw, table, options)


def _ambiguous(table: TextTable, readings: Sequence[str], reason: str) -> CsipError:
    choices = "; ".join(f"{name}: {WORDS[name]}" for name in readings)
    return CsipError(
        f"{table.path}: its lines can be read in more than one way: {reason}; {table.example()}. Give the format. {choices}",
        parameter="reading.format",
    )


def _within(column: np.ndarray, values: set[float]) -> bool:
    return bool(_in(column[~np.isnan(column)], values).all())


def _in(column: np.ndarray, values: set[float]) -> np.ndarray:
    return np.isin(column, list(values))
