"""Telling twins apart: people in the same clothing who differ in one trait, as the motion world renders them.

A data set has strata of twins where ``strata.json`` lies beside it, see `csip.synthetic.world`: by trait the pairs of
identities. A query is compared with the gallery entries of its person and of the twin, at other cameras than its own, and the
nearest one decides. So neither clothing nor the place tells the two apart; the expectation of a guess is one half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from csip.data.dataset import Dataset
from csip.data.numerals import whole
from csip.errors import CsipError
from csip.files import parse_json
from csip.retrieval.scores import CONFIDENCE, StratumScores

FILE = "strata.json"
_SAMPLES = 2000

Pairs = Mapping[str, list[list[int]]]


def twin_strata(dataset: Dataset) -> Pairs:
    """Read the pairs of test identities by the trait in which they differ; empty where the data set has none.

    Raises
    ------
    CsipError
        The file holds something else.
    """
    return _read(dataset)[0]


def is_test_world(dataset: Dataset) -> bool:
    """Whether the test identities are those for the last word, see `csip.synthetic.world.SyntheticSpec`."""
    return _read(dataset)[1] == "test"


def _read(dataset: Dataset) -> tuple[Pairs, str | None]:
    """Return the test's pairs, and which part of a rendered world they are; nothing without the file."""
    path = dataset.root / FILE
    if not path.exists():
        return {}, None
    try:
        tree = parse_json(path.read_bytes())
        pairs = {str(name): [[whole(a), whole(b)] for a, b in group] for name, group in tree["test"].items()}
        return pairs, tree.get("part")
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CsipError(f"{path}: expected pairs of identities by stratum under 'test' ({error!r})") from error


@dataclass(frozen=True)
class TwinHits:
    """Of each query that has a twin whether the person was nearer.

    Attributes
    ----------
    hits
        (Q,) in [0, 1]; of several entries as near, each counts a part.
    pair
        (Q,) number of the pair.
    stratum
        (Q,) name of the trait.
    """

    hits: np.ndarray
    pair: np.ndarray
    stratum: np.ndarray

    def scores(self) -> dict[str, StratumScores]:
        """Return the share of right answers by stratum, with its interval."""
        result = {}
        for name in dict.fromkeys(self.stratum.tolist()):
            chosen = self.stratum == name
            hits, pair = self.hits[chosen], self.pair[chosen]
            result[name] = StratumScores(float(hits.mean()), interval(hits, pair), len(np.unique(pair)), len(hits))
        return result


def tell_twins_apart(
    query_features: np.ndarray,
    query_labels: tuple[np.ndarray, np.ndarray],
    gallery_features: np.ndarray,
    gallery_labels: tuple[np.ndarray, np.ndarray],
    strata: Pairs,
) -> TwinHits:
    """Compare each query with the person and the twin.

    Parameters
    ----------
    query_features, gallery_features
        (Q, D) and (G, D) descriptors.
    query_labels, gallery_labels
        Identities and cameras, (Q,) and (G,) each.
    strata
        Of `twin_strata`.
    """
    (q_ids, q_cameras), (g_ids, g_cameras) = query_labels, gallery_labels
    hits, numbers, names = [], [], []
    pairs = [(name, pair) for name, group in strata.items() for pair in group]
    for number, (name, pair) in enumerate(pairs):
        entries = np.flatnonzero(np.isin(g_ids, pair))
        for row in np.flatnonzero(np.isin(q_ids, pair)):
            elsewhere = entries[g_cameras[entries] != q_cameras[row]]
            own = g_ids[elsewhere] == q_ids[row]
            if own.all() or not own.any():  # without the twin, or without a match, there is nothing to decide
                continue
            distances = np.square(gallery_features[elsewhere] - query_features[row]).sum(axis=1)
            nearest = distances == distances.min()
            hits.append(float(own[nearest].mean()))
            numbers.append(number)
            names.append(name)
    return TwinHits(np.array(hits), np.array(numbers, dtype=np.int64), np.array(names, dtype=np.str_))


def interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of values (M,), of which a group, (M,), is drawn as a whole."""
    _, rows = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(rows, values), np.bincount(rows)
    drawn = np.random.default_rng(0).integers(len(counts), size=(_SAMPLES, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
