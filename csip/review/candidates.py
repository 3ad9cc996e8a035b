"""What could be asked: two sides, each a group of tracklets that looks like one person.

The sides are the two halves of a join within a group, two groups that were not joined, or what an earlier answer has joined or
kept apart: a single answer may be a slip, and is asked about again, with other tracklets, where much hangs on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from csip.review.beliefs import Kind, sigmoid
from csip.review.grouping import FIRM, Grouper, Grouping, Link, Vote

WIDTH = 0.12  # of the threshold
LEAST = 0.004  # pairs at stake from which a question is one
_FAR = 12.0  # widths beyond the threshold from which two groups are no question
_BRIEF = 0.4  # answers "different" that being in sight together for a short time counts as
_SETTLED = 2.0  # answers by which one side outweighs the other, from which a contradiction is none
_MOST = 400  # candidates of a kind that are looked at


@dataclass(frozen=True, eq=False)
class Candidate:
    """A question before its tracklets are chosen.

    Attributes
    ----------
    kind
        Of the question.
    here, there
        The tracklets of the two sides.
    weight
        What answers say of them, in answers: "same" above 0.
    joined
        Whether they are in one group.
    distance
        Mean distance of the two sides.
    at_once
        Whether two of them were in sight together for a short time.
    """

    kind: Kind
    here: np.ndarray
    there: np.ndarray
    weight: float
    joined: bool
    distance: float
    at_once: bool = False


class Candidates:
    """Finds what could be asked.

    Parameters
    ----------
    grouper
        Who makes the groups.
    """

    def __init__(self, grouper: Grouper) -> None:
        self._grouper, self._tree = grouper, grouper.tree
        tree = self._tree
        inner = np.arange(tree.count, 2 * tree.count - 1)
        self._nodes = inner[tree.heights[inner] <= grouper.threshold]
        halves = tree.sizes[tree.children]
        self._pairs = (halves[:, 0] * halves[:, 1]).astype(np.float64)[self._nodes - tree.count]
        self._width = width(grouper)

    def of(self, grouping: Grouping, votes: Sequence[Vote]) -> list[Candidate]:
        """Return what could be asked, those without much at stake aside."""
        return [*self._splits(grouping, votes), *self._joins(grouping), *self._again(grouping, votes)]

    def _splits(self, grouping: Grouping, votes: Sequence[Vote]) -> Iterator[Candidate]:
        """Yield the joins of the tree, those first that are at a large distance and unite many."""
        tree = self._tree
        below = (self._grouper.threshold - tree.heights[self._nodes]) / self._width
        worth = self._pairs * sigmoid(-0.75 * below)
        known = self._implied(votes, grouping) | grouping.node_votes
        for node, weight in known.items():
            place = int(np.searchsorted(self._nodes, node))
            worth[place] = 0 if weight >= FIRM else worth[place] * 0.02**weight
        if grouping.open:
            worth[np.searchsorted(self._nodes, sorted(grouping.open))] = 0
        for place in np.argsort(-worth)[:_MOST].tolist():
            node = int(self._nodes[place])
            if worth[place] <= LEAST / 10:
                break
            left, right = (self._kept(tree.below(child), grouping) for child in tree.halves(node))
            if len(left) and len(right):
                kind: Kind = "again" if node in grouping.node_votes else "split"
                yield Candidate(kind, left, right, known.get(node, 0.0), True, float(tree.heights[node]))

    def _implied(self, votes: Sequence[Vote], grouping: Grouping) -> dict[int, float]:
        """Return the joins on which nobody has voted, but that follow from other answers."""
        tree = self._tree
        parent: dict[int, int] = {}

        def find(row: int) -> int:
            while parent.setdefault(row, row) != row:
                parent[row] = parent[parent[row]]
                row = parent[row]
            return row

        for vote in votes:
            if vote.weight > 0:
                parent[find(vote.a)] = find(vote.b)
        sets: dict[tuple[int, int], list[int]] = {}
        for row in list(parent):
            if grouping.pieces[row] >= tree.count:
                sets.setdefault((find(row), int(grouping.pieces[row])), []).append(row)
        found = {}
        for rows in sets.values():
            rows.sort(key=lambda row: int(tree.starts[row]))
            for a, b in pairwise(rows):
                found[tree.common(a, b)] = 1.0
        return found

    def _kept(self, rows: np.ndarray, grouping: Grouping) -> np.ndarray:
        """Return the tracklets of a half that nobody has taken out."""
        return rows[grouping.pieces[rows] >= self._tree.count]

    def _joins(self, grouping: Grouping) -> Iterator[Candidate]:
        """Yield the groups that are not joined, those first that are near and large."""
        count, threshold = len(grouping.slots), self._grouper.threshold
        near = self._grouper.distances.between(grouping.slots, grouping.slots)
        near.flat[self._apart(grouping)] = np.inf
        sizes = np.array([len(rows) for rows in grouping.groups], dtype=np.float32)
        beyond = np.clip((near - threshold) / self._width, -_FAR, 2 * _FAR)
        worth = np.triu(sizes * sizes[:, None] / (1 + np.exp(beyond)), 1).ravel()
        best = np.argpartition(-worth, _MOST)[:_MOST] if len(worth) > _MOST else np.arange(len(worth))
        best = best[np.lexsort((best, -worth[best]))]
        best = best[(worth[best] > 0) & (near.ravel()[best] <= threshold + _FAR * self._width)]
        at_once = np.isin(best, self._groups_of(self._grouper.brief, grouping))
        for place, once in zip(best.tolist(), at_once.tolist(), strict=True):
            here, there = grouping.groups[place // count], grouping.groups[place % count]
            weight = -_BRIEF if once else 0.0
            yield Candidate("join", here, there, weight, False, float(near.ravel()[place]), once)

    def _apart(self, grouping: Grouping) -> np.ndarray:
        """Return the pairs of groups that are kept apart, as one number each."""
        numbers = self._groups_of(self._grouper.apart, grouping)
        links = (*grouping.separated, *grouping.contradictions)
        ends = [sorted(self._person(piece, grouping) for piece in link.pieces) for link in links]
        return np.concatenate([numbers, np.array([a * len(grouping.groups) + b for a, b in ends], np.int64)])

    def _groups_of(self, pairs: np.ndarray, grouping: Grouping) -> np.ndarray:
        """Return the groups of pairs of tracklets, as one number each."""
        ends = grouping.people[pairs]
        ends = np.sort(ends[(ends >= 0).all(axis=1)], axis=1)
        return np.unique(ends[:, 0] * len(grouping.groups) + ends[:, 1])

    def _person(self, piece: int, grouping: Grouping) -> int:
        return int(grouping.people[self._members(piece, grouping)[0]])

    def _members(self, piece: int, grouping: Grouping) -> np.ndarray:
        rows = self._tree.below(piece)
        return rows[grouping.pieces[rows] == piece]

    def _again(self, grouping: Grouping, votes: Sequence[Vote]) -> Iterator[Candidate]:
        """Yield what was joined or kept apart by too few answers, and contradictions."""
        by_source = {vote.source: vote for vote in votes}
        for link, here, there in self._bridges(grouping):
            said = [by_source[source] for source in link.sources]
            same, different = (
                [row for vote in said if (vote.weight > 0) == wanted for row in (vote.a, vote.b)]
                for wanted in (True, False)
            )
            torn = self._torn(here, there, same, different, grouping) if same and different else None
            if torn is not None:
                yield torn
            elif link.weight < FIRM:
                yield Candidate("again" if link.weight else "split", here, there, link.weight, True, link.distance)
        for (first, second), (total, same, different) in self._between(grouping, votes).items():
            here, there = grouping.groups[first], grouping.groups[second]
            slots = grouping.slots[[first, second]]
            distance = float(self._grouper.distances.between(slots[:1], slots[1:])[0, 0])
            if same and different and total > -_SETTLED:
                yield self._torn(here, there, same, different, grouping) or Candidate(
                    "contradiction", here, there, total, False, distance
                )
            elif total > -FIRM:
                kind: Kind = "contradiction" if same and not different else "again"
                yield Candidate(kind, here, there, total, False, distance)
        for link in grouping.contradictions:
            here, there = (self._members(piece, grouping) for piece in link.pieces)
            if grouping.people[here[0]] == grouping.people[there[0]]:
                yield Candidate("contradiction", here, there, link.weight, False, link.distance)

    def _between(
        self, grouping: Grouping, votes: Sequence[Vote]
    ) -> dict[tuple[int, int], tuple[float, list[int], list[int]]]:
        """Return the votes between each two groups: their sum, the tracklets of those for "same", and for "different"."""
        found: dict[tuple[int, int], tuple[float, list[int], list[int]]] = {}
        for vote in votes:
            a, b = int(grouping.people[vote.a]), int(grouping.people[vote.b])
            if a != b and a >= 0 and b >= 0:
                total, same, different = found.setdefault((min(a, b), max(a, b)), (0.0, [], []))
                (same if vote.weight > 0 else different).extend((vote.a, vote.b))
                found[min(a, b), max(a, b)] = total + vote.weight, same, different
        return found

    def _torn(
        self, here: np.ndarray, there: np.ndarray, same: list[int], different: list[int], grouping: Grouping
    ) -> Candidate | None:
        """Return the join within one of two groups that answers between them make doubtful; None where there is none."""
        tree, best = self._tree, -1
        for rows in (here, there):
            for a in same:
                for b in different:
                    if a != b and a in rows and b in rows and grouping.pieces[a] == grouping.pieces[b] >= tree.count:
                        best = max(best, tree.common(a, b))
        if best < 0 or best in grouping.node_votes:
            return None
        left, right = (self._kept(tree.below(child), grouping) for child in tree.halves(best))
        return Candidate("contradiction", left, right, 0.0, True, float(tree.heights[best]))

    def _bridges(self, grouping: Grouping) -> Iterator[tuple[Link, np.ndarray, np.ndarray]]:
        """Yield the links within groups that hold two sides together alone, with the two sides."""
        edges: dict[int, list[tuple[int, int]]] = {}
        for number, link in enumerate(grouping.joined):
            a, b = link.pieces
            edges.setdefault(a, []).append((b, number))
            edges.setdefault(b, []).append((a, number))
        for number, link in enumerate(grouping.joined):
            seen, todo = {link.pieces[0]}, [link.pieces[0]]
            while todo:
                for other, edge in edges[todo.pop()]:
                    if edge != number and other not in seen:
                        seen.add(other)
                        todo.append(other)
            if link.pieces[1] in seen:
                continue  # others hold them together, too
            here = np.sort(np.concatenate([self._members(piece, grouping) for piece in seen]))
            group = grouping.groups[int(grouping.people[here[0]])]
            yield link, here, np.setdiff1d(group, here, assume_unique=True)


def width(grouper: Grouper) -> float:
    """Return the distance that margins are measured in."""
    return max(WIDTH * grouper.threshold, 1e-6)
