"""What an evaluation has found: metrics with intervals, by camera, and under which protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from csip.files import write_json
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.metrics import RANKS, ChanceScores, Ranking
from csip.retrieval.tables import TextTable

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scores:
    """Metrics of one set of rankings, fractions from 0 to 1.

    Attributes
    ----------
    rank1, rank5, rank10, rank20
        Share of the valid queries with a match among the first k.
    map, minp
        Mean average precision and mean inverse negative penalty; chance has no mINP.
    """

    rank1: float
    rank5: float
    rank10: float
    rank20: float
    map: float
    minp: float | None = None

    @staticmethod
    def of(ranking: Ranking | ChanceScores) -> Scores:
        """Take the metrics of rankings."""
        minp = ranking.minp if isinstance(ranking, Ranking) else None
        return Scores(map=ranking.map, minp=minp, **{f"rank{k}": ranking.cmc[k] for k in RANKS})

    def as_dict(self) -> dict[str, float]:
        """Return the metrics by name, as ``metrics.json`` has them."""
        values = {f"rank{k}": getattr(self, f"rank{k}") for k in RANKS} | {"map": self.map}
        return values if self.minp is None else values | {"minp": self.minp}


@dataclass(frozen=True)
class CameraScores:
    """Metrics of one camera's queries; no `scores` where none of them is valid."""

    queries: int
    valid_queries: int
    scores: Scores | None

    def as_dict(self) -> dict[str, float]:
        """Return them as ``metrics.json`` has them."""
        counts: dict[str, float] = {"queries": self.queries, "valid_queries": self.valid_queries}
        return counts if self.scores is None else counts | self.scores.as_dict()


@dataclass(frozen=True)
class LookalikeScores:
    """Metrics of the queries that have look-alikes; of chance no count.

    Attributes
    ----------
    scores
        Against the whole gallery.
    pair_rank1
        Rank-1 where a query is ranked against its own group alone.
    valid_queries
        How many there are.
    """

    scores: Scores
    pair_rank1: float
    valid_queries: int | None = None

    def as_dict(self) -> dict[str, float]:
        """Return them as ``metrics.json`` has them."""
        count = {} if self.valid_queries is None else {"valid_queries": self.valid_queries}
        return self.scores.as_dict() | count | {"pair_rank1": self.pair_rank1}


@dataclass(frozen=True)
class StratumScores:
    """How well twins are told apart who differ in one trait, see `csip.synthetic.motion`.

    Attributes
    ----------
    own_twin
        Share of queries whose nearest gallery entry of the person or the twin, at another camera, is the person's.
    interval
        Its [low, high], bootstrap over pairs of twins.
    pairs, valid_queries
        How many there are.
    """

    own_twin: float
    interval: tuple[float, float]
    pairs: int
    valid_queries: int


@dataclass(frozen=True)
class ModelScores:
    """Metrics of one model, or of chance, which has `scores` and `lookalikes` alone.

    Attributes
    ----------
    scores
        Over all valid queries.
    lookalikes
        Where the data set says who looks alike, see `lookalike_groups`.
    strata
        By the trait in which twins differ; of a motion world alone.
    queries, valid_queries
        How many there are, and how many have a match in the gallery.
    intervals
        [low, high] of each metric, see `csip.retrieval.metrics.confidence_intervals`; None where not asked for.
    cameras
        By the query's camera.
    reranked
        The same after re-ranking, where asked for.
    """

    scores: Scores
    lookalikes: LookalikeScores | None = None
    strata: Mapping[str, StratumScores] = field(default_factory=dict)
    queries: int | None = None
    valid_queries: int | None = None
    intervals: Mapping[str, tuple[float, float]] | None = None
    cameras: Mapping[int, CameraScores] = field(default_factory=dict)
    reranked: ModelScores | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return them as ``metrics.json`` has them."""
        tree: dict[str, Any] = self.scores.as_dict()
        if self.queries is not None:
            tree |= {"queries": self.queries, "valid_queries": self.valid_queries, "intervals": self.intervals}
            tree["cameras"] = {camera: one.as_dict() for camera, one in self.cameras.items()}
        if self.reranked is not None:
            tree["reranked"] = self.reranked.as_dict()
        if self.lookalikes is not None:
            tree["lookalikes"] = self.lookalikes.as_dict()
        if self.strata:
            tree["strata"] = {name: asdict(one) for name, one in self.strata.items()}
        return tree


@dataclass(frozen=True)
class Protocol:
    """What was measured, so that metrics can be compared; the fields are those of ``metrics.json``.

    ``test_looks``: models of this seed that were scored on this test world, this one included; None for other data.
    """

    gallery: str
    query_tracklets: int
    gallery_tracklets: int
    queries_in_gallery: int
    gallery_identities: int
    distractor_tracklets: int
    split: int | None
    level: str
    query_entries: int
    gallery_entries: int
    sampling: str
    clip_frames: int
    clip_stride: int | None
    removed: str
    ties: str
    distance: str
    part_norm: bool
    precision: str
    intervals: str | None
    reranking: Mapping[str, float] | None
    test_looks: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """How well a model ranks a data set's gallery.

    Attributes
    ----------
    dataset
        Its name.
    protocol
        What was measured.
    model
        Digest of the model's file.
    metrics
        Of the model.
    compared
        Of what it is compared with, by name: ``chance``, and with ``evaluation.compare_untrained`` the model before its training.
    seconds
        What it took.
    descriptors
        Of the query and gallery tracklets; None where clips were ranked.
    data
        Digests of what was ranked, see `csip.data.fingerprints.evaluation_data`.
    """

    dataset: str
    protocol: Protocol
    model: str
    metrics: ModelScores
    compared: Mapping[str, ModelScores]
    seconds: float
    descriptors: Descriptors | None = field(default=None, repr=False, compare=False)
    data: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rank1(self) -> float:
        """Rank-1 of the model, 0 to 1."""
        return self.metrics.scores.rank1

    @property
    def map(self) -> float:
        """Mean average precision of the model, 0 to 1."""
        return self.metrics.scores.map

    def as_dict(self) -> dict[str, Any]:
        """Return the tree of ``metrics.json``."""
        return {
            "dataset": self.dataset,
            "protocol": asdict(self.protocol),
            "model": self.model,
            "data": dict(self.data),
            "figures": self.metrics.as_dict(),
            "compared": {label: row.as_dict() for label, row in self.compared.items()},
            "seconds": self.seconds,
        }

    def save(self, path: Path | str) -> None:
        """Write ``metrics.json``, whole or not at all."""
        write_json(Path(path), self.as_dict())

    def table(self) -> TextTable:
        """Lay out the metrics of the model and of what it is compared with, in per cent."""
        protocol, metrics = self.protocol, self.metrics
        what = "tracklets" if protocol.level == "tracklet" else "clips"
        split = "" if protocol.split is None else f" split {protocol.split}"
        title = (
            f"{self.dataset}{split}: {metrics.valid_queries} valid queries of {protocol.query_entries}, "
            f"{protocol.gallery_entries} gallery {what} ({protocol.gallery}), {protocol.sampling} sampling"
        )
        # Where everyone has look-alikes, their metrics are those of all.
        alike = metrics.lookalikes is not None and metrics.lookalikes.valid_queries != metrics.valid_queries
        columns = ["", "Rank-1", "Rank-5", "mAP", "mINP"]
        columns += ["look-alikes: Rank-1", "look-alikes: mAP", "own pair only: Rank-1"] if alike else []
        rows = [_row(label, row, len(columns)) for label, row in (*self.compared.items(), ("trained", metrics))]
        if metrics.reranked is not None:
            rows.append(_row("trained, re-ranked", metrics.reranked, len(columns)))
        if metrics.intervals:
            spans = [metrics.intervals[key] for key in ("rank1", "rank5", "map", "minp")]
            cells = [f"{100 * low:.1f}-{100 * high:.1f}" for low, high in spans]
            rows.append(_filled([f"{CONFIDENCE:.0%} interval", *cells], len(columns)))
        return TextTable(title, tuple(columns), tuple(rows))

    def camera_table(self) -> TextTable:
        """Lay out the model's metrics by the query's camera, in per cent."""
        columns = ("camera", "queries", "valid", "Rank-1", "mAP")
        rows = []
        for camera, row in self.metrics.cameras.items():
            shares = [] if row.scores is None else [f"{row.scores.rank1:.1%}", f"{row.scores.map:.1%}"]
            rows.append(_filled([str(camera), str(row.queries), str(row.valid_queries), *shares], len(columns)))
        return TextTable("by the query's camera", columns, tuple(rows))

    def strata_table(self) -> TextTable | None:
        """Lay out how many twins each model tells apart, in per cent with intervals; None where there are no strata."""
        if not self.metrics.strata:
            return None
        models = {label: row for label, row in self.compared.items() if row.strata} | {"trained": self.metrics}
        queries = sum(one.valid_queries for one in self.metrics.strata.values())
        rows = tuple((label, *map(_with_interval, row.strata.values())) for label, row in models.items())
        title = f"own twin told apart at other cameras [{CONFIDENCE:.0%} interval]; {queries} queries, chance 50%"
        return TextTable(title, ("twins differ in", *self.metrics.strata), rows)

    def __str__(self) -> str:
        tables = (self.table(), self.strata_table(), self.camera_table())
        return "\n\n".join(str(table) for table in tables if table is not None)


def _row(label: str, row: ModelScores, columns: int) -> tuple[str, ...]:
    scores, alike = row.scores, row.lookalikes
    values = [scores.rank1, scores.rank5, scores.map, scores.minp]
    values += [] if alike is None else [alike.scores.rank1, alike.scores.map, alike.pair_rank1]
    cells = [label, *("" if value is None else f"{value:.1%}" for value in values)]
    return _filled(cells[:columns], columns)


def _with_interval(one: StratumScores) -> str:
    low, high = one.interval
    return f"{one.own_twin:.1%} [{100 * low:.0f}, {100 * high:.0f}]"


def _filled(cells: list[str], columns: int) -> tuple[str, ...]:
    return (*cells, *[""] * (columns - len(cells)))
