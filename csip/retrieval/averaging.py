"""Mean and spread of several runs of one protocol: the splits of a data set, or seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csip.errors import CsipError
from csip.files import parse_json, write_json
from csip.retrieval.metrics import RANKS
from csip.retrieval.tables import TextTable

METRICS = {**{f"rank{k}": f"Rank-{k}" for k in RANKS}, "map": "mAP", "minp": "mINP"}
# What may differ between splits of the same protocol: who is tested, and so how many.
_OF_SPLIT = {
    "split", "query_tracklets", "gallery_tracklets", "query_entries", "gallery_entries", "queries_in_gallery",
    "gallery_identities", "distractor_tracklets",
}  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """A metric over runs; ``std`` is that of a sample, over n - 1, and 0 of one run."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Average:
    """Metrics over runs of one protocol.

    Attributes
    ----------
    dataset
        Its name.
    splits
        Of each run; None where the protocol has none.
    metrics
        By name: ``rank1`` to ``rank20``, ``map``, ``minp``.
    reranked
        The same after re-ranking; None where the runs have none.
    """

    dataset: str
    splits: tuple[int | None, ...]
    metrics: Mapping[str, Spread]
    reranked: Mapping[str, Spread] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the tree that `save` writes."""
        tree: dict[str, Any] = {"dataset": self.dataset, "runs": len(self.splits), "splits": list(self.splits)}
        tree |= {name: asdict(spread) for name, spread in self.metrics.items()}
        if self.reranked is not None:
            tree["reranked"] = {name: asdict(spread) for name, spread in self.reranked.items()}
        return tree

    def save(self, path: Path | str) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(Path(path), self.as_dict())

    def table(self) -> TextTable:
        """Lay it out, in per cent."""
        splits = [str(split) for split in self.splits if split is not None]
        of_splits = f", splits {', '.join(splits)}" if splits else ""
        columns = {"trained": self.metrics} | ({} if self.reranked is None else {"re-ranked": self.reranked})
        rows = tuple(
            (title, *(f"{100 * one[name].mean:.1f} ± {100 * one[name].std:.1f}" for one in columns.values()))
            for name, title in METRICS.items()
        )
        return TextTable(f"{self.dataset}: mean of {len(self.splits)} runs{of_splits}", ("", *columns), rows)


def average(runs: Sequence[Path]) -> Average:
    """Average the trained models' metrics in the ``metrics.json`` of these run folders.

    Raises
    ------
    CsipError
        A run has no metrics, or the runs were not scored alike.
    """
    scored = [_read(folder / "metrics.json") for folder in runs]
    if not scored:
        raise CsipError("name at least one run folder")
    first = _protocol(scored[0])
    for folder, one in zip(runs, scored, strict=True):
        if one["dataset"] != scored[0]["dataset"]:
            raise CsipError(f"{folder} is of data set {one['dataset']}, {runs[0]} of {scored[0]['dataset']}")
        differing = sorted(key for key, value in _protocol(one).items() if value != first.get(key))
        if differing:
            raise CsipError(
                f"{folder} and {runs[0]} were scored differently ({', '.join(differing)}): evaluate them again alike"
            )
    splits = tuple(one["protocol"]["split"] for one in scored)
    if splits.count(None) < len(splits) and len(set(splits)) < len(splits):
        raise CsipError(f"the runs are of the splits {list(splits)}: one counts twice")
    reranked = [one["figures"]["reranked"] for one in scored if "reranked" in one["figures"]]
    return Average(
        scored[0]["dataset"],
        splits,
        _spreads([one["figures"] for one in scored]),
        _spreads(reranked) if reranked else None,
    )


def _spreads(metrics: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    result = {}
    for name in METRICS:
        values = np.array([one[name] for one in metrics])
        std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        result[name] = Spread(float(values.mean()), std, float(values.min()), float(values.max()))
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = parse_json(path.read_bytes())
        split, figures = tree["protocol"]["split"], tree["figures"]
        if not isinstance(tree["dataset"], str) or not isinstance(split, int | str | None):
            raise ValueError(f"expected a data set and a split, found {tree['dataset']!r:.40} and {split!r:.40}")
        for scores in (figures, figures.get("reranked", figures)):
            if wrong := [name for name in METRICS if not math.isfinite(scores[name])]:
                raise ValueError(f"{wrong[0]} is {scores[wrong[0]]}")
    except OSError as error:
        raise CsipError(f"{path}: missing", parameter="metrics") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise CsipError(f"{path}: damaged, or metrics of skeletons alone ({error})", parameter="metrics") from error
    return tree


def _protocol(scored: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scored["protocol"].items() if key not in _OF_SPLIT}
