"""What became of every query, so that two models can be compared on the same queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csip.retrieval.evaluation import Side
from csip.retrieval.metrics import rank
from csip.retrieval.twins import Pairs, interval, tell_twins_apart

RANK1, MAP = "Rank-1", "mAP"


@dataclass(frozen=True)
class Outcomes:
    """Of each query what counts for a figure, and whose it is.

    Attributes
    ----------
    values
        By figure (Q,): first entry right or not (`RANK1`), average precision (`MAP`), and by stratum of twins whether the
        person was nearer than the twin. Figures differ in their queries.
    groups
        By figure (Q,): the identity, or the pair of twins.
    """

    values: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]

    @staticmethod
    def of(asked: np.ndarray, query: Side, ranked: np.ndarray, gallery: Side, strata: Pairs) -> Outcomes:
        """Score the descriptors of queries (Q, D) against those of the gallery (G, D)."""
        ranking = rank(asked, *query.labels, ranked, *gallery.labels)
        valid, people = ranking.valid, query.ids[ranking.valid]
        values = {RANK1: (ranking.first_hit[valid] == 1).astype(float), MAP: ranking.average_precision[valid]}
        groups = {RANK1: people, MAP: people}
        twins = tell_twins_apart(asked, query.labels, ranked, gallery.labels, strata)
        for name in strata:
            chosen = twins.stratum == name
            if chosen.any():
                values[name], groups[name] = twins.hits[chosen], twins.pair[chosen]
        return Outcomes(values, groups)

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {name: {"values": v.tolist(), "groups": self.groups[name].tolist()} for name, v in self.values.items()}

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> Outcomes:
        """Read what `as_dict` has returned."""
        return Outcomes(
            {name: np.array(one["values"], dtype=float) for name, one in tree.items()},
            {name: np.array(one["groups"]) for name, one in tree.items()},
        )


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another in a figure, and the 95 % interval of that; shares, 0 to 1."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether chance alone does not explain it."""
        return self.low > 0 or self.high < 0


def difference(better: Sequence[Outcomes], worse: Sequence[Outcomes], figure: str) -> Difference:
    """Compare two models on the same queries, over one or more seeds.

    The interval is a paired bootstrap: identities (or pairs of twins) of each seed are drawn with their queries, since the
    queries of one person are right or wrong together.

    Parameters
    ----------
    better, worse
        One for each seed, of the same test.
    """
    gains = [b.values[figure] - w.values[figure] for b, w in zip(better, worse, strict=True)]
    groups = [[f"{seed}/{group}" for group in one.groups[figure].tolist()] for seed, one in enumerate(better)]
    low, high = interval(np.concatenate(gains), np.concatenate(groups))
    return Difference(float(np.concatenate(gains).mean()), low, high)
