"""What training returns, and writes as ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Retrieval:
    """Skeleton-to-image retrieval on held-out training identities, across cameras.

    Attributes
    ----------
    rank1, map
        Of the trained encoder, as fractions.
    queries
        How many tracklets were queries.
    chance_rank1, chance_map
        Of a random order.
    """

    rank1: float
    map: float
    queries: int
    chance_rank1: float
    chance_map: float


@dataclass(frozen=True)
class Validation:
    """Scores on what is held out of training, after an epoch (from 1); as fractions.

    `rank1` is measured with skeletons alone, and None in stage 2.
    """

    epoch: int
    map: float
    rank1: float | None = None

    @staticmethod
    def of(scores: Mapping[str, Any]) -> Validation:
        """Return the scores that a run has kept."""
        return Validation(int(scores["epoch"]), float(scores["map"]), scores.get("rank1"))

    def as_dict(self) -> dict[str, Any]:
        """Return what was measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Stage1Result:
    """What stage 1 has reached.

    Attributes
    ----------
    loss
        Mean of the last epoch.
    retrieval
        None where ``dataset.val_ids`` is 0.
    seconds
        Training time over all starts.
    """

    loss: float
    retrieval: Retrieval | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Stage2Result:
    """What stage 2 has reached.

    Attributes
    ----------
    terms
        Mean of each loss term in the last epoch, by name: ``ce``, ``triplet``, ``csip``, ``frame``, ``distill``.
    validation
        Of each validation; empty where ``dataset.val_ids`` is 0.
    chosen_epoch
        The epoch whose weights were written.
    seconds
        Training time over all starts.
    f4_map
        mAP on the held-out identities by the weight of f4 in a descriptor; the best weight was kept. Empty without f4 or held-out
        identities; f4 then weighs 1.
    """

    terms: Mapping[str, float]
    validation: tuple[Validation, ...]
    chosen_epoch: int
    seconds: float
    f4_map: Mapping[float, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return {
            **self.terms,
            "validation": [one.as_dict() for one in self.validation],
            "f4_map": {str(weight): score for weight, score in self.f4_map.items()},
            "chosen_epoch": self.chosen_epoch,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class SkeletonResult:
    """What training on skeletons alone has reached.

    Attributes
    ----------
    loss
        Mean of the last epoch.
    chosen_epoch
        The epoch whose weights were written.
    validation
        Of each epoch, on the held-out sequences; empty where nothing is held out.
    held_out_sequences
        How many training sequences are held out.
    seconds
        Training time over all starts.
    """

    loss: float
    chosen_epoch: int
    validation: tuple[Validation, ...]
    held_out_sequences: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return {**asdict(self), "validation": [one.as_dict() for one in self.validation]}
