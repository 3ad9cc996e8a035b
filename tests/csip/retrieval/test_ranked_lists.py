"""Ranked lists, against sorting by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up import random_descriptors
from sklearn.metrics import average_precision_score

from csip.data.dataset import JUNK
from csip.retrieval import ranked_lists
from csip.retrieval.descriptors import Descriptors


def ranked_by_hand(d: Descriptors, query: int, scored: bool) -> list[int]:
    entries = []
    for row in range(len(d.names)):
        mine = d.identities[row] == d.identities[query]
        if not d.gallery[row] or d.identities[row] == JUNK or (scored and mine and d.cameras[row] == d.cameras[query]):
            continue
        if not scored and row == query:
            continue
        entries.append((np.linalg.norm(d.features[query].astype(float) - d.features[row]), mine, row))
    return [row for _, _, row in sorted(entries)]


def test_lists_are_what_sorting_by_hand_gives() -> None:
    d = random_descriptors()
    scores = ranked_lists.scores(d)
    lists = ranked_lists.ranked_lists(d, scores)
    assert sorted(one.query for one in lists) == np.flatnonzero(d.query).tolist()
    for one in lists:
        order = ranked_by_hand(d, one.query, scored=True)
        assert one.found.tolist() == order[: ranked_lists.TOP]
        assert one.distances == pytest.approx(
            [np.linalg.norm(d.features[one.query] - d.features[row]) for row in one.found], abs=1e-3
        )
        assert one.right is not None
        hits = [n for n, row in enumerate(order, start=1) if d.identities[row] == d.identities[one.query]]
        assert one.right.tolist() == [n in hits and d.identities[one.query] > 0 for n in range(1, len(one.found) + 1)]
        if one.first_hit is not None:
            assert one.first_hit == hits[0]
            near = -np.linalg.norm(d.features[order].astype(float) - d.features[one.query], axis=1)
            labels = d.identities[order] == d.identities[one.query]
            assert one.average_precision == pytest.approx(average_precision_score(labels, near), abs=1e-6)
    scored = [one.average_precision for one in lists if one.average_precision is not None]
    assert scored == sorted(scored) and all(one.average_precision is None for one in lists[len(scored) :])


def test_neighbours_of_unnamed_tracklets_are_all_others() -> None:
    d = replace(random_descriptors(), identities=np.zeros(80, np.int64))
    assert not ranked_lists.people_known(d)
    many = replace(random_descriptors(3000), identities=np.zeros(3000, np.int64), query=np.ones(3000, bool))
    some = [one.query for one in ranked_lists.ranked_lists(many, None)]
    assert len(set(some)) == ranked_lists.UNSCORED and some == sorted(some) and some[-1] == 2999
    for one in ranked_lists.ranked_lists(d, None):
        assert one.found.tolist() == ranked_by_hand(d, one.query, scored=False)[: ranked_lists.TOP]
        assert one.right is None and one.query not in one.found


def test_people_are_known_where_another_camera_has_a_match() -> None:
    d = replace(random_descriptors(), query=np.arange(80) == 7, identities=np.where(np.arange(80) == 7, 5, 1))
    assert not ranked_lists.people_known(d), "the one query has no match"
    other = replace(d, identities=np.where(np.isin(np.arange(80), (7, 8)), 5, 1), cameras=np.arange(80) % 3)
    assert ranked_lists.people_known(other)
    assert not ranked_lists.people_known(replace(other, cameras=np.ones(80, np.int64))), "its own camera does not count"


def test_the_curve_passes_through_the_ranks_of_the_metrics() -> None:
    d = random_descriptors(200, people=30)
    scores = ranked_lists.scores(d)
    curve = ranked_lists.cmc_curve(d, scores)
    for k, value in scores.cmc.items():
        assert curve.found[k - 1] == pytest.approx(value)
        assert curve.low[k - 1] <= value <= curve.high[k - 1]
    assert (np.diff(curve.found) >= 0).all() and (np.diff(curve.chance) >= 0).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 40])
def test_whoever_shows_some_queries_shows_the_worst_the_middle_and_the_best(count: int) -> None:
    lists = [ranked_lists.RankedList(i, np.empty(0), np.empty(0), None, i / 40, 1) for i in range(count)]
    unscored = [ranked_lists.RankedList(100 + i, np.empty(0), np.empty(0), None) for i in range(6)]
    order = ranked_lists.spread([*lists, *unscored])
    assert sorted(one.query for _, one in order) == [*range(count), *range(100, 106)]
    assert [group for group, _ in order[count:]] == ["unscored"] * 6
    if count == 40:
        assert [(group, one.query) for group, one in order[:8]] == [
            ("worst", 0), ("worst", 1), ("middle", 20), ("best", 39), ("worst", 2), ("worst", 3), ("middle", 19), ("best", 38),
        ]  # fmt: skip
