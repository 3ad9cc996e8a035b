"""Groups of tracklets that follow from a tree of joins and from answers.

Answers are votes on pairs of tracklets. A pair whose tracklets are in one group of the tree is a vote on the join that unites
them: where more say "different" than "same", that join is undone, and so are those above it. The pieces that are left are
united where votes say "same", kept apart where they say "different" or where one camera saw two at once, and otherwise joined
again by their mean distance up to the tree's threshold. Two that were seen at once for so short a time that it may be an error
of the tracker are kept apart until a vote says "same". Votes that contradict each other, directly or over others, are tried
from the most to the least credible; those that no longer fit are returned as contradictions. The result depends on the set of
the answers, not on their order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from csip.review.distances import GroupDistances
from csip.review.tree import MergeTree

FIRM = 3.0  # the weight of what a person has done by hand, in answers


@dataclass(frozen=True)
class Vote:
    """Somebody says of two tracklets that they are the same person (weight above 0) or not (below).

    Attributes
    ----------
    a, b
        The tracklets.
    weight
        In answers.
    source
        Number of the answer that it comes from.
    """

    a: int
    b: int
    weight: float
    source: int


@dataclass(frozen=True)
class Link:
    """Two pieces and what votes say of them; `tracklets` are those of a vote, or a pair between the pieces.

    Attributes
    ----------
    pieces
        Their nodes in the tree.
    weight
        Sum of the votes; 0 of what the distance alone proposes.
    sources
        The answers.
    distance
        The mean distance of the pieces.
    firm
        Whether one of the votes was made by hand.
    """

    pieces: tuple[int, int]
    weight: float
    sources: tuple[int, ...]
    distance: float
    firm: bool = False


@dataclass(eq=False)
class Grouping:
    """Who is with whom.

    Attributes
    ----------
    people
        (N,) int64 the group of each tracklet, from 0; -1 of those that are left out.
    groups
        The tracklets of each group, rising.
    slots
        (groups,) of `GroupDistances`.
    pieces
        (N,) int64 the node of each tracklet's piece; -1 of those that are left out.
    open
        Nodes whose join was undone.
    node_votes
        Sum of the votes on each join that has any.
    joined, separated
        Links that hold: within a group, and between two.
    contradictions
        Links that the others contradict, and those whose votes are as many for as against.
    unheld
        Answers that do not hold: their tracklets are together though they say "different", or apart though they say "same".
    """

    people: np.ndarray
    groups: list[np.ndarray]
    slots: np.ndarray
    pieces: np.ndarray
    open: set[int]
    node_votes: dict[int, float]
    joined: list[Link] = field(default_factory=list)
    separated: list[Link] = field(default_factory=list)
    contradictions: list[Link] = field(default_factory=list)
    unheld: list[int] = field(default_factory=list)


class _Sets:
    """Sets of pieces that can be united unless they are kept apart.

    Parameters
    ----------
    apart, doubtful
        Return the pieces that one is kept apart from: by all means, and until somebody says otherwise.
    """

    def __init__(self, apart: Callable[[int], Iterable[int]], doubtful: Callable[[int], Iterable[int]]) -> None:
        self._parent: dict[int, int] = {}
        self._apart: dict[int, set[int]] = {}
        self._doubtful: dict[int, set[int]] = {}
        self._members: dict[int, list[int]] = {}
        self._seeds = apart, doubtful

    def find(self, piece: int) -> int:
        parent = self._parent.get(piece)
        if parent is None:
            self._parent[piece] = piece
            self._apart[piece], self._doubtful[piece] = (set(seed(piece)) for seed in self._seeds)
            self._members[piece] = [piece]
            return piece
        root = piece
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[piece] != root:
            self._parent[piece], piece = root, self._parent[piece]
        return root

    def blocked(self, a: int, b: int) -> bool:
        """Whether two are kept apart by all means."""
        return self._reaches(self._apart, a, b)

    def doubtful(self, a: int, b: int) -> bool:
        """Whether two are kept apart until somebody says otherwise."""
        return self._reaches(self._doubtful, a, b)

    def _reaches(self, kept: dict[int, set[int]], a: int, b: int) -> bool:
        a, b = self.find(a), self.find(b)
        if len(kept[a]) > len(kept[b]):
            a, b = b, a
        return any(self._parent.get(piece, piece) == b or self.find(piece) == b for piece in kept[a])

    def separate(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self._apart[a].add(b)
        self._apart[b].add(a)

    def unite(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        if len(self._members[a]) < len(self._members[b]):
            a, b = b, a
        self._parent[b] = a
        self._apart[a] |= self._apart.pop(b)
        self._doubtful[a] |= self._doubtful.pop(b)
        self._members[a] += self._members.pop(b)

    def members(self, piece: int) -> list[int]:
        return self._members[self.find(piece)]

    def roots(self) -> list[int]:
        return list(self._members)


class _Partners:
    """The other tracklet of each pair that one is in."""

    def __init__(self, pairs: np.ndarray, count: int) -> None:
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        self._others = both[:, 1]
        self._begins = np.searchsorted(both[:, 0], np.arange(count + 1))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the partners of some tracklets."""
        return np.concatenate([self._others[self._begins[row] : self._begins[row + 1]] for row in rows.tolist()])


class Grouper:
    """Makes groups from answers.

    Parameters
    ----------
    tree
        Of all tracklets, cut at the threshold.
    distances
        Between groups.
    apart
        (pairs, 2) tracklets that were in sight together.
    threshold
        Up to which mean distance pieces are joined without an answer.
    brief
        (pairs, 2) tracklets that were in sight together for so short a time that they may be one person.
    """

    def __init__(
        self,
        tree: MergeTree,
        distances: GroupDistances,
        apart: np.ndarray,
        threshold: float,
        brief: np.ndarray | Sequence[tuple[int, int]] = (),
    ) -> None:
        self.tree, self.distances, self.threshold = tree, distances, threshold
        self.apart, self.brief = (np.asarray(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (apart, brief))
        cut = np.unique(tree.roots[: tree.count])
        self._whole = {root: np.sort(tree.below(root)) for root in cut.tolist()}
        self._in_sight = [_Partners(pairs, tree.count) for pairs in (self.apart, self.brief)]

    def group(
        self,
        votes: Sequence[Vote],
        alone: frozenset[int] = frozenset(),
        left_out: frozenset[int] = frozenset(),
        held: frozenset[int] = frozenset(),
        credible: float = 0.0,
    ) -> Grouping:
        """Return the groups that follow from the answers.

        Parameters
        ----------
        votes
            On pairs of tracklets.
        alone
            Tracklets that were taken out of their group by hand; they are pieces of their own.
        left_out
            Tracklets that show nobody, or several people: they are in no group.
        held
            Tracklets whose groups are joined to others by votes alone.
        credible
            How much more credible "same" becomes, in answers, where the mean distance falls by one.
        """
        votes = [vote for vote in votes if vote.a not in left_out and vote.b not in left_out]
        alone = alone - left_out
        node_votes = self._node_votes(votes, alone)
        opened = self._opened(node_votes)
        pieces, members = self._pieces(opened, alone, left_out)
        touched = {int(pieces[row]) for vote in votes for row in (vote.a, vote.b)} | set(members)
        result = self._united(votes, pieces, members, touched, opened, node_votes, held, credible)
        people = result.people
        result.unheld = sorted({v.source for v in votes if (people[v.a] == people[v.b]) != (v.weight > 0)})
        return result

    def _node_votes(self, votes: Sequence[Vote], alone: frozenset[int]) -> dict[int, float]:
        roots = self.tree.roots
        found: dict[int, float] = {}
        for vote in votes:
            if roots[vote.a] == roots[vote.b] and vote.a not in alone and vote.b not in alone:
                node = self.tree.common(vote.a, vote.b)
                found[node] = found.get(node, 0.0) + vote.weight
        return found

    def _opened(self, node_votes: dict[int, float]) -> set[int]:
        opened: set[int] = set()
        for node, weight in node_votes.items():
            if weight < 0:
                root = self.tree.roots[node]
                while node not in opened:
                    opened.add(node)
                    if node == root:
                        break
                    node = int(self.tree.parents[node])
        return opened

    def _pieces(
        self, opened: set[int], alone: frozenset[int], left_out: frozenset[int]
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return the piece of each tracklet, and the tracklets of each piece that is not a whole group of the tree."""
        tree = self.tree
        pieces = tree.roots[: tree.count].copy()
        changed = {int(tree.roots[row]) for row in (*alone, *left_out)}
        for node in opened:
            for child in tree.halves(node):
                if child not in opened:
                    pieces[tree.below(child)] = child
                    changed.add(child)
        for row in (*alone, *left_out):  # the piece that it leaves
            changed.add(int(pieces[row]))
        if alone:
            rows = np.fromiter(alone, np.int64)
            pieces[rows] = rows
            changed |= alone
        if left_out:
            pieces[np.fromiter(left_out, np.int64)] = -1
        members = {}
        for piece in changed:
            below = np.sort(tree.below(piece))
            rows = below[pieces[below] == piece]
            if len(rows):
                members[piece] = rows
        return pieces, members

    def _united(
        self,
        votes: Sequence[Vote],
        pieces: np.ndarray,
        changed: dict[int, np.ndarray],
        touched: set[int],
        opened: set[int],
        node_votes: dict[int, float],
        held: frozenset[int],
        credible: float,
    ) -> Grouping:
        tree = self.tree
        members = self._whole | changed

        def seen_with(partners: _Partners, piece: int) -> Iterable[int]:
            others = np.unique(pieces[partners.of(members[piece])]).tolist()
            return (other for other in others if other not in (-1, piece))

        sets = _Sets(*(partial(seen_with, partners) for partners in self._in_sight))
        result = Grouping(np.full(tree.count, -1, np.int64), [], np.empty(0, np.int64), pieces, opened, node_votes)
        links = self._links(votes, pieces, members)

        def credibility(link: Link) -> tuple[bool, float, int]:
            support = credible * (self.threshold - link.distance)
            weight = abs(link.weight) + (support if link.weight > 0 else -support)
            return not link.firm, -weight, min(link.sources)

        for link in sorted(links, key=credibility):
            self._apply(link, sets, result)
        for piece in touched:
            sets.find(piece)
        self._join_by_distance(sets, members, pieces, held, result)
        return result

    def _links(self, votes: Sequence[Vote], pieces: np.ndarray, members: dict[int, np.ndarray]) -> list[Link]:
        """Sum up the votes between each two pieces."""
        sums: dict[tuple[int, int], tuple[float, list[int]]] = {}
        firm = {v.source for v in votes if abs(v.weight) >= FIRM}
        for vote in votes:
            a, b = int(pieces[vote.a]), int(pieces[vote.b])
            if a != b:
                weight, sources = sums.get((min(a, b), max(a, b)), (0.0, []))
                sums[min(a, b), max(a, b)] = weight + vote.weight, [*sources, vote.source]
        found = []
        for (a, b), (weight, sources) in sums.items():
            slots = self.distances.slots([members[a], members[b]])
            distance = float(self.distances.between(slots[:1], slots[1:])[0, 0])
            found.append(Link((a, b), weight, tuple(sources), distance, not firm.isdisjoint(sources)))
        return found

    def _apply(self, link: Link, sets: _Sets, result: Grouping) -> None:
        a, b = link.pieces
        same = sets.find(a) == sets.find(b)
        if link.weight == 0:
            result.contradictions.append(link)
        elif link.weight > 0:
            # What was done by hand counts more than having been in sight together.
            if not same and (link.firm or not sets.blocked(a, b)):
                sets.unite(a, b)
                result.joined.append(link)
            elif not same:
                result.contradictions.append(link)
            else:
                result.joined.append(link)
        elif same:
            result.contradictions.append(link)
        else:
            sets.separate(a, b)
            result.separated.append(link)

    def _join_by_distance(
        self, sets: _Sets, members: dict[int, np.ndarray], pieces: np.ndarray, held: frozenset[int], result: Grouping
    ) -> None:
        """Join what is near enough and not kept apart, and number the groups."""
        roots = sets.roots()
        merged = {root: np.sort(np.concatenate([members[piece] for piece in sets.members(root)])) for root in roots}
        known = {piece for root in roots for piece in sets.members(root)}
        whole = {piece: members[piece] for piece in np.unique(pieces[pieces >= 0]).tolist() if piece not in known}
        keys = [*merged, *whole]
        slots = self.distances.slots([*merged.values(), *whole.values()])
        slot_of = dict(zip(keys, slots.tolist(), strict=True))
        key_of = {slot: key for key, slot in slot_of.items()}
        alive = set(keys)
        still = {sets.find(int(pieces[row])) for row in held if pieces[row] >= 0}
        heap: list[tuple[float, int, int]] = []

        def offer(rows: np.ndarray, among: np.ndarray) -> None:
            near = self.distances.between(rows, among)
            for i, j in zip(*np.nonzero(near <= self.threshold), strict=True):
                a, b = key_of[int(rows[i])], key_of[int(among[j])]
                if a != b and not {a, b} & still:
                    heapq.heappush(heap, (float(near[i, j]), min(a, b), max(a, b)))

        if merged:
            offer(slots[: len(merged)], slots)
        while heap:
            distance, a, b = heapq.heappop(heap)
            if a not in alive or b not in alive:
                continue
            now = self.distances.between(np.array([slot_of[a]]), np.array([slot_of[b]]))[0, 0]
            if float(now) != distance or sets.blocked(a, b) or sets.doubtful(a, b):
                continue
            pair = (a, b)
            rows = np.sort(np.concatenate([(merged if key in merged else whole).pop(key) for key in pair]))
            sets.unite(a, b)
            root = sets.find(a)
            alive -= {a, b}
            alive.add(root)
            merged[root] = rows
            slot = int(self.distances.slots([rows])[0])
            slot_of[root], key_of[slot] = slot, root
            result.joined.append(Link(pair, 0.0, (), distance))
            offer(np.array([slot]), np.array([slot_of[key] for key in alive]))
        groups = sorted([*merged.values(), *whole.values()], key=lambda rows: int(rows[0]))
        result.groups = groups
        for number, rows in enumerate(groups):
            result.people[rows] = number
        result.slots = self.distances.slots(groups)
        if self.distances.keep(result.slots):
            result.slots = self.distances.slots(groups)
