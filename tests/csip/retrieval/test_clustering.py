from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from csip.data.folder import Sighting
from csip.errors import CsipError
from csip.retrieval.clustering import agreement, cluster_features, in_sight_together, without_cameras


def crowd(
    people: int, each: int, noise: float, seed: int = 0, width: int = 24
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(people), each)
    features = generator.normal(size=(people, width))[truth] + noise * generator.normal(size=(len(truth), width))
    order = generator.permutation(len(truth))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True))[order]
    return features, truth[order], [f"t{i:04d}" for i in range(len(truth))]


@pytest.mark.parametrize(("people", "each"), [(2, 2), (3, 6), (12, 4), (60, 3)])
def test_separable_people_are_found(people: int, each: int) -> None:
    features, truth, names = crowd(people, each, noise=0.2)
    found = cluster_features(features, names)
    assert adjusted_rand_score(truth, found.people) > 0.9
    assert found.chosen_by == "silhouette" and found.silhouette > 0.5
    assert sorted(set(found.people)) == list(range(1, people + 1))
    assert cluster_features(features, names, people=people).people.tolist() == found.people.tolist()


@given(st.integers(0, 10_000), st.sampled_from([None, "threshold", "people"]))
@settings(max_examples=25, deadline=None)
def test_order_does_not_matter(seed: int, how: str | None) -> None:
    features, _, names = crowd(6, 4, noise=1.0, seed=seed)
    generator = np.random.default_rng(seed)
    cameras = generator.integers(1, 4, len(names))
    apart = np.sort(generator.choice(len(names), (5, 2), replace=True), axis=1)
    apart = apart[apart[:, 0] != apart[:, 1]]
    chosen = {"threshold": 0.5} if how == "threshold" else {"people": 9} if how == "people" else {}
    one = cluster_features(features, names, cameras, apart, **chosen)
    order = generator.permutation(len(names))
    place = np.argsort(order)
    other = cluster_features(features[order], [names[i] for i in order], cameras[order], place[apart], **chosen)
    assert adjusted_rand_score(one.people[order], other.people) == 1
    assert np.array_equal(one.confidence[order], other.confidence) and one.threshold == other.threshold


def test_people_are_found_over_cameras_that_look_different() -> None:
    """What a camera adds is more than what tells people apart; with one camera nothing changes."""
    features, truth, names = crowd(8, 6, noise=0.2)
    cameras = np.tile([1, 2], len(names) // 2)
    generator = np.random.default_rng(1)
    seen = features + 1.5 * generator.normal(size=(3, 24))[cameras] / np.sqrt(24)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    blind, found = cluster_features(seen, names), cluster_features(seen, names, cameras)
    assert adjusted_rand_score(truth, blind.people) < 0.7 and adjusted_rand_score(truth, found.people) > 0.9
    one = cluster_features(seen, names, np.ones(len(names)))
    assert np.array_equal(one.people, blind.people)
    moved = without_cameras(features, cameras)
    assert np.allclose(np.linalg.norm(moved, axis=1), 1)


def first_of_each(people: np.ndarray) -> list[int]:
    return [int(np.flatnonzero(people == person)[0]) for person in range(1, people.max() + 1)]


def test_people_are_numbered_as_they_appear() -> None:
    features, _, names = crowd(5, 3, noise=0.1)
    first = first_of_each(cluster_features(features, names).people)
    assert first == sorted(first) and first[0] == 0


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.4, 0.8, 2.0])
def test_a_threshold_gives_the_groups_of_scikit_learn(threshold: float) -> None:
    features, _, names = crowd(8, 5, noise=0.8)
    reference = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=threshold
    ).fit_predict(features)
    assert adjusted_rand_score(reference, cluster_features(features, names, threshold=threshold).people) == 1


@given(st.integers(0, 10_000), st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_those_in_sight_together_are_never_one(seed: int, threshold: float) -> None:
    features, _, names = crowd(3, 7, noise=0.3, seed=seed)
    generator = np.random.default_rng(seed)
    apart = generator.integers(len(names), size=(12, 2))
    apart = apart[apart[:, 0] != apart[:, 1]]
    for found in (
        cluster_features(features, names, None, apart, threshold=threshold),
        cluster_features(features, names, None, apart),
    ):
        assert (found.people[apart[:, 0]] != found.people[apart[:, 1]]).all()
        assert np.isfinite(found.confidence).all()


def test_two_that_look_alike_are_told_apart_by_having_been_seen_together() -> None:
    features, truth, names = crowd(4, 6, noise=0.2)
    features[truth == 1] = features[truth == 0]
    twins = np.array([(i, j) for i in np.flatnonzero(truth == 0) for j in np.flatnonzero(truth == 1)])
    assert cluster_features(features, names, threshold=0.3).people.max() == 3
    found = cluster_features(features, names, None, twins, threshold=0.3)
    assert found.people.max() >= 4 and not set(found.people[truth == 0]) & set(found.people[truth == 1])


def test_how_many_people_there_are_may_be_given() -> None:
    features, _, names = crowd(4, 3, noise=0.8)
    for people in range(1, 13):
        assert cluster_features(features, names, people=people).people.max() == people
    together = np.array([(0, 1), (1, 2), (0, 2)])
    assert cluster_features(features, names, None, together, people=3).people.max() == 3
    with pytest.raises(
        CsipError, match="2 people are too few: with those in sight together apart, there are at least 3"
    ):
        cluster_features(features, names, None, together, people=2)


def test_almost_nobody() -> None:
    features, _, names = crowd(3, 1, noise=0)
    assert cluster_features(features[:1], names[:1]).people.tolist() == [1]
    assert cluster_features(features[:2], names[:2]).people.tolist() == [1, 2]
    assert cluster_features(features[:2], names[:2], people=1).people.tolist() == [1, 1]
    same = np.repeat(features[:1], 4, axis=0)
    assert len(cluster_features(same, ["a", "b", "c", "d"]).people) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 0.5, "people": 3}, "not both"),
        ({"threshold": 2.5}, "expected 0 to 2, got 2.5"),
        ({"people": 0}, "1 to 6 people, got 0"),
        ({"people": 7}, "1 to 6 people, got 7"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, float], words: str) -> None:
    features, _, names = crowd(3, 2, noise=0.2)
    with pytest.raises(CsipError, match=words):
        cluster_features(features, names, **options)
    with pytest.raises(CsipError, match="no tracklets"):
        cluster_features(features[:0], [])


def test_who_was_in_sight_together() -> None:
    hall, door = ("hall", "a.mp4"), ("door", "a.mp4")
    spans = {
        "a": (hall, 0, 10), "b": (hall, 10, 20), "c": (hall, 11, 12), "d": (door, 0, 99), "e": (hall, 30, 40),
        "f": (hall, 0, 35), "g": (hall, None, None),
    }  # fmt: skip
    sightings = {name: Sighting(source[0], source, start, end) for name, (source, start, end) in spans.items()}
    names = ["x", *spans]
    pairs = {tuple(sorted((names[i], names[j]))) for i, j in in_sight_together(names, sightings)}
    assert pairs == {("a", "b"), ("a", "f"), ("b", "c"), ("b", "f"), ("c", "f"), ("e", "f")}
    assert in_sight_together(["x"], {}).shape == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 10)), max_size=12))
def test_overlaps_as_by_comparing_all_pairs(spans: list[tuple[int, int, int]]) -> None:
    names = [str(i) for i in range(len(spans))]
    sightings = {
        n: Sighting("c", ("c", str(v)), start, start + length)
        for n, (v, start, length) in zip(names, spans, strict=True)
    }
    expected = {
        (i, j)
        for i, (v, start, length) in enumerate(spans)
        for j, (w, other, more) in enumerate(spans)
        if i < j and v == w and start <= other + more and other <= start + length
    }
    assert {tuple(sorted(pair)) for pair in in_sight_together(names, sightings).tolist()} == expected


def test_agreement() -> None:
    same = agreement(np.array([3, 3, 1, 1]), np.array(["a", "a", "b", "b"]))
    assert asdict(same) == {"ari": 1, "nmi": 1, "purity": 1}
    mixed = agreement(np.array([1, 1, 1, 2]), np.array(["a", "a", "b", "b"]))
    assert mixed.purity == 0.75 and mixed.ari == pytest.approx(0.0)
