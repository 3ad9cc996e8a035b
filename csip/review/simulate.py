"""An annotator that answers from the truth, with a given rate of wrong answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from csip.data.csv_table import parse_table
from csip.data.folder import TABLE
from csip.data.names import canonical
from csip.errors import CsipError


@dataclass
class Annotator:
    """Says who is the same person.

    Attributes
    ----------
    people
        The person of each tracklet.
    rate
        Share of the answers that are wrong, at random.
    seed
        Of the wrong answers.
    """

    people: Mapping[str, object]
    rate: float = 0.0
    seed: int = 0
    _chance: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 0.5:
            raise CsipError(f"the rate of wrong answers: expected 0 to less than 0.5, found {self.rate}")
        self._chance = np.random.default_rng(self.seed)

    def same(self, a: str, b: str) -> bool:
        """Tell whether two tracklets are the same person, sometimes wrongly."""
        right = self.people[a] == self.people[b]
        return bool(right != (self._chance.random() < self.rate))


def people_of_scenes(root: Path, truth: Path) -> dict[str, int]:
    """Return the person of each tracklet of rendered videos: the one whose true boxes are most often the nearest.

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
    table = root / TABLE
    votes: dict[str, list[int]] = {}
    for line, row in parse_table(
        table.read_bytes(), table, ("tracklet", "camera", "number", "x", "y", "width", "height")
    ):
        there = boxes.get((row["camera"], int(row["number"])))
        if there is None:
            if not (truth / f"{row['camera']}.txt").exists():
                raise CsipError(
                    f"{table}: line {line} is of camera {row['camera']}, of which {truth} has no true boxes"
                )
            continue
        box = [float(row[side]) for side in ("x", "y", "width", "height")]
        nearest = np.abs(there[:, 2:6] - box).sum(axis=1).argmin()
        votes.setdefault(canonical(row["tracklet"]), []).append(int(there[nearest, 1]))
    return {name: int(np.bincount(found).argmax()) for name, found in votes.items()}
