"""Labelled tracks of videos: what a format of annotations is written from, and how its boxes come back to tracklets.

A track is a tracklet with its boxes and its person. What comes back is matched by its boxes: the person of a tracklet is the one
whose boxes cover most of its frames. So a tool may number its tracks as it likes, join them and cut them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from csip.data.csv_table import format_rows, parse_table
from csip.data.folder import TABLE
from csip.data.names import canonical, natural_order
from csip.data.numerals import parse_number, whole
from csip.errors import CsipError, UserError
from csip.files import write_text
from csip.video.find import VIDEOS

PEOPLE = "people.csv"
PERSON = "person"  # the label of every box, and the attribute that holds the name
_FARTHEST = 1e9  # pixels: products of more run over
_SIDES = ("x", "y", "width", "height")
_OVERLAP = 0.5  # intersection over union from which two boxes are one
_ENOUGH = 0.5  # share of a tracklet's frames that its person's boxes cover
_MIXED = 0.2  # share of them that another person's boxes may cover


@dataclass(frozen=True, eq=False)
class LabelledTrack:
    """A tracklet with its boxes.

    Attributes
    ----------
    name
        Of the tracklet.
    video
        Path below the folder of videos, with /.
    person
        Who it is; None where nobody knows.
    number
        Of the person over all cameras, from 1; of the tracklet where nobody knows.
    frames
        (n,) int64, numbers in the video, rising.
    boxes
        (n, 4) float64: left, top, right, bottom in pixels of the picture that a player shows.
    """

    name: str
    video: str
    person: str | None
    number: int
    frames: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class VideoBoxes:
    """What a file of annotations has of one video.

    Attributes
    ----------
    frames
        (n,) int64, in any order.
    boxes
        (n, 4) float64: left, top, right, bottom in pixels.
    people
        Of each box; None where nobody knows.
    """

    frames: np.ndarray
    boxes: np.ndarray
    people: Sequence[str | None]

    @staticmethod
    def of(rows: Sequence[tuple[int, Sequence[float], str | None]]) -> VideoBoxes:
        """Make them of (frame, box, person) rows.

        Raises
        ------
        ValueError
            A box is not four finite numbers with a positive width and height.
        """
        frames = np.array([row[0] for row in rows], np.int64)
        boxes = np.array([row[1] for row in rows], np.float64).reshape(len(rows), 4)
        far = ~(np.abs(boxes) < _FARTHEST).all(axis=1)  # what is not finite, too
        wrong = np.flatnonzero(far | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
        if len(wrong):
            raise ValueError(
                f"box {boxes[wrong[0]].tolist()} of frame {frames[wrong[0]]}; expected left, top, right, bottom as finite "
                "numbers, right and bottom the larger"
            )
        return VideoBoxes(frames, boxes, [row[2] for row in rows])


@dataclass(frozen=True)
class Matched:
    """Tracklets whose videos a file of annotations has.

    Attributes
    ----------
    people
        The person of each tracklet that has one.
    unknown
        Tracklets whose boxes are there without a person.
    missing
        Tracklets whose boxes are not there.
    mixed
        Tracklets whose frames several people share.
    """

    people: dict[str, str]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    mixed: tuple[str, ...]

    @property
    def covered(self) -> set[str]:
        """Return the names of all of them."""
        return {*self.people, *self.unknown, *self.missing, *self.mixed}


def read_tracks(root: Path, people: Mapping[str, str], left_out: Mapping[str, str]) -> list[LabelledTrack]:
    """Read the tracklets of a data set that `csip ingest` made, with their boxes.

    Parameters
    ----------
    people
        The person of each tracklet that has one.
    left_out
        Tracklets to pass over.

    Raises
    ------
    CsipError
        The table has no boxes, or a line of it cannot be used.
    """
    table = root / TABLE
    moments: dict[str, list[tuple[int, list[float]]]] = {}
    videos: dict[str, str] = {}
    for line, row in parse_table(table.read_bytes(), table, ("tracklet", "camera", "video", "number", *_SIDES)):
        name = canonical(row["tracklet"])
        if name in left_out:
            continue
        try:
            frame, sides = whole(row["number"]), [parse_number(row[side]) for side in _SIDES]
        except ValueError as error:
            raise CsipError(
                f"{table}: line {line}: expected number, x, y, width, height as numbers ({error})"
            ) from error
        if not all(map(math.isfinite, sides)) or min(sides[2:]) <= 0:
            raise CsipError(f"{table}: line {line}: box {sides} has no width or height, or is not finite")
        video = videos.setdefault(name, row["video"])
        if video != row["video"] or not video:
            raise CsipError(f"{table}: line {line}: tracklet {name} is of video {row['video']!r}; expected one video")
        moments.setdefault(name, []).append((frame, sides))
    numbers = number_people(people[name] for name in moments if name in people)
    tracks, free = [], len(numbers)
    for name, rows in moments.items():
        rows.sort(key=lambda row: row[0])
        person = people.get(name)
        free += person is None
        places = np.array([box for _, box in rows])
        boxes = np.concatenate([places[:, :2], places[:, :2] + places[:, 2:]], axis=1)
        frames = np.array([frame for frame, _ in rows], np.int64)
        tracks.append(
            LabelledTrack(name, videos[name], person, free if person is None else numbers[person], frames, boxes)
        )
    return tracks


def number_people(people: Iterable[str]) -> dict[str, int]:
    """Give people numbers from 1, in the natural order of their names."""
    return {person: number for number, person in enumerate(sorted(set(people), key=natural_order), start=1)}


def by_video(tracks: Sequence[LabelledTrack]) -> dict[str, list[LabelledTrack]]:
    """Return the tracks of each video.

    Raises
    ------
    CsipError
        The name of a video leads out of a folder, or two videos differ in the ends of their names alone.
    """
    found: dict[str, list[LabelledTrack]] = {}
    for track in tracks:
        found.setdefault(track.video, []).append(track)
    stems: dict[str, str] = {}
    for video in found:
        path = PurePosixPath(video)
        if path.is_absolute() or ".." in path.parts or "\\" in video:
            raise CsipError(f"{TABLE}: video {video}: expected a path below the folder of videos, with /")
        if stems.setdefault(stem(video), video) != video:
            raise CsipError(
                f"{TABLE}: videos {stems[stem(video)]} and {video} would share a file of annotations; ingest one of them "
                "under another name"
            )
    return found


def first_frames(tracks: Sequence[LabelledTrack]) -> dict[str, int]:
    """Return the number of each video's first frame: 0 where a track has a frame 0, as pictures may be named, else 1."""
    found: dict[str, int] = {}
    for track in tracks:
        found[track.video] = min(found.get(track.video, 1), max(int(track.frames[0]), 0))
    return found


def stem(video: str) -> str:
    """Return the name of a video without the end of a video file."""
    path = PurePosixPath(video)
    return str(path.with_suffix("") if path.suffix.lower() in VIDEOS else path)


def write_people(folder: Path, tracks: Sequence[LabelledTrack]) -> None:
    """Write ``people.csv``: the names behind the numbers, for formats that have numbers alone."""
    names = {track.number: track.person or "" for track in tracks}
    write_text(folder / PEOPLE, format_rows([("id", PERSON), *sorted(names.items())]))


def read_people(folder: Path) -> dict[str, str | None]:
    """Read ``people.csv``: the name of each number, None where nobody knows; empty where there is no such file.

    Raises
    ------
    CsipError
        It is no such table, or a number is in it twice.
    """
    path = folder / PEOPLE
    if not path.is_file():
        return {}
    names: dict[str, str | None] = {}
    for line, row in parse_table(path.read_bytes(), path, ("id", PERSON)):
        if row["id"] in names:
            raise CsipError(f"{path}: line {line}: id {row['id']} is there twice")
        names[row["id"]] = canonical(row[PERSON]) or None
    return names


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever is wrong with the content of a file into an error that names it.

    Raises
    ------
    CsipError
        Instead of an error of Python's.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise CsipError(f"{path}: cannot be read ({error.strerror or error}); expected {expected}") from error
    except (ValueError, KeyError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise CsipError(f"{path}: expected {expected}; {type(error).__name__}: {error}") from error


def match(tracks: Sequence[LabelledTrack], found: Mapping[str, VideoBoxes]) -> Matched:
    """Give each tracklet the person whose boxes cover it.

    Parameters
    ----------
    tracks
        Of the data set.
    found
        What a file of annotations has, by video.
    """
    people: dict[str, str] = {}
    unknown, missing, mixed = [], [], []
    for video, there in found.items():
        order = np.argsort(there.frames, kind="stable")
        frames, boxes = there.frames[order], there.boxes[order]
        for track in (one for one in tracks if one.video == video):
            covers = order[_best(track, frames, boxes)]
            counts = Counter(there.people[row] for row in covers.tolist()).most_common(2)
            least = _ENOUGH * len(track.frames)
            if len(counts) > 1 and counts[1][1] >= _MIXED * len(track.frames):
                mixed.append(track.name)
            elif not counts or counts[0][1] < least:
                missing.append(track.name)
            elif counts[0][0] is None:
                unknown.append(track.name)
            else:
                people[track.name] = counts[0][0]
    return Matched(people, tuple(unknown), tuple(missing), tuple(mixed))


def _best(track: LabelledTrack, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the rows of the boxes that cover a track's best, one a frame at most; `frames` are rising."""
    first, last = np.searchsorted(frames, track.frames), np.searchsorted(frames, track.frames, side="right")
    counts = last - first
    of = np.repeat(np.arange(len(track.frames)), counts)
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    own, other = track.boxes[of], boxes[rows]
    sides = np.minimum(own[:, 2:], other[:, 2:]) - np.maximum(own[:, :2], other[:, :2])
    common = np.prod(sides.clip(0), axis=1)
    union = np.prod(own[:, 2:] - own[:, :2], axis=1) + np.prod(other[:, 2:] - other[:, :2], axis=1) - common
    overlap = common / union
    order = np.lexsort((-overlap, of))
    order = order[np.unique(of[order], return_index=True)[1]]  # the best of each frame
    return np.asarray(rows[order[overlap[order] >= _OVERLAP]])
