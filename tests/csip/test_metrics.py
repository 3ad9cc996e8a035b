from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from csip.errors import CsipError
from csip.metrics import chance, rank


def score_by_loops(qf, qi, qc, gf, gi, gc, camera_filter=True):
    """Average precision, inverse negative penalty and first hit of each query, None where it has no match."""
    results = []
    for f, pid, camera in zip(qf, qi, qc, strict=True):
        entries = []
        for j in range(len(gf)):
            own = gi[j] == pid and gc[j] == camera and camera_filter
            if gi[j] != -1 and not own:
                entries.append((float(((f - gf[j]) ** 2).sum()), j))
        entries.sort()
        hits = [r for r, (_, j) in enumerate(entries, start=1) if gi[j] == pid]
        if pid == -1 or not hits:
            results.append(None)
            continue
        precision = [(k + 1) / r for k, r in enumerate(hits)]
        results.append((np.mean(precision), len(hits) / hits[-1], hits[0]))
    return results


@st.composite
def retrievals(draw):
    """Few integer coordinates make ties; ids hold junk (-1) and distractors (0)."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return (
        rng.integers(0, 3, (queries, 2)).astype(np.float32),
        rng.choice([-1, 1, 2, 3], queries, p=[0.1, 0.3, 0.3, 0.3]),
        rng.integers(0, 2, queries),
        rng.integers(0, 3, (gallery, 2)).astype(np.float32),
        rng.choice([-1, 0, 1, 2, 3], gallery),
        rng.integers(0, 2, gallery),
    )


@given(retrievals(), st.booleans(), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_rank_is_brute_force(data, camera_filter, chunk):
    expected = score_by_loops(*data, camera_filter)
    if all(one is None for one in expected):
        with pytest.raises(CsipError, match="none of the"):
            rank(*data, camera_filter=camera_filter, chunk=chunk)
        return
    scores = rank(*data, camera_filter=camera_filter, chunk=chunk)
    assert scores.valid.tolist() == [one is not None for one in expected]
    assert scores.valid_queries == sum(one is not None for one in expected)
    found = [one for one in expected if one is not None]
    ap, inp, first = (np.array(column) for column in zip(*found, strict=True))
    np.testing.assert_allclose(scores.average_precision[scores.valid], ap)
    np.testing.assert_allclose(scores.inverse_negative_penalty[scores.valid], inp)
    np.testing.assert_array_equal(scores.first_hit[scores.valid], first)
    assert np.isnan(scores.average_precision[~scores.valid]).all() and (scores.first_hit[~scores.valid] == 0).all()
    assert scores.map == pytest.approx(ap.mean()) and scores.minp == pytest.approx(inp.mean())
    for k in (1, 5, 10, 20):
        assert scores.cmc[k] == pytest.approx((first <= k).mean())
    assert scores.rank1 == scores.cmc[1]


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(5, 8)), rng.normal(size=(60, 8))
    query_ids, gallery_ids = rng.integers(1, 6, 5), rng.integers(0, 6, 60)
    scores = rank(query, query_ids, np.zeros(5, int), gallery, gallery_ids, np.ones(60, int))
    for i in range(5):
        similarity = -np.linalg.norm(query[i] - gallery, axis=1)
        expected = average_precision_score(gallery_ids == query_ids[i], similarity)
        assert scores.average_precision[i] == pytest.approx(expected)


def test_ties_keep_the_gallerys_order():
    ids = np.arange(1, 2001)
    scores = rank(np.zeros((2, 3)), [1, 700], [0, 0], np.ones((2000, 3)), ids, np.ones(2000, int))
    assert scores.first_hit.tolist() == [1, 700]


def test_small_distances_between_large_features_are_kept():
    gallery = np.array([[10_000.0, 1.0], [10_000.0, 0.01]])
    scores = rank(np.array([[10_000.0, 0.0]]), [1], [0], gallery, [2, 1], [1, 1])
    assert scores.rank1 == 1.0


def test_subset_scores_chosen_queries_only():
    rng = np.random.default_rng(1)
    query, gallery = rng.normal(size=(8, 3)), rng.normal(size=(20, 3))
    query_ids, gallery_ids = rng.integers(1, 4, 8), rng.integers(1, 4, 20)
    arguments = (np.zeros(20, int),)
    chosen = np.arange(8) < 3
    whole = rank(query, query_ids, np.ones(8, int), gallery, gallery_ids, *arguments)
    part = rank(query[:3], query_ids[:3], np.ones(3, int), gallery, gallery_ids, *arguments)
    assert whole.subset(chosen).cmc == part.cmc
    assert whole.subset(chosen).map == pytest.approx(part.map) and whole.subset(chosen).map != whole.map
    with pytest.raises(CsipError, match="8 booleans"):
        whole.subset(chosen[:4])


GOOD = {
    "query_features": np.zeros((2, 3)),
    "query_ids": [1, 2],
    "query_cameras": [0, 0],
    "gallery_features": np.ones((3, 3)),
    "gallery_ids": [1, 2, 0],
    "gallery_cameras": [1, 1, 1],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ids": [1, 2, 3]}, "query ids: expected 2"),
        ({"gallery_cameras": [1]}, "gallery cameras: expected 3"),
        ({"gallery_features": np.ones((3, 4))}, "query features have 3 columns and gallery features 4"),
        ({"query_features": np.array([[0, 0, 0], [0, np.nan, 0]])}, "1 of 2 rows are not finite, the first is row 1"),
        ({"gallery_features": np.full((3, 3), np.inf)}, "gallery features: 3 of 3"),
        ({"gallery_cameras": [0, 0, 0]}, "none of the 2 queries"),
        ({"query_ids": [-1, -1]}, "none of the 2 queries"),
        ({"gallery_ids": [-1, -1, -1]}, "none of the 2 queries"),
        ({"query_features": np.zeros(2)}, r"expected \(entries, width\)"),
    ],
)
def test_rank_refuses_what_it_cannot_score(change, message):
    rank(**GOOD)
    with pytest.raises(CsipError, match=message):
        rank(**(GOOD | change))


def test_chance_is_the_mean_over_all_orders():
    query_ids, query_cameras = [1, 2, 7, -1], [0, 0, 0, 0]
    gallery_ids, gallery_cameras = np.array([1, 1, 2, 0, 2, 1, -1]), np.array([0, 1, 1, 0, 1, 1, 1])
    expected = chance(query_ids, query_cameras, gallery_ids, gallery_cameras, ranks=(1, 2, 5, 20))
    cmc, ap = [], []
    for order in permutations(range(6)):
        features = np.array([*order, 6.0])[:, None]
        scores = rank(
            np.zeros((4, 1)), query_ids, query_cameras, features, gallery_ids, gallery_cameras, ranks=(1, 2, 5, 20)
        )
        cmc.append(list(scores.cmc.values()))
        ap.append(scores.map)
    np.testing.assert_allclose(list(expected.cmc.values()), np.mean(cmc, axis=0), atol=1e-12)
    assert expected.map == pytest.approx(np.mean(ap))
    assert expected.rank1 == expected.cmc[1]


def test_chance_is_close_to_random_features():
    rng = np.random.default_rng(2)
    query_ids, query_cameras = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    gallery_ids, gallery_cameras = rng.integers(0, 10, 80), rng.integers(0, 3, 80)
    expected = chance(query_ids, query_cameras, gallery_ids, gallery_cameras)
    drawn = [
        rank(rng.normal(size=(20, 4)), query_ids, query_cameras, rng.normal(size=(80, 4)), gallery_ids, gallery_cameras)
        for _ in range(200)
    ]
    assert expected.map == pytest.approx(np.mean([one.map for one in drawn]), abs=0.01)
    assert expected.cmc[5] == pytest.approx(np.mean([one.cmc[5] for one in drawn]), abs=0.03)


def test_chance_needs_a_valid_query():
    with pytest.raises(CsipError, match="none of the 1 queries"):
        chance([1], [0], [2], [1])
