"""The map of descriptors: which tracklets are on it, and where."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import random_descriptors

from csip.data.dataset import JUNK
from csip.retrieval import projection


def test_the_map_is_of_whole_people_the_wanted_first() -> None:
    d = random_descriptors(400, people=60)
    everyone = np.flatnonzero(d.query | d.gallery)
    assert projection.choose(d, [], limit=400).tolist() == everyone.tolist()
    chosen = projection.choose(d, [3, 8], limit=60)
    assert len(chosen) <= 60 and np.array_equal(chosen, projection.choose(d, [3, 8], limit=60))
    for pid in {int(d.identities[row]) for row in chosen} - {0, JUNK}:
        assert set(everyone[d.identities[everyone] == pid]) <= set(chosen)
    for row in (3, 8):
        assert d.identities[row] in d.identities[chosen]


def test_people_who_are_alike_are_near_each_other_and_always_at_the_same_place() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 64))
    who = np.repeat(np.arange(6), 15)
    features = centres[who] + 0.1 * random.normal(size=(90, 64))
    plane = projection.project(features)
    assert plane.shape == (90, 2) and plane.min() == 0 and plane.max() == 1
    assert np.array_equal(plane, projection.project(features))
    distances = np.linalg.norm(plane[:, None] - plane, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (who[distances.argmin(axis=1)] == who).all()


@pytest.mark.parametrize("count", [5, 6, 20])
def test_few_or_equal_descriptors_make_a_map_too(count: int) -> None:
    assert np.isfinite(projection.project(np.eye(count, 8))).all()
    assert np.isfinite(projection.project(np.ones((count, 8)))).all()
