"""Evaluation: rank the gallery for every query and compute metrics with intervals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from csip.config import EvaluationSettings, Settings
from csip.data.content import contents_of
from csip.data.dataset import DISTRACTOR, Dataset, Tracklet
from csip.data.fingerprints import evaluation_data
from csip.data.numerals import whole
from csip.data.readers import is_labelled
from csip.data.skeletons import load_skeletons
from csip.errors import CsipError
from csip.files import parse_json
from csip.monitor import Monitor, Silent
from csip.retrieval.controls import embed_with_skeletons, has_skeletons
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.embedding import Embedder, clip_descriptors, clips_of, embed_together, tracklet_descriptor
from csip.retrieval.metrics import Ranking, by_camera, chance, confidence_intervals, rank, rank_distances
from csip.retrieval.model import Model, tested
from csip.retrieval.reranking import rerank
from csip.retrieval.scores import CONFIDENCE, CameraScores, Evaluation, LookalikeScores, ModelScores, Protocol, Scores
from csip.retrieval.twins import tell_twins_apart, twin_strata
from csip.runtime import share

TEACHER = "with skeletons"

# ---- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(
    model: Model,
    dataset: Dataset,
    monitor: Monitor | None = None,
    fabric: Fabric | None = None,
    skeletons: Path | None = None,
) -> Evaluation:
    """Score a model on a data set's query and gallery; what to score and how is in the model's ``settings.evaluation``.

    Parameters
    ----------
    fabric
        Processes that call this together: each embeds a share of the tracklets, and every one returns the same.
    skeletons
        A skeleton cache. Where it has those of the test, and untrained models are compared, so is the model as its own teacher,
        which sees them: the most that images alone could reach.

    Raises
    ------
    CsipError
        Nobody is known in the data set, no query has a match, or a frame cannot be read.
    """
    started = time.monotonic()
    if not is_labelled(dataset):
        raise CsipError(f"{dataset.root}: no tracklet has a person, which evaluation needs", parameter="people")
    monitor = monitor or Silent()
    settings, device = model.settings, model.device
    query, gallery = (side(tracklets, settings) for tracklets in (dataset.query, dataset.gallery))
    # Before the pictures are read: what changes meanwhile then shows.
    data, pictures = evaluation_data(dataset), contents_of(dataset.root, tested(dataset))
    groups = lookalike_groups(dataset)
    rows = {"chance": chance_scores(query, gallery, groups)}
    models = {}
    if settings.evaluation.compare_untrained:
        models["random weights"] = model.untrained(pretrained=False)
        models["before training"] = model.untrained(pretrained=True)
    models["trained"] = model
    embedders = [candidate.embedder(dataset.name) for candidate in models.values()]
    found = embed_sides(embedders, dataset.root, query, gallery, monitor, fabric)
    strata = twin_strata(dataset)
    labels = list(models)
    tracklets_alone = settings.evaluation.compare_untrained and settings.evaluation.level == "tracklet"
    if skeletons is not None and tracklets_alone and has_skeletons(skeletons, dataset):
        labels.insert(-1, TEACHER)
        found.insert(-1, _taught(model, dataset, skeletons, monitor, fabric))
    for label, (asked, ranked) in zip(labels, found, strict=True):
        scores = score(asked, ranked, query, gallery, groups, settings.evaluation, device)
        twins = tell_twins_apart(asked, query.labels, ranked, gallery.labels, strata)
        rows[label] = replace(scores, strata=twins.scores())
    descriptors = None
    if settings.evaluation.level == "tracklet":
        everyone = tested(dataset)
        by_name = dict(
            zip([t.name for t in (*dataset.query, *dataset.gallery)], (*found[-1][0], *found[-1][1]), strict=True)
        )
        trained = np.stack([by_name[t.name] for t in everyone])
        descriptors = Descriptors.of(dataset, everyone, trained, model.digest, pictures)
    return Evaluation(
        dataset.name,
        protocol(dataset, query, gallery, model),
        model.digest,
        rows["trained"],
        {label: row for label, row in rows.items() if label != "trained"},
        time.monotonic() - started,
        descriptors,
        data,
    )


def _taught(
    model: Model, dataset: Dataset, cache: Path, monitor: Monitor, fabric: Fabric | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the descriptors of queries and gallery by the branch that sees skeletons."""
    everyone = list({t.name: t for t in (*dataset.query, *dataset.gallery)}.values())
    row = {t.name: i for i, t in enumerate(everyone)}

    def embed(mine: Sequence[Tracklet]) -> list[np.ndarray]:
        skeletons = load_skeletons(cache, mine, model.settings.clips.max_gap)
        return list(embed_with_skeletons(model, dataset, mine, skeletons, monitor))

    found = np.stack(share(fabric, everyone, embed) if fabric is not None else embed(everyone))
    return found[[row[t.name] for t in dataset.query]], found[[row[t.name] for t in dataset.gallery]]


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
    embedders: Sequence[Embedder],
    root: Path,
    query: Side,
    gallery: Side,
    monitor: Monitor,
    fabric: Fabric | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Embed query and gallery, a tracklet of both once, by one or more networks of the same settings.

    Parameters
    ----------
    fabric
        Processes that share the tracklets.

    Returns
    -------
    list of (ndarray, ndarray)
        The descriptors of queries and gallery that each network gives, (entries, D) each.
    """
    everyone = list({t.name: t for t in (*query.tracklets, *gallery.tracklets)}.values())
    row = {t.name: i for i, t in enumerate(everyone)}
    ranked_by_clip = embedders[0].settings.evaluation.level == "clip"

    def embed(mine: Sequence[Tracklet]) -> list[list[np.ndarray]]:
        together = embed_together(embedders, root, mine, monitor)
        if ranked_by_clip:
            return [[clip_descriptors(clips) for clips in each] for each in together]
        return [[tracklet_descriptor(clips)[None] for clips in each] for each in together]

    entries = share(fabric, everyone, embed) if fabric is not None else embed(everyone)

    def of(side: Side, network: int) -> np.ndarray:
        return np.concatenate([entries[row[t.name]][network] for t in side.tracklets])

    return [(of(query, network), of(gallery, network)) for network in range(len(embedders))]


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
        groups = [[whole(pid) for pid in group] for group in parse_json(path.read_bytes())]
    except (ValueError, TypeError, OverflowError) as error:
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
