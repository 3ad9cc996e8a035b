"""Retrieval metrics of a ranked gallery: CMC, mean average precision, mean inverse negative penalty.

Protocol: gallery entries of the query's own identity *and* camera are removed, because they are the query seen again;
junk (pid -1) is dropped from both sides; distractors (MARS has pid 0) are an identity that no query has and stay.

Ties: entries at equal distance are one step of the ranking, whatever the order of the gallery. Average precision takes the
precision after the whole step, as scikit-learn does; for the rank of the first match (CMC) and of the last (mINP) the
step's non-matches come before its matches, so that a tie never helps: a model that says the same of everybody has
Rank-1 0.

No ranking is ever sorted out in full. The metrics depend on how many non-matches are as near as each match, and those are
counted block by block, so that memory depends neither on the number of queries nor on the size of the gallery.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from csip.data.dataset import JUNK
from csip.data.matching import Matching
from csip.errors import CsipError
from csip.retrieval.distances import Distances, FeatureDistances, GivenDistances, parts

RANKS = (1, 5, 10, 20)
_ROWS = 4096  # rows of features that are checked at once


@dataclass(frozen=True)
class RankOptions:
    """How rankings are scored.

    Attributes
    ----------
    ranks : tuple of int
        The k of the CMC; a k beyond the gallery counts the whole gallery.
    camera_filter : bool
        Whether to remove gallery entries of a query's own identity and camera.
    chunk, gallery_chunk : int
        Queries and gallery entries compared at once; memory is O((chunk + gallery_chunk) D + chunk gallery_chunk), and
        beside it a few numbers for each query, each gallery entry, and each match of the queries of a chunk.
    """

    ranks: tuple[int, ...] = RANKS
    camera_filter: bool = True
    chunk: int = 1024
    gallery_chunk: int = 8192


@dataclass(frozen=True)
class Ranking:
    """How well Q queries found their identity. Metrics are fractions, 0 to 1, means over the valid queries.

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
        """Return the metrics of the queries where `chosen`, (Q,) bool, holds; the rankings stay as they are."""
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
    options: RankOptions = RankOptions(),
    device: str | torch.device = "cpu",
) -> Ranking:
    """Rank the gallery for each query by Euclidean distance and score the rankings.

    Distances are computed in float64; those that differ by less than their rounding (1e-12 of the largest squared
    norm) are equal.

    Parameters
    ----------
    query_features, gallery_features : array_like
        (Q, D) and (G, D); memory-mapped arrays are read in parts.
    query_ids, query_cameras, gallery_ids, gallery_cameras : array_like
        (Q,) and (G,) integers.
    options : RankOptions
        What counts, and how much is compared at once.
    device : str or torch.device
        Where the distances are computed.

    Raises
    ------
    CsipError
        If lengths differ, there are no queries, a feature is not finite, or no query has a match.
    """
    queries, gallery = _checked_features("query", query_features), _checked_features("gallery", gallery_features)
    if queries.shape[1] != gallery.shape[1]:
        raise CsipError(
            f"query features have {queries.shape[1]} columns and gallery features {gallery.shape[1]}: "
            "embed both with the same model"
        )
    labels = Matching(query_ids, query_cameras, gallery_ids, gallery_cameras, len(queries), len(gallery))
    distances = FeatureDistances(queries, gallery, torch.device(device))
    return _score(distances, labels, options)


def rank_distances(
    distances: ArrayLike,
    query_ids: ArrayLike,
    query_cameras: ArrayLike,
    gallery_ids: ArrayLike,
    gallery_cameras: ArrayLike,
    options: RankOptions = RankOptions(),
) -> Ranking:
    """Score the rankings that a matrix of distances (Q, G) gives; the rest as in :func:`rank`.

    Raises
    ------
    CsipError
        If lengths differ, there are no queries, a distance is not finite, or no query has a match.
    """
    matrix = np.asarray(distances)
    if matrix.ndim != 2:
        raise CsipError(f"distances: expected (queries, gallery entries), got shape {matrix.shape}")
    for part in parts(len(matrix), options.chunk):
        if not np.isfinite(matrix[part]).all():
            raise CsipError(f"distances: some of the rows {part.start} to {part.stop - 1} are not finite")
    labels = Matching(query_ids, query_cameras, gallery_ids, gallery_cameras, *matrix.shape)
    return _score(GivenDistances(matrix), labels, options)


def chance(
    query_ids: ArrayLike,
    query_cameras: ArrayLike,
    gallery_ids: ArrayLike,
    gallery_cameras: ArrayLike,
    *,
    ranks: tuple[int, ...] = RANKS,
    camera_filter: bool = True,
) -> ChanceScores:
    """Return the exact expectation of the metrics over all orders of the gallery.

    For n entries of which m match: ``E[hit within k] = 1 - C(n - m, k) / C(n, k)`` and
    ``E[AP] = (H_n + (m - 1) (n - H_n) / (n - 1)) / n`` with the harmonic number ``H_n``.

    Parameters
    ----------
    query_ids, query_cameras, gallery_ids, gallery_cameras
        As in :func:`rank`.
    ranks, camera_filter
        As in `RankOptions`.

    Raises
    ------
    CsipError
        If lengths differ or no query has a match.
    """
    labels = Matching(query_ids, query_cameras, gallery_ids, gallery_cameras)
    total = int((labels.g_ids != JUNK).sum())
    entries, matches = [], []
    for pid, camera in zip(labels.q_ids, labels.q_cameras, strict=True):
        same = labels.gallery_of(pid)
        kept = same[labels.g_cameras[same] != camera] if camera_filter else same
        if pid != JUNK and len(kept):
            entries.append(total - (len(same) - len(kept)))
            matches.append(len(kept))
    if not entries:
        raise CsipError(_no_valid_queries(len(labels.q_ids)))
    n, m = np.array(entries, dtype=np.float64), np.array(matches, dtype=np.float64)
    harmonic = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, total + 1))))[n.astype(int)]
    expected_ap = (harmonic + (m - 1) * (n - harmonic) / np.maximum(n - 1, 1)) / n
    cmc = {}
    for k in ranks:
        drawn = np.arange(k)
        left = np.maximum(n[:, None] - drawn, 1)  # past the last entry a factor of 0 has been met
        missed = np.prod(np.clip((n - m)[:, None] - drawn, 0, None) / left, axis=1)
        cmc[k] = float(np.mean(1 - missed))
    return ChanceScores(cmc, float(expected_ap.mean()))


# ---- uncertainty -------------------------------------------------------------------------------------------------------


def confidence_intervals(
    ranking: Ranking, *, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over the valid queries: between which values the metrics of other such queries would fall.

    The gallery and the model stay as they are, so this is the uncertainty due to the choice of queries alone.

    Returns
    -------
    dict
        (low, high) by ``rankK`` for each K of the ranking's CMC, ``map`` and ``minp``.
    """
    if not 0 < level < 1 or samples < 1:
        raise CsipError(f"confidence_intervals: level {level} (expected within 0 to 1), samples {samples} (at least 1)")
    hits = ranking.first_hit[ranking.valid]
    columns = {f"rank{k}": (hits <= k).astype(np.float64) for k in ranking.cmc}
    columns["map"] = ranking.average_precision[ranking.valid]
    columns["minp"] = ranking.inverse_negative_penalty[ranking.valid]
    values = np.stack(list(columns.values()), axis=1)
    rng = np.random.default_rng(seed)
    count = len(values)
    means = np.stack([
        np.bincount(rng.integers(count, size=count), minlength=count) @ values / count for _ in range(samples)
    ])  # fmt: skip
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(columns, low, high, strict=True)}


def by_camera(ranking: Ranking, query_cameras: ArrayLike) -> dict[int, Ranking]:
    """Return the metrics of each camera's queries, by camera; a camera without a valid query is left out."""
    cameras = np.asarray(query_cameras)
    if cameras.shape != ranking.valid.shape:
        raise CsipError(f"by_camera: expected {len(ranking.valid)} cameras, one a query, got shape {cameras.shape}")
    return {int(camera): ranking.subset(cameras == camera) for camera in np.unique(cameras[ranking.valid])}


# ---- counting --------------------------------------------------------------------------------------------------------


def _score(distances: Distances, labels: Matching, options: RankOptions) -> Ranking:
    queries = len(labels.q_ids)
    average_precision, inverse_negative_penalty = np.full((2, queries), np.nan)
    first_hit = np.zeros(queries, dtype=np.int64)
    for part in parts(queries, options.chunk):
        row, entry = labels.matches(part, options.camera_filter)
        if not len(row):
            continue
        near = distances.pairs(row + part.start, entry)
        order = np.lexsort((near, row))
        row, near = row[order], near[order]
        count = np.bincount(row, minlength=part.stop - part.start)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        table = np.full((len(count), count.max()), np.inf)
        table[row, place] = near
        ends = table + distances.tolerance
        others = _count_others(distances, labels, part, options.gallery_chunk, ends, count)
        found = torch.searchsorted(torch.from_numpy(table), torch.from_numpy(ends), right=True).numpy()

        valid = np.flatnonzero(count)
        precision = np.zeros_like(table)
        precision[row, place] = (found / (found + others))[row, place]
        average_precision[part.start + valid] = precision.sum(axis=1)[valid] / count[valid]
        last = others[valid, count[valid] - 1]
        inverse_negative_penalty[part.start + valid] = count[valid] / (count[valid] + last)
        first_hit[part.start + valid] = 1 + others[valid, 0]
    return _summarize(average_precision, inverse_negative_penalty, first_hit, options.ranks)


def _count_others(
    distances: Distances, labels: Matching, rows: slice, gallery_chunk: int, ends: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Count, for each of the ascending distances `ends` (R, M) of a chunk's queries, the non-matches up to there.

    Of row r only the first ``count[r]`` ends are real.
    """
    farthest = np.where(count > 0, ends[np.arange(len(ends)), count - 1], -np.inf)
    counts = np.zeros(ends.shape, dtype=np.int64)
    for columns, block in distances.blocks(rows, parts(len(labels.g_ids), gallery_chunk)):
        limit = torch.from_numpy(farthest).to(block)[:, None]
        # What lies behind the last match changes no metric. Of a good model's distances that is nearly everything.
        near = (block <= limit).flatten().nonzero()[:, 0]
        values = block.flatten()[near].cpu().numpy()
        row, column = np.divmod(near.cpu().numpy(), block.shape[1])
        ids = labels.g_ids[columns][column]
        other = (ids != labels.q_ids[rows][row]) & (ids != JUNK)
        row, values = row[other], values[other]
        bounds = np.searchsorted(row, np.arange(len(ends) + 1))
        for r in np.unique(row):
            place = np.searchsorted(ends[r, : count[r]], values[bounds[r] : bounds[r + 1]])
            counts[r] += np.bincount(place, minlength=ends.shape[1])
    return counts.cumsum(axis=1)


def _checked_features(side: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2:
        raise CsipError(f"{side} features: expected (entries, width), got shape {array.shape}")
    finite = np.concatenate([np.isfinite(array[part]).all(axis=1) for part in parts(len(array), _ROWS)] or [[]])
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise CsipError(f"{side} features: {len(rows)} of {len(array)} rows are not finite, the first is row {rows[0]}")
    return array


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
