"""A map of descriptors: t-SNE to two dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csip.retrieval.descriptors import Descriptors

LIMIT = 2000
COMPONENTS = 50
PERPLEXITY = 30.0
SEED = 0
LEAST = 5  # fewer points make no map


def choose(descriptors: Descriptors, first: Sequence[int], limit: int = LIMIT) -> np.ndarray:
    """Choose which tracklets are on the map: all, or whole people, those of the tracklets `first` before the others.

    Returns
    -------
    ndarray, (points,) int64
        Rows, ascending.
    """
    d = descriptors
    everyone = np.flatnonzero(d.query | d.gallery)
    if len(everyone) <= limit:
        return everyone
    rng = np.random.default_rng(SEED)
    # Nobody stands for a group of tracklets: each tracklet of an unknown person is one of its own.
    group = np.where(d.identities > 0, d.identities, -1 - np.arange(len(d)))
    order = rng.permutation(np.unique(group[everyone]))
    wanted = list(dict.fromkeys([*group[np.asarray(first, np.int64)].tolist(), *order.tolist()]))
    members: dict[int, list[int]] = {}
    for row in everyone:
        members.setdefault(int(group[row]), []).append(int(row))
    chosen: list[int] = []
    for one in wanted:
        rows = members.get(one, [])
        if len(chosen) + len(rows) <= limit:
            chosen += rows
    return np.sort(np.array(chosen, np.int64))


def project(features: np.ndarray) -> np.ndarray:
    """Lay out descriptors in the plane: PCA to 50 dimensions, then t-SNE that starts from the first two; always the same.

    Parameters
    ----------
    features
        (N, D), N at least `LEAST`.

    Returns
    -------
    ndarray, (N, 2) float64
        Within 0 to 1 in both directions.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float64)
    components = min(COMPONENTS, *features.shape)
    if components < 2 or np.allclose(features, features[0]):
        return np.full((len(features), 2), 0.5)
    solver = "full" if len(features) < 200 else "randomized"
    reduced = PCA(components, svd_solver=solver, random_state=SEED).fit_transform(features)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=SEED).fit_transform(reduced)
    low, high = plane.min(axis=0), plane.max(axis=0)
    return (plane - low) / np.maximum(high - low, 1e-9)
