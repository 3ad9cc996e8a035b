"""IDF1 and HOTA of tracks by motmetrics and TrackEval, and a tracker that only looks at overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import motmetrics
import numpy as np
from scipy.optimize import linear_sum_assignment
from trackeval.metrics import HOTA

from csip.video.tracking import Detections, Track

Rows = np.ndarray
"""(N, 6) of boxes of a video: frame, id, left, top, right, bottom."""

HIDDEN = 0.25
OVERLAP = 0.5


def truth_rows(path: Path) -> tuple[Rows, np.ndarray]:
    """Read MOTChallenge's truth: boxes with ids, and the visibility of each."""
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    boxes = np.concatenate([table[:, 2:4], table[:, 2:4] + table[:, 4:6]], axis=1)
    return np.concatenate([table[:, :2], boxes], axis=1), table[:, 8]


def track_rows(tracks: Sequence[Track]) -> Rows:
    rows = [
        np.concatenate([track.frames[:, None], np.full((len(track.frames), 1), number), track.boxes], axis=1)
        for number, track in enumerate(tracks, start=1)
    ]
    return np.concatenate(rows) if rows else np.zeros((0, 6))


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union, (N, M)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.prod((high - low).clip(0), axis=2)
    area, other_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other))
    return common / np.maximum(area[:, None] + other_area[None] - common, 1e-9)


def matches(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best one-to-one matches of at least OVERLAP."""
    rows, columns = linear_sum_assignment(np.where(similarity >= OVERLAP, -similarity, 0.0))
    good = similarity[rows, columns] >= OVERLAP
    return rows[good], columns[good]


def without_hidden(truth: Rows, visibility: np.ndarray, found: Rows) -> tuple[Rows, Rows]:
    """Leave out who is hardly seen, and what was found of them: it counts neither for nor against a tracker."""
    drop = np.zeros(len(found), bool)
    for frame in np.unique(found[:, 0]):
        at, true = np.flatnonzero(found[:, 0] == frame), np.flatnonzero(truth[:, 0] == frame)
        rows, columns = matches(overlaps(truth[true, 2:], found[at, 2:]))
        drop[at[columns[visibility[true[rows]] < HIDDEN]]] = True
    return truth[visibility >= HIDDEN], found[~drop]


def score(truth: Rows, found: Rows) -> dict[str, float]:
    """IDF1, identity switches (motmetrics; overlap of at least a half) and HOTA with its two factors (TrackEval)."""
    accumulator = motmetrics.MOTAccumulator()
    similarities, true_ids, found_ids = [], [], []
    _, true_number = np.unique(truth[:, 1], return_inverse=True)
    _, found_number = np.unique(found[:, 1], return_inverse=True)
    for frame in np.unique(np.concatenate([truth[:, 0], found[:, 0]])):
        true, at = truth[:, 0] == frame, found[:, 0] == frame
        similarity = overlaps(truth[true, 2:], found[at, 2:])
        distance = np.where(similarity >= OVERLAP, 1 - similarity, np.nan)
        accumulator.update(truth[true, 1], found[at, 1], distance, frameid=int(frame))
        similarities.append(similarity)
        true_ids.append(true_number[true])
        found_ids.append(found_number[at])
    summary = motmetrics.metrics.create().compute(accumulator, metrics=["idf1", "num_switches"]).iloc[0]
    hota = HOTA().eval_sequence({
        "gt_ids": true_ids, "tracker_ids": found_ids, "similarity_scores": similarities,
        "num_gt_dets": len(truth), "num_tracker_dets": len(found),
        "num_gt_ids": len(np.unique(truth[:, 1])), "num_tracker_ids": len(np.unique(found[:, 1])),
    })  # fmt: skip
    figures = {name.lower(): float(np.mean(hota[name])) for name in ("HOTA", "DetA", "AssA")}
    return {"idf1": float(summary["idf1"]), "switches": int(summary["num_switches"]), **figures}


def joined(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several videos one after the other; ids of different videos are different."""
    result, frame, number = [], 0.0, 0.0
    for rows in parts:
        result.append(rows + np.array([frame, number, 0, 0, 0, 0]))
        frame, number = frame + 1e6, number + 1e6
    return np.concatenate(result)


class GreedyTracker:
    """Continues each track with the box that overlaps its last one most, the best pair first; no motion, no second look."""

    def __init__(self, least: float = 0.3, patience: int = 5) -> None:
        self._least, self._patience = least, patience
        self._tracks: list[list[tuple[int, np.ndarray, float]]] = []
        self._open: list[int] = []
        self._looks: dict[int, int] = {}
        self._look = 0

    def look(self, frame: int, detections: Detections) -> None:
        self._look += 1
        self._open = [number for number in self._open if self._look - self._looks[number] <= self._patience]
        free = list(range(len(detections.boxes)))
        last = np.array([self._tracks[number][-1][1] for number in self._open]).reshape(-1, 4)
        similarity = overlaps(last, detections.boxes.reshape(-1, 4))
        taken: set[int] = set()
        for flat in np.argsort(-similarity, axis=None):
            row, column = np.unravel_index(flat, similarity.shape)
            if similarity[row, column] < self._least:
                break
            if row not in taken and column in free:
                taken.add(int(row))
                free.remove(int(column))
                self._add(self._open[row], frame, detections, int(column))
        for column in free:
            self._tracks.append([])
            self._open.append(len(self._tracks) - 1)
            self._add(len(self._tracks) - 1, frame, detections, column)

    def _add(self, number: int, frame: int, detections: Detections, column: int) -> None:
        self._tracks[number].append((frame, detections.boxes[column], float(detections.scores[column])))
        self._looks[number] = self._look

    def tracks(self) -> list[Track]:
        return [
            Track(
                np.array([f for f, _, _ in found]), np.stack([b for _, b, _ in found]), np.array([s for *_, s in found])
            )
            for found in self._tracks
        ]
