"""Evaluation: rank the gallery for every query and compute metrics with intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csip.config import EvaluationSettings, Settings
from csip.data.dataset import DISTRACTOR, Dataset, Tracklet
from csip.data.readers import is_labelled
from csip.errors import CsipError
from csip.files import write_json
from csip.monitor import Monitor, Silent
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.embedding import Embedder, clips_of
from csip.retrieval.metrics import (
    RANKS,
    ChanceScores,
    Ranking,
    by_camera,
    chance,
    confidence_intervals,
    rank,
    rank_distances,
)
from csip.retrieval.model import Model, tested
from csip.retrieval.reranking import rerank
from csip.retrieval.tables import TextTable

CONFIDENCE = 0.95

# ---- results ---------------------------------------------------------------------------------------------------------


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
class ModelScores:
    """Metrics of one model, or of chance, which has `scores` and `lookalikes` alone.

    Attributes
    ----------
    scores
        Over all valid queries.
    lookalikes
        Where the data set says who looks alike, see `lookalike_groups`.
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
        return tree


@dataclass(frozen=True)
class Protocol:
    """What was measured, so that metrics can be compared; the fields are those of ``metrics.json``."""

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
    """

    dataset: str
    protocol: Protocol
    model: str
    metrics: ModelScores
    compared: Mapping[str, ModelScores]
    seconds: float
    descriptors: Descriptors | None = field(default=None, repr=False, compare=False)

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
        alike = metrics.lookalikes is not None
        columns = ["", "Rank-1", "Rank-5", "mAP", "mINP"]
        columns += ["look-alikes: Rank-1", "mAP", "own pair only: Rank-1"] if alike else []
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

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.camera_table()}"


def _row(label: str, row: ModelScores, columns: int) -> tuple[str, ...]:
    scores, alike = row.scores, row.lookalikes
    values = [scores.rank1, scores.rank5, scores.map, scores.minp]
    values += [] if alike is None else [alike.scores.rank1, alike.scores.map, alike.pair_rank1]
    return _filled([label, *("" if value is None else f"{value:.1%}" for value in values)], columns)


def _filled(cells: list[str], columns: int) -> tuple[str, ...]:
    return (*cells, *[""] * (columns - len(cells)))


# ---- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(model: Model, dataset: Dataset, monitor: Monitor | None = None) -> Evaluation:
    """Score a model on a data set's query and gallery; what to score and how is in the model's ``settings.evaluation``.

    Raises
    ------
    CsipError
        Nobody is known in the data set, no query has a match, or a frame cannot be read.
    """
    started = time.monotonic()
    if not is_labelled(dataset):
        raise CsipError(
            f"{dataset.root}: no tracklet has a person, which evaluation needs; `csip cluster` proposes people"
        )
    monitor = monitor or Silent()
    settings, device = model.settings, model.device
    query, gallery = (side(tracklets, settings) for tracklets in (dataset.query, dataset.gallery))
    groups = lookalike_groups(dataset)
    rows = {"chance": chance_scores(query, gallery, groups)}
    models = {}
    if settings.evaluation.compare_untrained:
        models["random weights"] = model.untrained(pretrained=False)
        models["before training"] = model.untrained(pretrained=True)
    models["trained"] = model
    for label, candidate in models.items():
        features = embed_sides(candidate.embedder(dataset.name), dataset.root, query, gallery, monitor)
        rows[label] = score(*features, query, gallery, groups, settings.evaluation, device)
    descriptors = None
    if settings.evaluation.level == "tracklet":
        everyone = tested(dataset)
        by_name = dict(
            zip([t.name for t in (*dataset.query, *dataset.gallery)], (*features[0], *features[1]), strict=True)
        )
        descriptors = Descriptors.of(dataset, everyone, np.stack([by_name[t.name] for t in everyone]), model.digest)
    return Evaluation(
        dataset.name,
        protocol(dataset, query, gallery, model),
        model.digest,
        rows["trained"],
        {label: row for label, row in rows.items() if label != "trained"},
        time.monotonic() - started,
        descriptors,
    )


@dataclass(frozen=True)
class Side:
    """The entries of query or gallery: tracklets, or their clips one after another.

    Attributes
    ----------
    tracklets
        The tracklets.
    counts
        (tracklets,) entries of each.
    ids, cameras
        (entries,) of each entry.
    """

    tracklets: Sequence[Tracklet]
    counts: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        return np.repeat([t.pid for t in self.tracklets], self.counts)

    @property
    def cameras(self) -> np.ndarray:
        return np.repeat([t.camera for t in self.tracklets], self.counts)

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Identities and cameras, as the metrics take them."""
        return self.ids, self.cameras


def side(tracklets: Sequence[Tracklet], settings: Settings) -> Side:
    """Count the entries that tracklets are ranked as."""
    if settings.evaluation.level == "tracklet":
        return Side(tracklets, np.ones(len(tracklets), dtype=np.int64))
    sampling = settings.evaluation.sampling
    counts = [len(clips_of(len(t.frames), settings.clips.frames, sampling, settings.clips.stride)) for t in tracklets]
    return Side(tracklets, np.array(counts, dtype=np.int64))


def embed_sides(
    embedder: Embedder, root: Path, query: Side, gallery: Side, monitor: Monitor
) -> tuple[np.ndarray, np.ndarray]:
    """Embed query and gallery, a tracklet of both once; return their descriptors, (entries, D) each."""
    everyone = list({t.name: t for t in (*query.tracklets, *gallery.tracklets)}.values())
    row = {t.name: i for i, t in enumerate(everyone)}
    if embedder.settings.evaluation.level == "tracklet":
        features = embedder.tracklets(root, everyone, monitor)
        return features[[row[t.name] for t in query.tracklets]], features[[row[t.name] for t in gallery.tracklets]]
    clips = embedder.clips(root, everyone, monitor)
    of_queries, of_gallery = (np.concatenate([clips[row[t.name]] for t in part.tracklets]) for part in (query, gallery))
    return of_queries, of_gallery


def score(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query: Side,
    gallery: Side,
    groups: dict[int, int],
    evaluation: EvaluationSettings,
    device: str | torch.device,
) -> ModelScores:
    """Rank the gallery with one model's descriptors.

    Parameters
    ----------
    query_features, gallery_features
        Descriptors of the query and gallery entries, (entries, D).
    groups
        Group number of each identity that has look-alikes, see `lookalike_groups`.
    """
    ranking = rank(query_features, *query.labels, gallery_features, *gallery.labels, device=device)
    reranked = lookalikes = None
    if evaluation.rerank:
        k1, k2, mix = evaluation.rerank_k1, evaluation.rerank_k2, evaluation.rerank_mix
        distances = rerank(query_features, gallery_features, k1=k1, k2=k2, mix=mix)
        again = rank_distances(distances, *query.labels, *gallery.labels)
        reranked = _model_scores(again, query.cameras, evaluation)
    if groups:
        alike = np.isin(query.ids, list(groups)) & ranking.valid
        hits = []
        for rows, entries in _within_groups(query, gallery, groups):
            asked = (query_features[rows], query.ids[rows], query.cameras[rows])
            pair = rank(*asked, gallery_features[entries], gallery.ids[entries], gallery.cameras[entries])
            hits += (pair.first_hit[pair.valid] == 1).tolist()
        lookalikes = LookalikeScores(Scores.of(ranking.subset(alike)), float(np.mean(hits)), int(alike.sum()))
    return _model_scores(ranking, query.cameras, evaluation, lookalikes, reranked)


def chance_scores(query: Side, gallery: Side, groups: dict[int, int]) -> ModelScores:
    """Return what random rankings score on average under the same protocol."""
    overall = Scores.of(chance(*query.labels, *gallery.labels))
    if not groups:
        return ModelScores(overall)
    alike = np.isin(query.ids, list(groups))
    pairs, weights = [], []
    for rows, entries in _within_groups(query, gallery, groups):
        labels = (query.ids[rows], query.cameras[rows], gallery.ids[entries], gallery.cameras[entries])
        pairs.append(chance(*labels).rank1)
        weights.append(len(rows))
    of_alike = Scores.of(chance(query.ids[alike], query.cameras[alike], *gallery.labels))
    return ModelScores(overall, LookalikeScores(of_alike, float(np.average(pairs, weights=weights))))


def lookalike_groups(dataset: Dataset) -> dict[int, int]:
    """Read ``lookalikes.json``, lists of identities that look alike, where the data set has one.

    Returns
    -------
    dict
        Group number of each test identity whose group has another test identity; empty without the file.

    Raises
    ------
    CsipError
        The file is no list of lists of identities.
    """
    path = dataset.root / "lookalikes.json"
    if not path.exists():
        return {}
    try:
        groups = [[int(pid) for pid in group] for group in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise CsipError(f"{path}: expected a JSON list of lists of identities ({error})") from error
    queried = {t.pid for t in dataset.query}
    present = [[pid for pid in group if pid in queried] for group in groups]
    return {pid: number for number, group in enumerate(present) if len(group) > 1 for pid in group}


def protocol(dataset: Dataset, query: Side, gallery: Side, model: Model) -> Protocol:
    """Say what was measured, so that the metrics can be compared."""
    settings, evaluation = model.settings, model.settings.evaluation
    parameters = {"k1": evaluation.rerank_k1, "k2": evaluation.rerank_k2, "mix": evaluation.rerank_mix}
    return Protocol(
        gallery="with_queries" if dataset.queries_in_gallery else "without_queries",
        query_tracklets=len(dataset.query),
        gallery_tracklets=len(dataset.gallery),
        queries_in_gallery=dataset.queries_in_gallery,
        gallery_identities=len({t.pid for t in dataset.gallery} - {DISTRACTOR}),
        distractor_tracklets=sum(t.pid == DISTRACTOR for t in dataset.gallery),
        split=dataset.split,
        level=evaluation.level,
        query_entries=len(query.ids),
        gallery_entries=len(gallery.ids),
        sampling=evaluation.sampling,
        clip_frames=settings.clips.frames,
        clip_stride=settings.clips.stride,
        removed="gallery entries of the query's own identity and camera; junk",
        ties="a tie never helps: at equal distance the non-matches come first",
        distance="Euclidean between L2-normalised descriptors",
        part_norm=evaluation.part_norm,
        precision=model.precision,
        intervals=f"{CONFIDENCE:.0%}, bootstrap over {evaluation.bootstrap} samples of the valid queries"
        if evaluation.bootstrap
        else None,
        reranking=parameters if evaluation.rerank else None,
    )


def _model_scores(
    ranking: Ranking,
    cameras: np.ndarray,
    evaluation: EvaluationSettings,
    lookalikes: LookalikeScores | None = None,
    reranked: ModelScores | None = None,
) -> ModelScores:
    samples = evaluation.bootstrap
    valid = by_camera(ranking, cameras)
    return ModelScores(
        scores=Scores.of(ranking),
        lookalikes=lookalikes,
        queries=len(ranking.valid),
        valid_queries=ranking.valid_queries,
        intervals=confidence_intervals(ranking, level=CONFIDENCE, samples=samples) if samples else None,
        cameras={
            int(camera): CameraScores(
                int((cameras == camera).sum()),
                valid[camera].valid_queries if camera in valid else 0,
                Scores.of(valid[camera]) if camera in valid else None,
            )
            for camera in np.unique(cameras)
        },
        reranked=reranked,
    )


def _within_groups(query: Side, gallery: Side, groups: dict[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each group that can be ranked on its own, the query entries and the gallery entries of its identities."""
    (q_ids, q_cameras), (g_ids, g_cameras) = query.labels, gallery.labels
    result = []
    for number in sorted(set(groups.values())):
        members = [pid for pid, group in groups.items() if group == number]
        found = np.flatnonzero(np.isin(g_ids, members))
        asked = np.flatnonzero(np.isin(q_ids, members))
        match = (g_ids[found] == q_ids[asked, None]) & (g_cameras[found] != q_cameras[asked, None])
        asked = asked[match.any(axis=1)]
        if len(asked):
            result.append((asked, found))
    return result
