"""k-reciprocal re-ranking (Zhong et al., CVPR 2017): neighbours that have each other as neighbours count more.

Every probe is described by a sparse vector over all probes and gallery entries: what its reciprocal neighbours are, and how
near. The Jaccard distance between these vectors is mixed with the original distance.

The metrics of a re-ranked list use the other queries, which a search one by one does not have: report them apart.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse

from csip.errors import CsipError
from csip.retrieval.distances import parts

CHUNK = 1024  # rows of distances computed at once


def rerank(
    query_features: ArrayLike, gallery_features: ArrayLike, *, k1: int = 20, k2: int = 6, mix: float = 0.3
) -> np.ndarray:
    """Return re-ranked distances between queries and gallery entries.

    With N = Q + G features: d is the squared Euclidean distance divided by the largest of its row; N(p, k) is p and its k
    nearest; R(p, k) those of N(p, k) that have p in their own; R*(p) is R(p, k1) together with every R(q, k1 / 2), q in
    R(p, k1), of which at least two thirds lie in R(p, k1). V(p) has exp(-d(p, g)) for g in R*(p), scaled to sum 1, and is
    averaged over p's k2 nearest, p among them. The result is (1 - mix) Jaccard(V(p), V(g)) + mix d(p, g).

    Memory is O(N (k1 + D) + Q G).

    Parameters
    ----------
    query_features, gallery_features : array_like
        (Q, D) and (G, D), finite.
    k1, k2 : int
        Neighbours that describe a probe, and that its description is averaged over.
    mix : float
        Weight of the original distance, lambda in the paper; 1 keeps the original ranking.

    Returns
    -------
    ndarray, shape (Q, G), float32
        Only comparable within a row.

    Raises
    ------
    CsipError
        Shapes do not fit, or a parameter is out of range.
    """
    queries, gallery = np.asarray(query_features, dtype=np.float64), np.asarray(gallery_features, dtype=np.float64)
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or not len(queries):
        raise CsipError(
            "rerank: expected features (Q, D) and (G, D) with at least one query, got shapes "
            f"{queries.shape} and {gallery.shape}"
        )
    if k1 < 1 or k2 < 1 or not 0 <= mix <= 1:
        raise CsipError(f"rerank: expected k1 and k2 of at least 1 and mix within 0 to 1, got {k1}, {k2}, {mix}")
    features = np.concatenate([queries, gallery])
    nearest, largest = _neighbours(features, max(k1 + 1, k2))
    reciprocal = _reciprocal(nearest[:, : k1 + 1])
    half = _reciprocal(nearest[:, : round(k1 / 2) + 1])
    described = _weights(_expanded(reciprocal, half), features, largest)
    size = len(features)
    averaged = min(k2, nearest.shape[1])
    among = sparse.csr_matrix(
        (np.full(size * averaged, 1 / averaged), nearest[:, :averaged].ravel(), np.arange(size + 1) * averaged),
        shape=(size, size),
    )
    described = (among @ described).tocsr()

    total = len(queries)
    columns = described[total:].tocsc()
    squares = np.square(gallery).sum(axis=1)
    result = np.empty((total, len(gallery)), dtype=np.float32)
    # A chunk is small enough for the (rows, G) sums and for the pairs of equal coordinates to fit.
    for part in parts(total, max(2**22 // max(len(gallery), 1), 1)):
        shared = _shared(described[part], columns)
        own = np.square(queries[part]).sum(axis=1)[:, None]
        original = np.maximum(own + squares - 2 * queries[part] @ gallery.T, 0) / largest[part, None]
        # Both vectors sum to 1: the sum of the larger entries is 2 minus that of the smaller ones.
        result[part] = (1 - mix) * (1 - shared / (2 - shared)) + mix * original
    return result


def _neighbours(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row itself and its nearest, (N, count) in order, and its largest squared distance."""
    size = len(features)
    count = min(count, size)
    nearest, largest = np.empty((size, count), np.int64), np.empty(size)
    everything = torch.from_numpy(features)
    squares = everything.square().sum(dim=1)
    for part in parts(size, CHUNK):
        block = (squares[part, None] + squares - 2 * everything[part] @ everything.T).clamp_(min=0)
        largest[part] = block.amax(dim=1).numpy()
        # Where others are equal to it, a row still comes first among its own neighbours.
        block[torch.arange(len(block)), torch.arange(part.start, part.stop)] = -1
        nearest[part] = block.topk(count, dim=1, largest=False).indices.numpy()
    return nearest, np.where(largest > 0, largest, 1)


def _reciprocal(nearest: np.ndarray) -> sparse.csr_matrix:
    """Return R as a matrix of 0 and 1: row p, column q where each is among the other's nearest."""
    size, count = nearest.shape
    among = sparse.csr_matrix((np.ones(size * count), nearest.ravel(), np.arange(size + 1) * count), shape=(size, size))
    return among.multiply(among.T).tocsr()


def _expanded(reciprocal: sparse.csr_matrix, half: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return R*: each R(p) with the smaller sets of its members that mostly lie in it."""
    overlap = (reciprocal @ half.T).multiply(reciprocal).tocoo()
    sizes = np.asarray(half.sum(axis=1)).ravel()
    added = overlap.data >= 2 / 3 * sizes[overlap.col]
    members = sparse.csr_matrix(
        (np.ones(added.sum()), (overlap.row[added], overlap.col[added])), shape=reciprocal.shape
    )
    return (reciprocal + members @ half).tocsr()


def _weights(members: sparse.csr_matrix, features: np.ndarray, largest: np.ndarray) -> sparse.csr_matrix:
    """Return V: exp(-d) for each member of a row, scaled to sum 1."""
    pairs = members.tocoo()
    distance = np.empty(len(pairs.row))
    for part in parts(len(distance), 8 * CHUNK):
        difference = features[pairs.row[part]] - features[pairs.col[part]]
        distance[part] = np.square(difference).sum(axis=1)
    weight = np.exp(-distance / largest[pairs.row])
    weight /= np.bincount(pairs.row, weight, minlength=len(features))[pairs.row]
    return sparse.csr_matrix((weight, (pairs.row, pairs.col)), shape=members.shape)


def _shared(rows: sparse.csr_matrix, columns: sparse.csc_matrix) -> np.ndarray:
    """Sum of the smaller entries of two sparse vectors: each of `rows` (R, N) with each row of `columns` (G, N)."""
    height, width = rows.shape[0], columns.shape[0]
    row = np.repeat(np.arange(height), np.diff(rows.indptr))
    length = np.diff(columns.indptr)[rows.indices]
    # Position in `columns` of every entry that meets an entry of `rows`, one run after another.
    ends = np.cumsum(length)
    position = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
        columns.indptr[rows.indices] - (ends - length), length
    )
    smaller = np.minimum(np.repeat(rows.data, length), columns.data[position])
    cell = np.repeat(row * width, length) + columns.indices[position]
    return np.bincount(cell, smaller, minlength=height * width).reshape(height, width)
