"""Retrieval figures of a ranked gallery: CMC, mean average precision, mean inverse negative penalty.

Protocol: gallery entries of the query's own identity *and* camera are removed, because they are the query seen again;
junk (pid -1) is dropped from both sides; distractors (MARS has pid 0) are an identity that no query has and stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from csip.errors import CsipError

RANKS = (1, 5, 10, 20)
JUNK = -1


@dataclass(frozen=True)
class Ranking:
    """How well Q queries found their identity. Figures are fractions, 0 to 1, means over the valid queries.

    Attributes
    ----------
    cmc : Mapping[int, float]
        Share of queries with a match among the first k, by k.
    map, minp : float
        Mean average precision; mean of (matches / rank of the last match).
    valid : np.ndarray
        (Q,) bool, whether a query has a match in the gallery that was left to it.
    average_precision, inverse_negative_penalty : np.ndarray
        (Q,) float64, NaN where not valid.
    first_hit : np.ndarray
        (Q,) int64, rank of the first match from 1; 0 where not valid.
    """

    cmc: Mapping[int, float]
    map: float
    minp: float
    valid: np.ndarray
    average_precision: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_hit: np.ndarray

    @property
    def valid_queries(self) -> int:
        """Number of queries that the means are over."""
        return int(self.valid.sum())

    @property
    def rank1(self) -> float:
        """Share of queries whose first entry is a match."""
        return self.cmc[1]

    def subset(self, chosen: ArrayLike) -> "Ranking":
        """Return the figures of the queries where `chosen`, (Q,) bool, holds; the rankings stay as they are."""
        mask = np.asarray(chosen, dtype=bool)
        if mask.shape != self.valid.shape:
            raise CsipError(f"subset: expected {len(self.valid)} booleans, one a query, got shape {mask.shape}")
        return _summarize(
            self.average_precision[mask], self.inverse_negative_penalty[mask], self.first_hit[mask], tuple(self.cmc)
        )


@dataclass(frozen=True)
class ChanceScores:
    """What a random ranking scores on average under the same protocol, as fractions."""

    cmc: Mapping[int, float]
    map: float

    @property
    def rank1(self) -> float:
        """Expected share of queries whose first entry is a match."""
        return self.cmc[1]


def rank(
    query_features: ArrayLike,
    query_ids: ArrayLike,
    query_cameras: ArrayLike,
    gallery_features: ArrayLike,
    gallery_ids: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    ranks: tuple[int, ...] = RANKS,
    camera_filter: bool = True,
    chunk: int = 256,
) -> Ranking:
    """Rank the gallery for each query by Euclidean distance and score the rankings.

    Entries at equal distance keep the gallery's order. Average precision is the mean of the precisions at the
    ranks of the matches.

    Parameters
    ----------
    query_features, gallery_features : array_like
        (Q, D) and (G, D).
    query_ids, query_cameras, gallery_ids, gallery_cameras : array_like
        (Q,) and (G,) integers.
    ranks : tuple of int
        The k of the CMC; a k beyond the gallery counts the whole gallery.
    camera_filter : bool
        Whether to remove gallery entries of a query's own identity and camera.
    chunk : int
        Queries ranked at once; memory is O(chunk G).

    Raises
    ------
    CsipError
        If lengths differ, a feature is not finite, or no query has a match.
    """
    queries, gallery = _as_features("query", query_features), _as_features("gallery", gallery_features)
    if queries.shape[1] != gallery.shape[1]:
        raise CsipError(
            f"query features have {queries.shape[1]} columns and gallery features {gallery.shape[1]}: "
            "embed both with the same model"
        )
    q_ids, q_cameras = _as_labels("query", len(queries), query_ids, query_cameras)
    g_ids, g_cameras = _as_labels("gallery", len(gallery), gallery_ids, gallery_cameras)

    kept = torch.from_numpy(g_ids != JUNK)
    gallery, ids, cameras = gallery[kept], torch.from_numpy(g_ids)[kept], torch.from_numpy(g_cameras)[kept]
    average_precision = np.full(len(queries), np.nan)
    inverse_negative_penalty = np.full(len(queries), np.nan)
    first_hit = np.zeros(len(queries), dtype=np.int64)
    positions = torch.arange(1, len(gallery) + 1, dtype=torch.float64)
    squares = gallery.square().sum(dim=1)
    for start in range(0, len(queries) if len(gallery) else 0, chunk):
        part = slice(start, start + chunk)
        own = torch.from_numpy(q_ids[part])[:, None]
        same = (ids == own) & (own != JUNK)
        # |q|^2 is the same for all entries of a row and does not change their order.
        distance = squares - 2 * queries[part] @ gallery.T
        if camera_filter:
            removed = same & (cameras == torch.from_numpy(q_cameras[part])[:, None])
            distance[removed] = torch.inf
            same = same & ~removed
        match = same.gather(1, distance.argsort(dim=1, stable=True))
        count = match.sum(dim=1)
        valid = count > 0
        match, count = match[valid], count[valid]
        rows = start + np.flatnonzero(valid.numpy())
        precision = match.cumsum(dim=1) / positions
        average_precision[rows] = ((precision * match).sum(dim=1) / count).numpy()
        last = (match * positions).amax(dim=1)
        inverse_negative_penalty[rows] = (count / last).numpy()
        first_hit[rows] = match.int().argmax(dim=1).numpy() + 1
    return _summarize(average_precision, inverse_negative_penalty, first_hit, ranks)


def chance(
    query_ids: ArrayLike,
    query_cameras: ArrayLike,
    gallery_ids: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    ranks: tuple[int, ...] = RANKS,
    camera_filter: bool = True,
) -> ChanceScores:
    """Return the exact expectation of the figures over all orders of the gallery.

    For n entries of which m match: ``E[hit within k] = 1 - C(n - m, k) / C(n, k)`` and
    ``E[AP] = (H_n + (m - 1) (n - H_n) / (n - 1)) / n`` with the harmonic number ``H_n``.

    Parameters
    ----------
    query_ids, query_cameras, gallery_ids, gallery_cameras, ranks, camera_filter
        As in :func:`rank`.

    Raises
    ------
    CsipError
        If lengths differ or no query has a match.
    """
    q_ids, q_cameras = _as_labels("query", None, query_ids, query_cameras)
    g_ids, g_cameras = _as_labels("gallery", None, gallery_ids, gallery_cameras)
    g_cameras = g_cameras[g_ids != JUNK]
    g_ids = g_ids[g_ids != JUNK]
    entries, matches = [], []
    for pid, camera in zip(q_ids, q_cameras, strict=True):
        same = g_ids == pid
        removed = same & (g_cameras == camera) if camera_filter else np.zeros_like(same)
        if pid != JUNK and (same & ~removed).any():
            entries.append(len(g_ids) - removed.sum())
            matches.append((same & ~removed).sum())
    if not entries:
        raise CsipError(_no_valid_queries(len(q_ids)))
    n, m = np.array(entries, dtype=np.float64), np.array(matches, dtype=np.float64)
    harmonic = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, len(g_ids) + 1))))[n.astype(int)]
    expected_ap = (harmonic + (m - 1) * (n - harmonic) / np.maximum(n - 1, 1)) / n
    cmc = {}
    for k in ranks:
        drawn = np.arange(k)
        left = np.maximum(n[:, None] - drawn, 1)  # past the last entry a factor of 0 has been met
        missed = np.prod(np.clip((n - m)[:, None] - drawn, 0, None) / left, axis=1)
        cmc[k] = float(np.mean(1 - missed))
    return ChanceScores(cmc, float(expected_ap.mean()))


def _as_features(side: str, values: ArrayLike) -> torch.Tensor:
    array = np.asarray(values)
    if array.ndim != 2:
        raise CsipError(f"{side} features: expected (entries, width), got shape {array.shape}")
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise CsipError(f"{side} features: {len(rows)} of {len(array)} rows are not finite, the first is row {rows[0]}")
    # In float64, |g|^2 - 2 <q, g> keeps small distances between features of large norm.
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))


def _as_labels(side: str, length: int | None, ids: ArrayLike, cameras: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    id_array, camera_array = np.asarray(ids), np.asarray(cameras)
    length = len(id_array) if length is None else length
    for what, array in (("ids", id_array), ("cameras", camera_array)):
        if array.shape != (length,):
            raise CsipError(f"{side} {what}: expected {length} of them, one an entry, got shape {array.shape}")
    return id_array.astype(np.int64), camera_array.astype(np.int64)


def _no_valid_queries(total: int) -> str:
    return (
        f"none of the {total} queries has a match in the gallery once entries of its own identity and camera are "
        "removed: check the ids and cameras, or the gallery policy"
    )


def _summarize(
    average_precision: np.ndarray, inverse_negative_penalty: np.ndarray, first_hit: np.ndarray, ranks: tuple[int, ...]
) -> Ranking:
    valid = first_hit > 0
    if not valid.any():
        raise CsipError(_no_valid_queries(len(valid)))
    hits = first_hit[valid]
    return Ranking(
        cmc={k: float(np.mean(hits <= k)) for k in ranks},
        map=float(average_precision[valid].mean()),
        minp=float(inverse_negative_penalty[valid].mean()),
        valid=valid,
        average_precision=average_precision,
        inverse_negative_penalty=inverse_negative_penalty,
        first_hit=first_hit,
    )
