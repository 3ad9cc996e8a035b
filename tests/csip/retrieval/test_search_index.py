import os
from pathlib import Path

import numpy as np
import pytest

from csip.errors import CsipError
from csip.monitor import Silent
from csip.retrieval import search_index
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.search_index import Effort, Index, build, load, recall, save


def crowd(people: int, each: int, width: int, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = np.repeat(generator.normal(size=(people, width)), each, axis=0)
    features = centres + noise * generator.normal(size=centres.shape)
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def by_sorting(features: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-(queries.astype(np.float64) @ features.astype(np.float64).T), axis=1, kind="stable")[:, :count]


@pytest.mark.parametrize("chunk", [7, 1000])
def test_few_are_found_as_by_sorting(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(search_index, "CHUNK", chunk)
    monkeypatch.setattr(search_index, "QUERIES", 4)
    features = crowd(20, 5, 16)
    index = build(features)
    assert index.exact
    queries = crowd(3, 3, 16, seed=1)
    similar, rows = index.search(queries, 12)
    assert np.array_equal(rows, by_sorting(features, queries, 12))
    assert np.allclose(similar, np.take_along_axis(queries @ features.T, rows, axis=1), atol=1e-6)
    assert index.search(queries, 1000)[1].shape == (9, 100), "no more than there are"


def test_equal_ones_come_in_the_order_of_rows() -> None:
    features = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    _, rows = build(features).search(features[4:5], 12)
    assert rows[0].tolist() == [3, 4, 5, 0, 1, 2, 6, 7, 8, 9, 10, 11]


def test_many_are_found_by_codes_of_which_enough_are_compared() -> None:
    features = crowd(500, 8, 32)
    index = build(features, exact=1000)
    assert not index.exact and index.effort.recall >= search_index.RECALL
    queries = crowd(500, 8, 32)[::40]
    similar, rows = index.search(queries, 10)
    truth = by_sorting(features, queries, 10)
    assert recall(rows, truth) >= 0.99
    assert np.allclose(similar, np.take_along_axis(queries @ features.T, rows, axis=1), atol=1e-6), (
        "not the bytes' cosines"
    )
    assert (np.diff(similar, axis=1) <= 0).all()
    assert len(index.search(queries[:1], 4000)[1][0]) == 4000, "all can be asked for"


def test_where_codes_are_not_enough_everything_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "COMPONENTS", 2)
    features = crowd(9000, 1, 32)
    index = build(features, exact=1000)
    assert index.exact
    queries = crowd(5, 1, 32, seed=1)
    assert np.array_equal(index.search(queries, 10)[1], by_sorting(features, queries, 10))


def test_an_index_is_kept_and_not_used_for_other_descriptors(tmp_path: Path) -> None:
    features = crowd(300, 8, 32)
    built, path = build(features, exact=1000), tmp_path / "descriptors.h5.index"
    save(built, path, "these")
    kept = load(path, features, "these")
    assert kept is not None and kept.effort == built.effort
    for one, other in zip(kept.search(features[:9], 10), built.search(features[:9], 10), strict=True):
        assert np.array_equal(one, other)
    assert load(path, features, "those") is None
    assert load(path, features[:-1], "these") is None
    path.write_bytes(path.read_bytes()[:1000])
    assert load(path, features, "these") is None, "cut short"
    assert load(tmp_path / "nowhere", features, "these") is None
    with pytest.raises(CsipError, match="nothing to write"):
        save(build(features), path, "these")


def test_recall_counts_what_was_found() -> None:
    assert recall(np.array([[1, 2, 3], [4, 5, -1]]), np.array([[3, 2, 9], [5, 4, 6]])) == pytest.approx(4 / 6)


def test_queries_of_another_width_are_refused() -> None:
    index = Index(crowd(3, 1, 8), None, Effort(0, 1.0))
    with pytest.raises(CsipError, match=r"must be \(Q, 8\) .* got \(1, 9\)"):
        index.search(np.zeros((1, 9), np.float32), 3)


def test_descriptors_that_replace_others_of_their_size_and_time_have_another_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "EXACT", 100)
    monkeypatch.setattr(search_index, "build", lambda features, monitor: build(features, monitor, exact=100))
    path, found = tmp_path / "descriptors.h5", []
    for seed in (0, 1):
        features = crowd(60, 5, 16, seed=seed)
        count = len(features)
        zeros = np.zeros(count, np.int64)
        names = tuple(map(str, range(count)))
        descriptors = Descriptors(features, names, zeros, zeros, zeros > 0, zeros > 0, "x", "model")
        descriptors.save(path)
        os.utime(path, (10**9, 10**9))
        index = search_index.open_index(path, descriptors, Silent())
        found.append((path.stat().st_size, index.search(features[:5], 3)[1][:, 0].tolist()))
    assert found == [(found[0][0], [0, 1, 2, 3, 4])] * 2
