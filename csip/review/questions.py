"""The question whose answer is likely to change most: how likely the proposal is wrong there, times the pairs that hang on it.

A question is about two sides, each a group of tracklets that looks like one person, and shows one tracklet of each. The sides
are the two halves of a join within a group, two groups that were not joined, or what an earlier answer has joined or kept
apart: a single answer may be a slip, and is asked about again, with other tracklets, where much hangs on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from csip.review.grouping import FIRM, Grouper, Grouping, Link, Vote

# Weights before there are answers, as measured on synthetic crowds of three levels of noise: of the mean distance below the
# threshold, of the margin to the next group, and of that to the nearest tracklet of another group, all in widths; of the
# logarithms of the smaller and the larger side; the offset. Below, how firmly they are held.
_SPLIT = (0.3, 0.4, 1.1, 0.2, 0.1, 0.2)
_JOIN = (0.6, 1.0, 0.6, -1.6, -1.7, 3.6)
_PRIOR = np.array([8.0, 8.0, 8.0, 4.0, 4.0, 1.0])
NEIGHBOURS = 24  # nearest tracklets of each that are known
_SLIPS = (0.6, 60.0)  # wrong answers among so many, before any was asked again
_TIMES = 2  # that one pair of tracklets is asked about
_BLOCK = 2048  # tracklets compared at once
_WIDTH = 0.12  # of the threshold
_CENTRAL = 6  # tracklets of a side from which the one shown is chosen
_REJOINED = 0.7  # how often what was split off joins the next group, and rightly
_DOUBT = 0.6  # what is left of a question's stake when nobody could tell
_SURE = 5.8  # log odds, one in three hundred is otherwise, beyond which they grow like a logarithm: measures mislead
_FAR = 12.0  # widths beyond the threshold from which two groups are no question
_BRIEF = 0.4  # answers "different" that being in sight together for a short time counts as
_MOST = 400  # candidates of a kind that are looked at
_LEAST = 0.004  # pairs at stake from which a question is one

Kind = Literal["join", "split", "again", "contradiction"]


@dataclass(frozen=True)
class Question:
    """Two tracklets to compare.

    Attributes
    ----------
    a, b
        The tracklets shown.
    kind
        Whether to join two groups, to split one, to answer again, or to settle a contradiction.
    stake
        Pairs of tracklets that are expected to be put right.
    pairs
        Pairs of tracklets that hang on the answer.
    same
        How likely it is that they are the same person.
    distance
        Mean distance of the two sides.
    measured
        What the probability was computed from.
    at_once
        Whether two of the sides were in sight together for a short time.
    """

    a: int
    b: int
    kind: Kind
    stake: float
    pairs: int
    same: float
    distance: float
    measured: tuple[float, ...]
    at_once: bool = False


@dataclass(frozen=True, eq=False)
class Belief:
    """How likely two sides are the same person: a logistic regression on what is measured of them, see `measures`.

    Attributes
    ----------
    weights
        (6,) of the measures and the offset.
    """

    weights: np.ndarray

    def log_odds(self, measured: np.ndarray) -> np.ndarray:
        """Return the log odds of "same", (n,), of (n, 5) measures."""
        plain = measured @ self.weights[:-1] + self.weights[-1]
        beyond = np.maximum(np.abs(plain) - _SURE, 0)
        return np.asarray(np.sign(plain) * (np.minimum(np.abs(plain), _SURE) + np.log1p(beyond)))

    @staticmethod
    def fitted(start: Sequence[float], answers: Sequence[tuple[Sequence[float], bool]]) -> Belief:
        """Fit to answers, from where things stand before there are any; a few of them move little.

        Parameters
        ----------
        start
            The weights without answers.
        answers
            The measures, and whether they were the same.
        """
        weights = np.array(start, dtype=np.float64)
        if not answers:
            return Belief(weights)
        x = np.array([[*measured, 1.0] for measured, _ in answers])
        y = np.array([same for _, same in answers], dtype=np.float64)
        begin = weights.copy()
        for _ in range(25):  # Newton's steps
            p = sigmoid(np.clip(x @ weights, -30, 30))
            gradient = x.T @ (p - y) + _PRIOR * (weights - begin)
            step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(_PRIOR), gradient)
            weights = weights - np.clip(step, -1, 1)
            if np.abs(step).max() < 1e-6:
                break
        return Belief(weights)


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What is believed of joins within groups, of groups that are not joined, and of answers.

    Attributes
    ----------
    split, join
        How likely the two sides are the same person.
    error
        Share of the answers that are wrong.
    """

    split: Belief
    join: Belief
    error: float

    @property
    def answer(self) -> float:
        """Log odds that one answer adds."""
        return float(np.log((1 - self.error) / self.error))

    @staticmethod
    def fitted(answers: Sequence[Answered]) -> Beliefs:
        """Fit all of it to the answers; `error` to those that were asked again."""
        parts = {kind: [(one.measured, one.same) for one in answers if one.kind == kind] for kind in ("split", "join")}
        again = [one.agrees for one in answers if one.kind == "again"]
        error = (_SLIPS[0] + again.count(False)) / (_SLIPS[1] + len(again))
        return Beliefs(Belief.fitted(_SPLIT, parts["split"]), Belief.fitted(_JOIN, parts["join"]), min(error, 0.2))


@dataclass(frozen=True)
class Answered:
    """A question and its answer, for `Beliefs.fitted`.

    Attributes
    ----------
    kind, measured
        Of the question.
    same
        The answer.
    agrees
        Whether the answer is what was believed.
    """

    kind: Kind
    measured: tuple[float, ...]
    same: bool
    agrees: bool


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Return probabilities."""
    return 1 / (1 + np.exp(-np.asarray(log_odds, dtype=np.float64)))


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions that are open, by their stakes.

    Attributes
    ----------
    first
        The ones with most at stake, in order.
    count
        How many there are.
    stakes
        (count,) of all, falling: pairs of tracklets that are expected to be put right by each.
    """

    first: tuple[Question, ...]
    count: int
    stakes: np.ndarray

    def until(self, share: float, pairs: int) -> int:
        """Return how many of them to answer until at most a share of so many pairs is expected to be wrong."""
        left = self.stakes.sum() - np.cumsum(np.concatenate([[0.0], self.stakes]))
        return int(np.argmax(left <= share * pairs + 1e-9))


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest tracklets of each, (N, K): their rows, and their distances, rising."""

    rows: np.ndarray
    distances: np.ndarray


def nearest(features: np.ndarray, count: int = NEIGHBOURS) -> Neighbours:
    """Find the nearest tracklets of each by comparing all; `features` are (N, D) float32 of unit length."""
    size = len(features)
    count = min(count, size - 1)
    rows, distances = np.empty((size, count), np.int64), np.empty((size, count), np.float32)
    for start in range(0, size, _BLOCK):
        part = 1 - features[start : start + _BLOCK] @ features.T
        here = np.arange(len(part))
        part[here, start + here] = np.inf
        found = np.argpartition(part, count - 1, axis=1)[:, :count] if count else np.empty((len(part), 0), np.int64)
        values = np.take_along_axis(part, found, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        rows[start : start + _BLOCK] = np.take_along_axis(found, order, axis=1)
        distances[start : start + _BLOCK] = np.take_along_axis(values, order, axis=1)
    return Neighbours(rows, distances)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A question before its tracklets are chosen: two sides, and the log odds of "same" without and with answers."""

    kind: Kind
    here: np.ndarray
    there: np.ndarray
    weight: float
    joined: bool
    distance: float
    at_once: bool = False


class Asker:
    """Chooses questions.

    Parameters
    ----------
    grouper
        Who makes the groups.
    neighbours
        The nearest tracklets of each, see `nearest`.
    """

    def __init__(self, grouper: Grouper, neighbours: Neighbours) -> None:
        self._grouper, self._tree, self._neighbours = grouper, grouper.tree, neighbours
        tree = self._tree
        inner = np.arange(tree.count, 2 * tree.count - 1)
        self._nodes = inner[tree.heights[inner] <= grouper.threshold]
        halves = tree.sizes[tree.children]
        self._pairs = (halves[:, 0] * halves[:, 1]).astype(np.float64)[self._nodes - tree.count]
        self._width = max(_WIDTH * grouper.threshold, 1e-6)

    def credible(self, beliefs: Beliefs) -> float:
        """Return how much more credible "same" becomes, in answers, where the mean distance falls by one."""
        return float(beliefs.split.weights[:2].sum() / self._width / beliefs.answer)

    def ask(
        self,
        grouping: Grouping,
        votes: Sequence[Vote],
        unsure: Mapping[tuple[int, int], int],
        beliefs: Beliefs,
        count: int = 1,
    ) -> Questions:
        """Return the open questions.

        Parameters
        ----------
        grouping
            What follows from the answers.
        votes
            The answers.
        unsure
            Pairs of tracklets, the lower number first, about which nobody could tell, with how often.
        beliefs
            How likely groups are the same person.
        count
            How many of the first to return.
        """
        asked: dict[tuple[int, int], int] = dict(unsure)
        for vote in votes:
            pair = min(vote.a, vote.b), max(vote.a, vote.b)
            asked[pair] = asked.get(pair, 0) + 1
        candidates = [*self._splits(grouping, votes), *self._joins(grouping), *self._again(grouping, votes)]
        if not candidates:
            return Questions((), 0, np.empty(0))
        measured, after = self._measures(candidates, grouping)
        joined = np.array([one.joined for one in candidates])
        weights = np.array([one.weight for one in candidates])
        split, join = beliefs.split.log_odds(measured), beliefs.join.log_odds(measured)
        # An answer is doubted by whichever belief it goes against; that of joins within groups ends at the threshold.
        again, near = weights != 0, measured[:, 0] >= 0
        log_odds = np.where(joined, split, join)
        log_odds[again & joined] = np.minimum(split, join)[again & joined]
        log_odds[again & ~joined & near] = np.maximum(split, join)[again & ~joined & near]
        same = sigmoid(log_odds + beliefs.answer * weights)
        pairs = np.array([len(one.here) * len(one.there) for one in candidates], dtype=np.float64)
        # What leaves a group joins the next one: as many pairs again are put right.
        small = np.array([min(len(one.here), len(one.there)) for one in candidates])
        stakes = np.where(joined, (1 - same) * (pairs + _REJOINED * small * after), same * pairs)
        torn = np.array([one.kind == "contradiction" for one in candidates])
        stakes[torn] = (np.minimum(same, 1 - same) * pairs + 1)[torn]  # to be settled, even where little hangs on it
        self._doubt(candidates, stakes, unsure)
        order = np.argsort(-stakes, kind="stable")
        order = order[stakes[order] > _LEAST]
        first: list[Question] = []
        for place in order.tolist():
            if len(first) == count:
                break
            one = candidates[place]
            a, b, before = self._shown(one.here, one.there, asked)
            if before >= _TIMES:
                stakes[place] = 0  # to be told in another way
                continue
            numbers = float(stakes[place]), int(pairs[place]), float(same[place]), one.distance
            first.append(Question(a, b, one.kind, *numbers, tuple(measured[place].tolist()), one.at_once))
        open_stakes = stakes[order][stakes[order] > _LEAST]
        return Questions(tuple(first), len(open_stakes), open_stakes)

    def _measures(self, candidates: Sequence[_Candidate], grouping: Grouping) -> tuple[np.ndarray, np.ndarray]:
        """Measure (candidates, 5) what tells the same person, see `_SPLIT`; and the size of the group next to each."""
        distances, people, threshold = self._grouper.distances, grouping.people, self._grouper.threshold
        small = [min((one.here, one.there), key=len) for one in candidates]
        lengths = np.array([len(rows) for rows in small])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        means = np.add.reduceat(distances.features[np.concatenate(small)], starts, axis=0) / lengths[:, None]
        far = 1 - means @ distances.means(grouping.slots).T
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
        self, candidates: Sequence[_Candidate], small: list[np.ndarray], people: np.ndarray
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

    def _splits(self, grouping: Grouping, votes: Sequence[Vote]) -> Iterator[_Candidate]:
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
            if worth[place] <= _LEAST / 10:
                break
            left, right = (self._kept(tree.below(child), grouping) for child in tree.halves(node))
            if len(left) and len(right):
                kind: Kind = "again" if node in grouping.node_votes else "split"
                yield _Candidate(kind, left, right, known.get(node, 0.0), True, float(tree.heights[node]))

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

    def _joins(self, grouping: Grouping) -> Iterator[_Candidate]:
        slots = grouping.slots
        near = self._grouper.distances.between(slots, slots)
        i, j = np.nonzero(near <= self._grouper.threshold + _FAR * self._width)
        i, j = i[i < j], j[i < j]
        kept = ~np.isin(i * len(slots) + j, self._apart(grouping))
        i, j = i[kept], j[kept]
        at_once = np.isin(i * len(slots) + j, self._groups_of(self._grouper.brief, grouping))
        distance = near[i, j].astype(np.float64)
        sizes = np.array([len(rows) for rows in grouping.groups], dtype=np.float64)
        worth = sigmoid((self._grouper.threshold - distance) / self._width) * sizes[i] * sizes[j]
        for place in np.argsort(-worth)[:_MOST].tolist():
            here, there = grouping.groups[i[place]], grouping.groups[j[place]]
            weight = -_BRIEF if at_once[place] else 0.0
            yield _Candidate("join", here, there, weight, False, float(distance[place]), bool(at_once[place]))

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

    def _again(self, grouping: Grouping, votes: Sequence[Vote]) -> Iterator[_Candidate]:
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
                yield _Candidate("again" if link.weight else "split", here, there, link.weight, True, link.distance)
        for (first, second), (total, same, different) in self._between(grouping, votes).items():
            here, there = grouping.groups[first], grouping.groups[second]
            slots = grouping.slots[[first, second]]
            distance = float(self._grouper.distances.between(slots[:1], slots[1:])[0, 0])
            if same and different:
                yield self._torn(here, there, same, different, grouping) or _Candidate(
                    "contradiction", here, there, total, False, distance
                )
            elif total > -FIRM:
                yield _Candidate("contradiction" if same else "again", here, there, total, False, distance)
        for link in grouping.contradictions:
            here, there = (self._members(piece, grouping) for piece in link.pieces)
            if grouping.people[here[0]] == grouping.people[there[0]]:
                yield _Candidate("contradiction", here, there, link.weight, False, link.distance)

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
    ) -> _Candidate | None:
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
        return _Candidate("contradiction", left, right, 0.0, True, float(tree.heights[best]))

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

    def _doubt(
        self, candidates: Sequence[_Candidate], stakes: np.ndarray, unsure: Mapping[tuple[int, int], int]
    ) -> None:
        """Lower the stakes of questions that nobody could answer."""
        for (a, b), times in unsure.items():
            for place, one in enumerate(candidates):
                if (a in one.here and b in one.there) or (b in one.here and a in one.there):
                    stakes[place] *= (1 - _DOUBT) ** times

    def _shown(self, here: np.ndarray, there: np.ndarray, asked: Mapping[tuple[int, int], int]) -> tuple[int, int, int]:
        """Return the most central tracklets of two sides that were compared least, and how often they were."""
        features = self._grouper.distances.features
        central = []
        for rows in (here, there):
            near = features[rows] @ features[rows].mean(axis=0)
            central.append(rows[np.argsort(-near, kind="stable")[:_CENTRAL]].tolist())
        ranked = sorted(
            (asked.get((min(a, b), max(a, b)), 0), i + j, i, a, b)
            for i, a in enumerate(central[0])
            for j, b in enumerate(central[1])
        )
        times, _, _, a, b = ranked[0]
        return a, b, times
