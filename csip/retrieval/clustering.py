"""Clustering: a proposal of identities from descriptors.

What all tracklets of a camera have in common, its light and its view, is taken out of the descriptors first: people are to be
found over cameras. Then tracklets are joined by average linkage of their cosine distances. Two that cannot be the same person,
since they were in sight together, are put so far apart that no group below any threshold holds both. Where the threshold is
not given, it is the one whose groups have the best mean silhouette: the highest contrast between the distance to one's own
group and to the next. The result does not depend on the order of the tracklets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples

from csip.data.folder import Sighting
from csip.data.labels import write_labels
from csip.errors import CsipError
from csip.retrieval.descriptors import Descriptors

MOST = 30_000  # tracklets: 7 GB of distances, twice for a while
FEW = 5  # tracklets of a camera from which its mean is trusted more than not
_CUTS = 32  # thresholds tried, and as many again around the best


@dataclass(frozen=True, eq=False)
class Proposal:
    """A proposal of identities.

    Attributes
    ----------
    names
        Of the tracklets.
    cameras
        (tracklets,) of each; None where they were not told.
    people
        (tracklets,) int64, numbers from 1 in the order of the tracklets' first of each group.
    confidence
        (tracklets,) float64, the silhouette of each tracklet: 1 far from everybody else, 0 between two people or alone,
        below 0 nearer to somebody else.
    threshold
        The mean distance, 1 - cosine without what cameras add, up to which groups were joined.
    chosen_by
        ``silhouette``, ``threshold``, or ``people``.
    """

    names: tuple[str, ...]
    cameras: np.ndarray | None
    people: np.ndarray
    confidence: np.ndarray
    threshold: float
    chosen_by: str

    @property
    def silhouette(self) -> float:
        """The mean of `confidence`."""
        return float(self.confidence.mean())

    @property
    def count(self) -> int:
        """Number of people."""
        return int(self.people.max())

    @property
    def alone(self) -> int:
        """Number of people of one tracklet."""
        return int((np.bincount(self.people)[1:] == 1).sum())

    @property
    def over_cameras(self) -> int:
        """Number of people seen by more than one camera."""
        if self.cameras is None:
            return 0
        pairs = np.unique(np.stack([self.people, self.cameras]), axis=1)
        return int((np.bincount(pairs[0]) > 1).sum())

    def rows(self) -> list[tuple[str, str, float]]:
        """Return (tracklet, person, confidence) of each tracklet, people named ``person-001`` and on."""
        digits = max(len(str(self.count)), 3)
        titles = [f"person-{person:0{digits}d}" for person in self.people.tolist()]
        return list(zip(self.names, titles, self.confidence.tolist(), strict=True))

    def save(self, path: Path | str, force: bool = False) -> None:
        """Write ``labels.csv``, see `csip.data.labels.write_labels`.

        Raises
        ------
        CsipError
            Somebody has changed the labels that are there, and `force` is not set.
        """
        write_labels(Path(path), self.rows(), force)

    def __repr__(self) -> str:
        return (
            f"<Proposal: {len(self.people):,} tracklets are {self.count:,} people, threshold {self.threshold:.4f}, "
            f"silhouette {self.silhouette:.3f}>"
        )


def cluster(
    descriptors: Descriptors, apart: np.ndarray | None = None, threshold: float | None = None, people: int | None = None
) -> Proposal:
    """Group described tracklets into people over cameras; parameters as those of `cluster_features`."""
    return cluster_features(descriptors.features, descriptors.names, descriptors.cameras, apart, threshold, people)


def cluster_features(
    features: np.ndarray,
    names: Sequence[str],
    cameras: np.ndarray | None = None,
    apart: np.ndarray | None = None,
    threshold: float | None = None,
    people: int | None = None,
) -> Proposal:
    """Group tracklets into people.

    Parameters
    ----------
    features
        (N, D), unit length.
    names
        Of the tracklets; they make the result independent of their order.
    cameras
        (N,) of the tracklets; where given, what each camera adds is taken out, see `without_cameras`.
    apart
        (pairs, 2) rows that cannot be the same person, see `in_sight_together`.
    threshold
        Join groups up to this mean distance, 1 - cosine.
    people
        How many groups to make, instead.

    Raises
    ------
    CsipError
        Both `threshold` and `people` are given, or a value is out of range; so many were in sight together that there are
        more people than `people`; there are too many tracklets.
    """
    size = len(features)
    _check(size, threshold, people)
    order, distances, steps = _linkage(features, names, cameras, apart)
    back = np.argsort(order)
    heights = steps[:, 2]
    possible = int(np.searchsorted(heights, 4))  # what joins two that are apart is beyond any distance
    if people is not None:
        joins = size - people
        if joins > possible:
            raise CsipError(
                f"{people} people are too few: with those in sight together apart, there are at least {size - possible}"
            )
        chosen_by = "people"
    elif threshold is not None:
        joins = min(int(np.searchsorted(heights, threshold, side="right")), possible)
        chosen_by = "threshold"
    else:
        joins = _best_cut(distances, steps, possible)
        chosen_by = "silhouette"
    if threshold is None:
        threshold = _between(heights, joins, possible)
    groups = _groups(steps, joins, size)
    confidence = _silhouettes(distances, groups)[back]
    _, first, group = np.unique(groups[back], return_index=True, return_inverse=True)
    # Numbers in the order of the caller's tracklets; who is with whom is the same in any order.
    numbers = np.argsort(np.argsort(first))[group] + 1
    return Proposal(tuple(names), cameras, numbers, confidence, threshold, chosen_by)


def merge_steps(
    features: np.ndarray,
    names: Sequence[str],
    cameras: np.ndarray | None = None,
    apart: np.ndarray | None = None,
    threshold: float | None = None,
) -> tuple[np.ndarray, float]:
    """Return all joins that `cluster_features` chooses from, and the threshold up to which it makes them.

    Returns
    -------
    steps
        (N - 1, 4) float64 as scipy's ``linkage``; 0 to N - 1 are the caller's rows. Heights above 4 join what is apart.
    threshold
        As given, or of the best mean silhouette.

    Raises
    ------
    CsipError
        There are too many tracklets, none, or the threshold is out of range.
    """
    _check(len(features), threshold, None)
    order, distances, steps = _linkage(features, names, cameras, apart)
    if threshold is None:
        possible = int(np.searchsorted(steps[:, 2], 4))
        threshold = _between(steps[:, 2], _best_cut(distances, steps, possible), possible)
    rows = steps.copy()
    leaves = rows[:, :2] < len(order)
    rows[:, :2][leaves] = order[rows[:, :2][leaves].astype(np.int64)]
    return rows, threshold


def _between(heights: np.ndarray, joins: int, possible: int) -> float:
    """Return the threshold that makes the first `joins` of the `possible` joins: half way to the next."""
    low = heights[joins - 1] if joins else 0.0
    return float((low + heights[joins]) / 2 if joins < possible else low)


def _linkage(
    features: np.ndarray, names: Sequence[str], cameras: np.ndarray | None, apart: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the order of the rows by name, and in that order the distances and the joins."""
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    back = np.argsort(order)
    ordered = np.asarray(features, dtype=np.float64)[order]
    distances = _distances(ordered if cameras is None else without_cameras(ordered, cameras[order]))
    far = back[apart] if apart is not None and len(apart) else np.empty((0, 2), dtype=np.int64)
    return order, distances, _joins(distances, far)


def _check(size: int, threshold: float | None, people: int | None) -> None:
    """See that there is something to cluster, and that the parameters are in range."""
    if size == 0:
        raise CsipError("there are no tracklets to cluster")
    if size > MOST:
        raise CsipError(f"{size:,} tracklets are more than the {MOST:,} that can be clustered at once: divide the data")
    if threshold is not None and people is not None:
        raise CsipError("give either a threshold or the number of people, not both")
    if threshold is not None and not 0 <= threshold <= 2:
        raise CsipError(f"the threshold is a distance, 1 - cosine: expected 0 to 2, got {threshold}")
    if people is not None and not 1 <= people <= size:
        raise CsipError(f"{size} tracklets can be of 1 to {size} people, got {people}")


def without_cameras(features: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Move the mean of each camera's descriptors to the mean of all, and scale to unit length.

    A camera that n tracklets saw is moved by n / (n + `FEW`) of the way: the mean of a few says who they are rather than
    what the camera adds.

    Parameters
    ----------
    features
        (N, D), unit length.
    cameras
        (N,) of each.
    """
    moved = features.astype(np.float64)
    for camera, shift in camera_shifts(moved, cameras).items():
        moved[cameras == camera] += shift
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12))


def camera_shifts(features: np.ndarray, cameras: np.ndarray) -> dict[int, np.ndarray]:
    """Return how far `without_cameras` moves the descriptors of each camera, (D,)."""
    middle = features.mean(axis=0, dtype=np.float64)
    shifts = {}
    for camera in np.unique(cameras).tolist():
        rows = cameras == camera
        shifts[camera] = (middle - features[rows].mean(axis=0, dtype=np.float64)) * rows.sum() / (rows.sum() + FEW)
    return shifts


def in_sight_together(names: Sequence[str], sightings: Mapping[str, Sighting]) -> np.ndarray:
    """Return the pairs of tracklets that one camera saw at the same time in one video.

    Returns
    -------
    ndarray, shape (pairs, 2), int64
        Rows in `names`.
    """
    by_source: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for row, name in enumerate(names):
        seen = sightings.get(name)
        if seen is not None and seen.start is not None and seen.end is not None:
            by_source.setdefault(seen.source, []).append((seen.start, seen.end, row))
    pairs: list[tuple[int, int]] = []
    for spans in by_source.values():
        present: list[tuple[float, int]] = []
        for start, end, row in sorted(spans):
            present = [(until, other) for until, other in present if until >= start]
            pairs += [(other, row) for _, other in present]
            present.append((end, row))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Agreement:
    """How well a proposal agrees with known identities.

    Attributes
    ----------
    ari
        Adjusted Rand index: 0 by chance, 1 the same groups.
    nmi
        Normalised mutual information.
    purity
        Share of tracklets that are of the most frequent person of their group.
    """

    ari: float
    nmi: float
    purity: float


def agreement(people: np.ndarray, truth: np.ndarray) -> Agreement:
    """Compare a proposal with known identities.

    Parameters
    ----------
    people, truth
        (tracklets,) of the tracklets whose person is known.
    """
    _, group = np.unique(people, return_inverse=True)
    _, person = np.unique(truth, return_inverse=True)
    table = coo_matrix((np.ones(len(group)), (group, person))).toarray()
    return Agreement(
        ari=float(adjusted_rand_score(truth, people)),
        nmi=float(normalized_mutual_info_score(truth, people)),
        purity=float(table.max(axis=1).sum() / len(group)),
    )


def _distances(features: np.ndarray) -> np.ndarray:
    """Return 1 - cosine of all pairs, (N, N) float64, symmetric with zeros on the diagonal."""
    distances = 1 - features @ features.T
    distances = np.maximum((distances + distances.T) / 2, 0)
    np.fill_diagonal(distances, 0)
    return distances


def _joins(distances: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return the joins of average linkage, as scipy's ``linkage``; those of pairs that are apart have heights above 4."""
    size = len(distances)
    if size == 1:
        return np.empty((0, 4))
    whole = distances.copy()
    # One such pair among all pairs of the two groups is enough to lift their mean above 4.
    whole[apart[:, 0], apart[:, 1]] = whole[apart[:, 1], apart[:, 0]] = 4.0 * size**2
    return np.asarray(linkage(squareform(whole, checks=False), "average"))


def _best_cut(distances: np.ndarray, steps: np.ndarray, possible: int) -> int:
    """Return how many joins give the groups of the best mean silhouette; 0 where there is nothing to compare."""
    size = len(distances)
    # At least two groups, and at least one of two tracklets.
    most = min(possible, size - 2)
    if most < 1:
        return 0
    scores: dict[int, float] = {}

    def best_of(low: int, high: int) -> int:
        for joins in np.unique(np.linspace(low, high, _CUTS).round().astype(int)).tolist():
            if joins not in scores:
                scores[joins] = float(_silhouettes(distances, _groups(steps, joins, size)).mean())
        # Of equal ones, the fewest joins.
        return max(sorted(scores), key=lambda joins: scores[joins])

    near = best_of(1, most)
    spread = -(-most // _CUTS)
    return best_of(max(near - spread, 1), min(near + spread, most))


def _groups(steps: np.ndarray, joins: int, size: int) -> np.ndarray:
    """Return (N,) the group of each row after the first joins."""
    new = np.repeat(np.arange(size, size + joins), 2)
    joined = steps[:joins, :2].astype(np.int64).ravel()
    graph = coo_matrix((np.ones(len(new)), (new, joined)), shape=(size + joins, size + joins))
    return np.asarray(connected_components(graph, directed=False)[1][:size])


def _silhouettes(distances: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (N,) silhouettes; zeros where there is one group, or nobody is with anybody."""
    count = len(np.unique(groups))
    if not 1 < count < len(groups):
        return np.zeros(len(groups))
    return np.asarray(silhouette_samples(distances, groups, metric="precomputed"))
