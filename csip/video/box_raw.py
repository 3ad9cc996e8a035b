"""Boxes as a file has them, and what a person may say of how to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from csip.video.box_table import as_number

Format = Literal["auto", "mot", "mot-gt", "tracker", "visdrone", "yolo", "coco"]
Coordinates = Literal["auto", "xywh", "xyxy", "cxcywh"]
PEOPLE: Final = frozenset({"person", "persons", "people", "pedestrian", "pedestrians", "human", "humans"})
UNIT: Final = 1.5  # coordinates that never exceed this are shares of the picture, not pixels
WORDS: Final = {
    "mot": "MOTChallenge (frame,id,left,top,width,height,confidence)",
    "mot-gt": "MOTChallenge truth (class 1 is a pedestrian)",
    "tracker": "a tracker's output with classes from 0 (0 is a person, as in COCO)",
    "visdrone": "VisDrone (1 is a pedestrian, 2 people)",
    "yolo": "YOLO (class,cx,cy,width,height as shares of the picture)",
    "coco": "COCO video (JSON)",
    "table": "a table with a header line",
    "cvat": "CVAT's MOT export (labels.txt names the classes)",
}


@dataclass(frozen=True)
class BoxesOptions:
    """How files of boxes are to be read; what is not given is recognised.

    Attributes
    ----------
    format
        Dialect; see the top of `csip.video.box_dialects`.
    coordinates
        ``xywh`` left, top, width, height; ``xyxy`` left, top, right, bottom; ``cxcywh`` centre, width, height.
    first_frame
        Number of the video's first frame in the file.
    classes
        Numbers or names of the classes that are people.
    picture
        The picture that the boxes were measured on: ``display`` as a player shows it, ``coded`` as it is stored, or its size
        as WIDTHxHEIGHT.
    """

    format: Format = "auto"
    coordinates: Coordinates = "auto"
    first_frame: int | None = None
    classes: tuple[str, ...] | None = None
    picture: str = "auto"


@dataclass
class RawBoxes:
    """Boxes as a file has them, before people are selected and coordinates are those of the video.

    Attributes
    ----------
    dialect
        A format, or ``table`` or ``cvat``.
    frames, tracks
        (n,) int64.
    values
        (n, 4) float64, by ``coordinates``; "" where xywh and xyxy are both possible without knowing the picture.
    scores
        (n,) float64.
    classes
        Of each box; None where the file has none.
    people
        Classes that are people.
    where
        Of each box, for messages: "line 3".
    normalised
        Whether coordinates are shares of the picture.
    size
        Width and height of the picture, where the file says it.
    first, length
        Number of the first frame and how many frames the file is about, where it says it.
    dropped
        What was left out so far, by reason.
    """

    dialect: str
    frames: np.ndarray
    tracks: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    where: list[str]
    classes: list[str] | None = None
    people: tuple[str, ...] = ()
    coordinates: str = "xywh"
    normalised: bool = False
    size: tuple[float, float] | None = None
    first: int | None = None
    length: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The dialect in words."""
        return WORDS[self.dialect]

    def select(self, keep: np.ndarray, reason: str) -> None:
        """Leave out the boxes that are not marked in ``keep``, (n,) bool, and count them."""
        if keep.all():
            return
        self.dropped[reason] = self.dropped.get(reason, 0) + int((~keep).sum())
        rows = np.flatnonzero(keep)
        self.frames, self.tracks, self.values, self.scores = (
            part[rows] for part in (self.frames, self.tracks, self.values, self.scores)
        )
        self.where = [self.where[row] for row in rows]
        self.classes = None if self.classes is None else [self.classes[row] for row in rows]


def plain(text: str) -> str:
    """Write a class as people do: 0 and 0.0 are one."""
    number = as_number(text)
    return text if number is None or number != round(number) else str(int(number))
