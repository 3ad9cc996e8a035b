import numpy as np
import pytest

from csip.errors import CsipError
from csip.retrieval.metrics import rank_distances
from csip.retrieval.reranking import rerank


def rerank_by_sets(queries, gallery, k1, k2, mix):
    """The paper's definition, written with sets and dictionaries."""
    points = [*queries, *gallery]
    size = len(points)
    d = [[float(((a - b) ** 2).sum()) for b in points] for a in points]
    d = [[value / max(line) for value in line] for line in d]
    order = [sorted(range(size), key=lambda j, i=i: (j != i, d[i][j])) for i in range(size)]

    def reciprocal(p, k):
        return {q for q in order[p][: k + 1] if p in order[q][: k + 1]}

    described = []
    for p in range(size):
        first = reciprocal(p, k1)
        members = set(first)
        for q in first:
            further = reciprocal(q, round(k1 / 2))
            if len(first & further) >= 2 / 3 * len(further):
                members |= further
        weights = {g: np.exp(-d[p][g]) for g in members}
        described.append({g: w / sum(weights.values()) for g, w in weights.items()})
    averaged = [[np.mean([described[q].get(g, 0) for q in order[p][:k2]]) for g in range(size)] for p in range(size)]
    result = np.empty((len(queries), len(gallery)))
    for p in range(len(queries)):
        for g in range(len(gallery)):
            a, b = averaged[p], averaged[len(queries) + g]
            jaccard = 1 - sum(map(min, a, b)) / sum(map(max, a, b))
            result[p, g] = (1 - mix) * jaccard + mix * d[p][len(queries) + g]
    return result


@pytest.mark.parametrize(("k1", "k2", "mix"), [(20, 6, 0.3), (4, 1, 0.0), (7, 3, 1.0), (100, 50, 0.5)])
def test_rerank_is_the_papers_definition(k1, k2, mix):
    rng = np.random.default_rng(k1)
    centres = 2 * rng.normal(size=(6, 5))
    queries = centres[rng.integers(0, 6, 8)] + rng.normal(size=(8, 5))
    gallery = centres[rng.integers(0, 6, 30)] + rng.normal(size=(30, 5))
    expected = rerank_by_sets(queries, gallery, k1, k2, mix)
    np.testing.assert_allclose(rerank(queries, gallery, k1=k1, k2=k2, mix=mix), expected, rtol=1e-5, atol=1e-6)


def test_reranking_finds_more_of_a_crowd():
    rng = np.random.default_rng(0)
    ids, gallery_ids = np.arange(40), np.repeat(np.arange(40), 10)
    centres = rng.normal(size=(40, 32))
    queries = centres + 1.5 * rng.normal(size=(40, 32))
    gallery = centres[gallery_ids] + 1.5 * rng.normal(size=(400, 32))
    labels = (ids + 1, np.zeros(40, int), gallery_ids + 1, np.ones(400, int))
    plain = rank_distances(np.linalg.norm(queries[:, None] - gallery, axis=2), *labels)
    better = rank_distances(rerank(queries, gallery), *labels)
    assert better.map > plain.map + 0.03
    assert rank_distances(rerank(queries, gallery, mix=1), *labels).map == pytest.approx(plain.map)


def test_a_collapsed_model_is_reranked_without_a_warning():
    with np.errstate(all="raise"):
        distances = rerank(np.ones((3, 4)), np.ones((9, 4)))
    assert np.isfinite(distances).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_features": np.zeros((0, 3))}, r"shapes \(0, 3\) and \(5, 3\)"),
        ({"gallery_features": np.zeros((5, 2))}, r"shapes \(2, 3\) and \(5, 2\)"),
        ({"k1": 0}, "got 0, 6, 0.3"),
        ({"mix": 30}, "got 20, 6, 30"),
    ],
)
def test_rerank_refuses_what_it_cannot_rank(change, message):
    good = {"query_features": np.zeros((2, 3)), "gallery_features": np.ones((5, 3))}
    rerank(**good)
    with pytest.raises(CsipError, match=message):
        rerank(**(good | change))
