"""What tells whether two sides are one person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csip.review.candidates import Candidate, width
from csip.review.grouping import Grouper, Grouping
from csip.review.neighbours import Neighbours


class Measures:
    """Measures candidates.

    Parameters
    ----------
    grouper
        Who makes the groups.
    neighbours
        The nearest tracklets of each.
    """

    def __init__(self, grouper: Grouper, neighbours: Neighbours) -> None:
        self._grouper, self._neighbours, self._width = grouper, neighbours, width(grouper)

    def of(self, candidates: Sequence[Candidate], grouping: Grouping) -> tuple[np.ndarray, np.ndarray]:
        """Measure (candidates, 5) what `csip.review.beliefs` weighs; and return the size of the group next to each."""
        distances, people, threshold = self._grouper.distances, grouping.people, self._grouper.threshold
        small = [min((one.here, one.there), key=len) for one in candidates]
        lengths = np.array([len(rows) for rows in small])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        means = np.add.reduceat(distances.features[np.concatenate(small)], starts, axis=0) / lengths[:, None]
        far = 1 - means.astype(np.float32) @ distances.means(grouping.slots).T
        rows = np.arange(len(candidates))
        for side in ("here", "there"):
            far[rows, [people[getattr(one, side)[0]] for one in candidates]] = 9.0
        following = far.argmin(axis=1)
        other = np.minimum(far[rows, following], threshold + 12 * self._width)
        distance = np.array([one.distance for one in candidates])
        sizes = np.log([sorted((len(one.here), len(one.there))) for one in candidates])
        margins = [(threshold - distance) / self._width, (other - distance) / self._width]
        margins.append(self._nearest_margins(candidates, small, people))
        near = other <= threshold
        after = np.where(near, np.array([len(rows) for rows in grouping.groups])[following], 0)
        return np.stack([*margins, sizes[:, 0], sizes[:, 1]], axis=1), after

    def _nearest_margins(
        self, candidates: Sequence[Candidate], small: list[np.ndarray], people: np.ndarray
    ) -> np.ndarray:
        """Return how much nearer each smaller side's nearest tracklets are on the other side than elsewhere, in widths."""
        neighbours, size = self._neighbours, len(people)
        if not neighbours.rows.shape[1]:
            return np.zeros(len(candidates))
        lengths = np.array([len(rows) for rows in small])
        of, rows = np.repeat(np.arange(len(small)), lengths), np.concatenate(small)
        near, distances = neighbours.rows[rows], neighbours.distances[rows]
        sides = np.array([[people[one.here[0]], people[one.there[0]]] for one in candidates])[of]
        whose = people[near]
        own = (whose == sides[:, :1]) | (whose == sides[:, 1:])
        inside = own.copy()
        inside[own] = ~np.isin((of[:, None] * size + near)[own], of * size + rows)  # not of the smaller side itself
        last = distances[:, -1:]  # at least as far, where none of the neighbours is one
        nearest_own = np.where(inside, distances, last).min(axis=1)
        nearest_other = np.where(own | (whose < 0), last, distances).min(axis=1)
        margins = (nearest_other - nearest_own) / self._width
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        joined = np.array([one.joined for one in candidates])
        means, most = np.add.reduceat(margins, starts) / lengths, np.maximum.reduceat(margins, starts)
        return np.asarray(np.clip(np.where(joined, means, most), -6, 6))
