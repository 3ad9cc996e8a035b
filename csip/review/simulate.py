"""An annotator that answers from the truth, with a given rate of wrong answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from csip.data.csv_table import parse_table
from csip.data.folder import TABLE
from csip.data.names import canonical
from csip.errors import CsipError
from csip.retrieval.clustering import agreement

ONE_PERSON = 0.8  # share of a tracklet's boxes from which it shows one person
_OVERLAP = 0.3  # intersection over union of a box with a true one, from which it shows that person


@dataclass(frozen=True)
class Truth:
    """What the tracklets of rendered videos show.

    Attributes
    ----------
    people
        The person whom most boxes of a tracklet show; -1 where most show nobody.
    marks
        ``junk`` for tracklets that show nobody, ``mixed`` for those that show several people; the others show one.
    """

    people: Mapping[str, int]
    marks: Mapping[str, Literal["junk", "mixed"]] = field(default_factory=dict)

    def agreement(self, names: Sequence[str], people: np.ndarray) -> float:
        """Return the adjusted Rand index of groups, over the tracklets that show one person.

        Parameters
        ----------
        names
            Of the tracklets.
        people
            (names,) the group of each; -1 for none.
        """
        rows = [row for row, name in enumerate(names) if name not in self.marks]
        groups = np.where(people >= 0, people, people.max(initial=0) + 1 + np.arange(len(people)))[rows]
        return agreement(groups, np.array([self.people[names[row]] for row in rows])).ari


@dataclass
class Annotator:
    """Says who is the same person, and marks tracklets of nobody and of several people.

    Attributes
    ----------
    truth
        What there is to see.
    rate
        Share of the answers that are wrong, at random; a wrong answer to a tracklet of nobody, or of several people, is that it
        is not noticed.
    seed
        Of the wrong answers.
    """

    truth: Truth
    rate: float = 0.0
    seed: int = 0
    _chance: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 0.5:
            raise CsipError(f"the rate of wrong answers: expected 0 to less than 0.5, found {self.rate}")
        self._chance = np.random.default_rng(self.seed)

    def mark(self, name: str) -> Literal["junk", "mixed"] | None:
        """Tell what is wrong with a tracklet; None where it shows one person, or it was not noticed."""
        mark = self.truth.marks.get(name)
        return None if mark is not None and self._chance.random() < self.rate else mark

    def same(self, a: str, b: str) -> bool:
        """Tell whether two tracklets are the same person, sometimes wrongly."""
        right = self.truth.people[a] == self.truth.people[b]
        return bool(right != (self._chance.random() < self.rate))


def truth_of_scenes(root: Path, truth: Path) -> Truth:
    """Return what the tracklets of rendered videos show: the people whose true boxes theirs cover.

    Parameters
    ----------
    root
        The data set that `csip ingest` made of the videos.
    truth
        The folder ``gt`` beside the videos: ``CAMERA.txt`` in MOTChallenge's format.

    Raises
    ------
    CsipError
        A camera has no file of true boxes, or the table has no boxes.
    """
    boxes: dict[tuple[str, int], np.ndarray] = {}
    for path in sorted(truth.glob("*.txt")):
        lines = np.loadtxt(path, delimiter=",", ndmin=2)
        boxes |= {(path.stem, int(frame)): lines[lines[:, 0] == frame] for frame in np.unique(lines[:, 0])}
    table, sides = root / TABLE, ("x", "y", "width", "height")
    votes: dict[str, list[int]] = {}
    for line, row in parse_table(table.read_bytes(), table, ("tracklet", "camera", "number", *sides)):
        there = boxes.get((row["camera"], int(row["number"])))
        if there is None and not (truth / f"{row['camera']}.txt").exists():
            raise CsipError(f"{table}: line {line} is of camera {row['camera']}, of which {truth} has no true boxes")
        seen = votes.setdefault(canonical(row["tracklet"]), [])
        seen.append(-1 if there is None else _nearest(there, [float(row[side]) for side in sides]))
    people: dict[str, int] = {}
    marks: dict[str, Literal["junk", "mixed"]] = {}
    for name, found in votes.items():
        person, count = Counter(found).most_common(1)[0]
        people[name] = person
        if person < 0:
            marks[name] = "junk"
        elif count < ONE_PERSON * len(found):
            marks[name] = "mixed"
    return Truth(people, marks)


def _nearest(there: np.ndarray, box: Sequence[float]) -> int:
    """Return the person of the true box that covers a box most; -1 where none does."""
    low = np.maximum(there[:, 2:4], box[:2])
    high = np.minimum(there[:, 2:4] + there[:, 4:6], [box[0] + box[2], box[1] + box[3]])
    common = np.prod((high - low).clip(0), axis=1)
    overlap = common / (np.prod(there[:, 4:6], axis=1) + box[2] * box[3] - common)
    best = int(overlap.argmax())
    return int(there[best, 1]) if overlap[best] >= _OVERLAP else -1
