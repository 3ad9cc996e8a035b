"""Ranked lists from descriptors: for each query its nearest gallery tracklets, and how well it went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from csip.data.dataset import JUNK
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.distances import parts
from csip.retrieval.metrics import Ranking, chance, rank

TOP = 10
CMC_RANKS = 50
SAMPLES = 1000
UNSCORED = 1000  # more than the page has room for
_QUERIES = 256  # compared at once: with 11,310 gallery tracklets a block of 12 MB


@dataclass(frozen=True)
class RankedList:
    """What one query found.

    Attributes
    ----------
    query
        Row of the descriptors.
    found
        Rows of the nearest gallery tracklets, nearest first; at most `TOP`.
    distances
        (found,) Euclidean distance between unit descriptors, 0 to 2.
    right
        (found,) whether each is the query's person; None where unknown.
    average_precision, first_hit
        Of the whole ranking; None where the query has no match in the gallery, or identities are unknown.
    """

    query: int
    found: np.ndarray
    distances: np.ndarray
    right: np.ndarray | None
    average_precision: float | None = None
    first_hit: int | None = None


@dataclass(frozen=True)
class CmcCurve:
    """Share of the valid queries with a match among the first k, for k = 1, 2, ...; (K,) each."""

    found: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: np.ndarray


def people_known(descriptors: Descriptors) -> bool:
    """Tell whether some query's person has a gallery tracklet at another camera, so that right and wrong can be told."""
    asked = np.flatnonzero(descriptors.query & (descriptors.identities > 0))
    found = np.flatnonzero(descriptors.gallery & (descriptors.identities > 0))
    cameras: dict[int, set[int]] = {}
    for row in found:
        cameras.setdefault(int(descriptors.identities[row]), set()).add(int(descriptors.cameras[row]))
    return any(cameras.get(int(descriptors.identities[row]), set()) - {int(descriptors.cameras[row])} for row in asked)


def scores(descriptors: Descriptors) -> Ranking:
    """Score every query by the protocol of `csip evaluate`."""
    d = descriptors
    return rank(
        d.features[d.query], d.identities[d.query], d.cameras[d.query],
        d.features[d.gallery], d.identities[d.gallery], d.cameras[d.gallery],
    )  # fmt: skip


def ranked_lists(descriptors: Descriptors, ranking: Ranking | None) -> list[RankedList]:
    """Rank the gallery for each query, worst queries first.

    Parameters
    ----------
    ranking
        The queries' scores; None where people are not known: all other tracklets are then ranked, those of the query's own
        camera too, and the queries stay in the order of the descriptors. Of more than `UNSCORED` queries only as many,
        evenly spread, are ranked, since none tells more than another.
    """
    asked = np.flatnonzero(descriptors.query)
    if ranking is None and len(asked) > UNSCORED:
        asked = asked[np.linspace(0, len(asked) - 1, UNSCORED).astype(int)]
    lists = [
        _one(descriptors, int(row), near, candidates, ranking, number)
        for number, (row, near, candidates) in enumerate(_nearest(descriptors, asked, ranking is not None))
    ]
    if ranking is None:
        return lists
    # Queries that cannot be scored come last; at equal precision the later first match is the worse.
    return sorted(
        lists, key=lambda one: (one.average_precision is None, one.average_precision or 0, -(one.first_hit or 0))
    )


def _nearest(descriptors: Descriptors, asked: np.ndarray, scored: bool) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each query's row, and similarities and rows of its nearest candidates in order."""
    d = descriptors
    gallery = np.flatnonzero(d.gallery & (d.identities != JUNK))
    features = d.features[gallery]
    for block in parts(len(asked), _QUERIES):
        similar = d.features[asked[block]] @ features.T
        for row, values in zip(asked[block], similar, strict=True):
            same = d.identities[gallery] == d.identities[row]
            removed = same & (d.cameras[gallery] == d.cameras[row]) if scored else gallery == row
            values[removed] = -np.inf
            count = min(TOP, int((~removed).sum()))
            # A tie never helps: at equal distance those that are wrong come first.
            near = np.argpartition(-values, count - 1)[:count] if count else np.empty(0, np.int64)
            near = near[np.lexsort((same[near], -values[near]))]
            yield int(row), values[near], gallery[near]


def _one(
    d: Descriptors, row: int, similar: np.ndarray, found: np.ndarray, ranking: Ranking | None, number: int
) -> RankedList:
    distances = np.sqrt(np.clip(2 - 2 * similar, 0, None))
    if ranking is None:
        return RankedList(row, found, distances, None)
    right = (d.identities[found] == d.identities[row]) & (d.identities[row] > 0)
    if not ranking.valid[number]:
        return RankedList(row, found, distances, right)
    return RankedList(
        row, found, distances, right, float(ranking.average_precision[number]), int(ranking.first_hit[number])
    )


def cmc_curve(descriptors: Descriptors, ranking: Ranking, seed: int = 0) -> CmcCurve:
    """Compute the CMC for every rank with a 95 % bootstrap band over queries, and that of a random ranking."""
    hits = ranking.first_hit[ranking.valid]
    ranks = np.arange(1, min(CMC_RANKS, int(descriptors.gallery.sum())) + 1)
    reached = (hits[:, None] <= ranks).astype(np.float64)
    rng = np.random.default_rng(seed)
    count = len(hits)
    means = np.stack([
        np.bincount(rng.integers(count, size=count), minlength=count) @ reached / count for _ in range(SAMPLES)
    ])  # fmt: skip
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    d = descriptors
    by_chance = chance(
        d.identities[d.query],
        d.cameras[d.query],
        d.identities[d.gallery],
        d.cameras[d.gallery],
        ranks=tuple(ranks.tolist()),
    )
    return CmcCurve(reached.mean(axis=0), low, high, np.array([by_chance.cmc[int(k)] for k in ranks]))


def spread(lists: list[RankedList]) -> list[tuple[str, RankedList]]:
    """Order queries by how much they tell: of every four two of the worst, one from the middle, one of the best.

    Whoever shows only some of them takes them from the front.

    Returns
    -------
    list of (group, RankedList)
        Group is ``worst``, ``middle``, ``best``, or ``unscored`` for queries that cannot be scored: those
        follow the others, spread over the data set. Every query once.
    """
    scored = [one for one in lists if one.average_precision is not None]
    unscored = [one for one in lists if one.average_precision is None]
    count = len(scored)
    middle = sorted(range(count), key=lambda i: abs(i - count // 2))
    turns = {"worst": iter(range(count)), "middle": iter(middle), "best": iter(range(count - 1, -1, -1))}
    taken: set[int] = set()
    order: list[tuple[str, RankedList]] = []
    while len(order) < count:
        for group in ("worst", "worst", "middle", "best"):
            index = next((i for i in turns[group] if i not in taken), None)
            if index is not None:
                taken.add(index)
                order.append((group, scored[index]))
    # Multiples of the golden ratio visit every part of the data set early on.
    golden = (5**0.5 - 1) / 2
    return order + [("unscored", unscored[i]) for i in sorted(range(len(unscored)), key=lambda i: i * golden % 1)]
