from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from csip.errors import CsipError
from csip.retrieval.metrics import RankOptions, by_camera, chance, confidence_intervals, rank, rank_distances


def score_by_loops(qf, qi, qc, gf, gi, gc, camera_filter=True):
    """Average precision, inverse negative penalty and first hit of each query, None where it has no match.

    Average precision is scikit-learn's. For the other two the ranking is written out, at equal distance the non-matches
    first.
    """
    results = []
    for f, pid, camera in zip(qf, qi, qc, strict=True):
        entries = []
        for j in range(len(gf)):
            own = gi[j] == pid and gc[j] == camera and camera_filter
            if gi[j] != -1 and not own:
                entries.append((float(((f - gf[j]) ** 2).sum()), bool(gi[j] == pid)))
        entries.sort()
        hits = [r for r, (_, match) in enumerate(entries, start=1) if match]
        if pid == -1 or not hits:
            results.append(None)
            continue
        ap = average_precision_score([match for _, match in entries], [-distance for distance, _ in entries])
        results.append((ap, len(hits) / hits[-1], hits[0]))
    return results


@st.composite
def retrievals(draw):
    """Few integer coordinates make ties, few people single matches; ids hold junk (-1) and distractors (0)."""
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


@given(retrievals(), st.booleans(), st.integers(1, 3), st.integers(1, 15))
@settings(max_examples=300, deadline=None)
def test_rank_is_brute_force_and_scikit_learns_average_precision(data, camera_filter, chunk, gallery_chunk):
    options = RankOptions(camera_filter=camera_filter, chunk=chunk, gallery_chunk=gallery_chunk)
    qf, qi, qc, gf, gi, gc = data
    distances = np.linalg.norm(qf[:, None] - gf[None], axis=2)
    expected = score_by_loops(*data, camera_filter)
    if all(one is None for one in expected):
        with pytest.raises(CsipError, match="none of the"):
            rank(*data, options)
        with pytest.raises(CsipError, match="none of the"):
            rank_distances(distances, qi, qc, gi, gc, options)
        return
    scores = rank(*data, options)
    given_distances = rank_distances(distances, qi, qc, gi, gc, options)
    np.testing.assert_array_equal(given_distances.average_precision, scores.average_precision)
    np.testing.assert_array_equal(given_distances.first_hit, scores.first_hit)
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


def test_the_order_of_a_large_gallery_changes_nothing():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=(700, 8)).astype(np.float32)
    query_ids, gallery_ids = rng.integers(1, 40, 30), rng.integers(0, 40, 700)
    gallery[350:] = gallery[:350]  # every entry has an equal one, often of somebody else
    expected = rank(query, query_ids, np.zeros(30, int), gallery, gallery_ids, np.ones(700, int))
    order = rng.permutation(700)
    scores = rank(
        query, query_ids, np.zeros(30, int), gallery[order], gallery_ids[order], np.ones(700, int),
        RankOptions(chunk=7, gallery_chunk=101),
    )  # fmt: skip
    np.testing.assert_allclose(scores.average_precision, expected.average_precision, rtol=1e-12)
    np.testing.assert_array_equal(scores.first_hit, expected.first_hit)
    np.testing.assert_array_equal(scores.inverse_negative_penalty, expected.inverse_negative_penalty)


def test_a_tie_never_helps():
    """A model that describes everybody alike finds nobody, wherever the matches stand in the gallery."""
    ids = np.arange(1, 2001)
    features = np.random.default_rng(0).normal(size=256)
    scores = rank(np.tile(features, (2, 1)), [1, 700], [0, 0], np.tile(features, (2000, 1)), ids, np.ones(2000, int))
    assert scores.first_hit.tolist() == [2000, 2000]
    assert scores.map == pytest.approx(1 / 2000)


def test_features_may_lie_on_the_disk(tmp_path):
    rng = np.random.default_rng(3)
    query, gallery = rng.normal(size=(5, 4)), rng.normal(size=(50, 4))
    np.save(tmp_path / "gallery.npy", gallery)
    labels = (rng.integers(1, 4, 50), np.ones(50, int))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert rank(query, [1, 2, 3, 1, 2], [0] * 5, mapped, *labels).map == pytest.approx(
        rank(query, [1, 2, 3, 1, 2], [0] * 5, gallery, *labels).map
    )


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
        ({"query_features": np.zeros((0, 3)), "query_ids": [], "query_cameras": []}, "there are no queries"),
        ({"gallery_features": np.zeros((0, 3)), "gallery_ids": [], "gallery_cameras": []}, "none of the 2 queries"),
    ],
)
def test_rank_refuses_what_it_cannot_score(change, message):
    rank(**GOOD)
    with pytest.raises(CsipError, match=message):
        rank(**(GOOD | change))


def test_rank_distances_refuses_what_it_cannot_score():
    labels = ([1, 2], [0, 0], [1, 2, 0], [1, 1, 1])
    rank_distances(np.ones((2, 3)), *labels)
    with pytest.raises(CsipError, match="query ids: expected 3 of them"):
        rank_distances(np.ones((3, 3)), *labels)
    with pytest.raises(CsipError, match="rows 0 to 1 are not finite"):
        rank_distances(np.array([[0, 0, 0], [0, np.nan, 0]]), *labels)
    with pytest.raises(CsipError, match=r"expected \(queries, gallery entries\)"):
        rank_distances(np.ones(6), *labels)


def random_ranking(queries=300):
    rng = np.random.default_rng(5)
    ids, cameras = rng.integers(1, 30, queries), rng.integers(0, 4, queries)
    ids[:10] = 99  # nobody in the gallery
    gallery_ids = rng.integers(0, 30, 400)
    centres = rng.normal(size=(100, 6))
    features = [centres[i] + rng.normal(size=(len(i), 6)) for i in (ids, gallery_ids)]
    return rank(features[0], ids, cameras, features[1], gallery_ids, rng.integers(0, 4, 400)), cameras


def test_confidence_intervals_are_those_of_the_mean():
    scores, _ = random_ranking()
    intervals = confidence_intervals(scores)
    assert set(intervals) == {"rank1", "rank5", "rank10", "rank20", "map", "minp"}
    ap = scores.average_precision[scores.valid]
    low, high = intervals["map"]
    assert low < scores.map < high
    assert (high - low) / 2 == pytest.approx(1.96 * ap.std() / np.sqrt(len(ap)), rel=0.1)
    p = scores.rank1
    low, high = intervals["rank1"]
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / len(ap)), rel=0.15)
    assert confidence_intervals(scores) == intervals != confidence_intervals(scores, seed=1)
    narrow = confidence_intervals(scores, level=0.5)["map"]
    assert intervals["map"][0] < narrow[0] < narrow[1] < intervals["map"][1]
    with pytest.raises(CsipError, match="level 95"):
        confidence_intervals(scores, level=95)


def test_cameras_scores_make_up_the_whole():
    scores, cameras = random_ranking()
    table = by_camera(scores, cameras)
    assert list(table) == [0, 1, 2, 3]
    assert sum(one.valid_queries for one in table.values()) == scores.valid_queries == 290
    weighted = sum(one.valid_queries * one.map for one in table.values()) / scores.valid_queries
    assert weighted == pytest.approx(scores.map)
    only_first = by_camera(scores, np.where(np.arange(300) < 10, 7, 1))
    assert list(only_first) == [1], "a camera without a valid query has no figures"
    with pytest.raises(CsipError, match="expected 300 cameras"):
        by_camera(scores, cameras[1:])


def test_chance_is_the_mean_over_all_orders():
    query_ids, query_cameras = [1, 2, 7, -1], [0, 0, 0, 0]
    gallery_ids, gallery_cameras = np.array([1, 1, 2, 0, 2, 1, -1]), np.array([0, 1, 1, 0, 1, 1, 1])
    expected = chance(query_ids, query_cameras, gallery_ids, gallery_cameras, ranks=(1, 2, 5, 20))
    cmc, ap = [], []
    for order in permutations(range(6)):
        features = np.array([*order, 6.0])[:, None]
        scores = rank(
            np.zeros((4, 1)),
            query_ids,
            query_cameras,
            features,
            gallery_ids,
            gallery_cameras,
            RankOptions(ranks=(1, 2, 5, 20)),
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
