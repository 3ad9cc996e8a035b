"""The evaluation stage of the chain: embed query and gallery, rank, write ``metrics.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from csip.config import EvaluationSettings, Settings
from csip.data.dataset import DISTRACTOR, Dataset, Tracklet
from csip.data.labels import LABELS, is_proposal
from csip.data.readers import load_labelled
from csip.errors import CsipError
from csip.models.factory import load_trained, untrained_like
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.retrieval.descriptors import write_descriptors
from csip.retrieval.embedding import clips_of, embed_clips, embed_tracklets, own_cameras
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
from csip.retrieval.reranking import rerank
from csip.runtime import make_fabric
from pipelines.console import RichMonitor, console
from pipelines.embed_tracklets import DESCRIPTORS, gather, model_digest, tracklets_of

CONFIDENCE = 0.95


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


def run(settings: Settings, run_folder: Path, cross_dataset: bool) -> None:
    """Score ``RUN/stage2`` on the data set's query and gallery; write ``RUN/metrics.json`` and ``RUN/descriptors.h5``."""
    started = time.monotonic()
    dataset = load_labelled(settings.dataset, "evaluation")
    path = run_folder / "stage2" / "model.safetensors"
    model, cameras, description = load_trained(path, settings, None if cross_dataset else settings.dataset.name)
    cameras = own_cameras(cameras, description["dataset"], dataset.name)
    key = model_digest(path, description)
    trained = Settings.model_validate(description["settings"])
    # The clips are the model's; what to score, how, and on which machine is decided now.
    trained = trained.model_copy(
        update={"dataset": settings.dataset, "evaluation": settings.evaluation, "runtime": settings.runtime}
    )
    query, gallery = (side(tracklets, trained) for tracklets in (dataset.query, dataset.gallery))
    groups = lookalike_groups(dataset)
    device = make_fabric(settings.runtime).device
    rows = {"chance": chance_scores(query, gallery, groups)}
    with RichMonitor() as monitor:
        if is_proposal(dataset.root / LABELS):
            monitor.say(
                f"{dataset.root / LABELS} is what `csip cluster` proposed, and nobody has corrected it: the figures say how well "
                "descriptors agree with that guess, not with the truth"
            )
        models: dict[str, ReIDModel] = {}
        if settings.evaluation.compare_untrained:
            models["random weights"] = untrained_like(description, pretrained=False)
            models["before training"] = untrained_like(description, pretrained=True)
        models["trained"] = model
        for label, candidate in models.items():
            descriptors = describe(candidate, dataset.root, query, gallery, cameras, trained, device, monitor)
            rows[label] = score(*descriptors, query, gallery, groups, trained.evaluation, device)
    if settings.evaluation.level == "tracklet":
        keep_descriptors(run_folder / DESCRIPTORS, dataset, *descriptors, key)
    result = {
        "dataset": dataset.name,
        "protocol": protocol(dataset, query, gallery, trained),
        "model": key,
        "figures": rows["trained"],
        "compared": {label: row for label, row in rows.items() if label != "trained"},
        "seconds": time.monotonic() - started,
    }
    out = run_folder / "metrics.json"
    out.write_text(json.dumps(result, indent=1))
    console.print(figures_table(result))
    console.print(cameras_table(result))
    console.print(f"evaluate: {result['seconds']:.0f} s -> {out}")


def side(tracklets: Sequence[Tracklet], settings: Settings) -> Side:
    """Count the entries that tracklets are ranked as."""
    if settings.evaluation.level == "tracklet":
        return Side(tracklets, np.ones(len(tracklets), dtype=np.int64))
    sampling = settings.evaluation.sampling
    counts = [len(clips_of(len(t.frames), settings.clips.frames, sampling)) for t in tracklets]
    return Side(tracklets, np.array(counts, dtype=np.int64))


def describe(
    model: ReIDModel,
    root: Path,
    query: Side,
    gallery: Side,
    cameras: dict[int, int],
    settings: Settings,
    device: Any,
    monitor: Monitor,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed query and gallery, a tracklet of both once; return their descriptors, (entries, D) each."""
    everyone = list({t.name: t for t in (*query.tracklets, *gallery.tracklets)}.values())
    row = {t.name: i for i, t in enumerate(everyone)}
    if settings.evaluation.level == "tracklet":
        descriptors = embed_tracklets(model, root, everyone, cameras, settings, device, monitor)
        return descriptors[[row[t.name] for t in query.tracklets]], descriptors[
            [row[t.name] for t in gallery.tracklets]
        ]
    clips = embed_clips(model, root, everyone, cameras, settings, device, monitor)
    asked, found = (np.concatenate([clips[row[t.name]] for t in part.tracklets]) for part in (query, gallery))
    return asked, found


def keep_descriptors(path: Path, dataset: Dataset, asked: np.ndarray, found: np.ndarray, model: str) -> None:
    """Write what the trained model says of query and gallery, for search and the report."""
    everyone = tracklets_of(dataset, "test")
    names = [t.name for t in (*dataset.query, *dataset.gallery)]
    described = dict(zip(names, (*asked, *found), strict=True))
    write_descriptors(path, gather(dataset, everyone, np.stack([described[t.name] for t in everyone]), model))


def score(
    asked: np.ndarray,
    found: np.ndarray,
    query: Side,
    gallery: Side,
    groups: dict[int, int],
    evaluation: EvaluationSettings,
    device: Any,
) -> dict[str, Any]:
    """Rank the gallery with one model's descriptors.

    Parameters
    ----------
    asked, found
        Descriptors of the query and gallery entries, (entries, D).
    groups
        Group number of each identity that has look-alikes, see `lookalike_groups`.

    Returns
    -------
    dict
        ``rank1`` to ``rank20``, ``map``, ``minp``, ``queries``, ``valid_queries``; ``intervals``, [low, high] of each figure;
        ``cameras``, the figures by the query's camera; where asked for, ``reranked``: the figures after re-ranking. With
        look-alikes also ``lookalikes``: the figures over their queries, and ``pair_rank1``, where a query is ranked against
        its own group alone.
    """
    scores = rank(asked, *query.labels, found, *gallery.labels, device=device)
    figures = _all_figures(scores, query.cameras, evaluation)
    if evaluation.rerank:
        k1, k2, mix = evaluation.rerank_k1, evaluation.rerank_k2, evaluation.rerank_mix
        reranked = rank_distances(rerank(asked, found, k1=k1, k2=k2, mix=mix), *query.labels, *gallery.labels)
        figures["reranked"] = _all_figures(reranked, query.cameras, evaluation)
    if groups:
        alike = np.isin(query.ids, list(groups)) & scores.valid
        hits = []
        for rows, entries in _within_groups(query, gallery, groups):
            pair = rank(
                asked[rows],
                query.ids[rows],
                query.cameras[rows],
                found[entries],
                gallery.ids[entries],
                gallery.cameras[entries],
            )
            hits += (pair.first_hit[pair.valid] == 1).tolist()
        figures["lookalikes"] = _figures(scores.subset(alike)) | {
            "valid_queries": int(alike.sum()),
            "pair_rank1": float(np.mean(hits)),
        }
    return figures


def chance_scores(query: Side, gallery: Side, groups: dict[int, int]) -> dict[str, Any]:
    """Return what random rankings score on average under the same protocol; keys as those of `score`."""
    figures: dict[str, Any] = _figures(chance(*query.labels, *gallery.labels))
    if groups:
        alike = np.isin(query.ids, list(groups))
        pairs, weights = [], []
        for rows, entries in _within_groups(query, gallery, groups):
            labels = (query.ids[rows], query.cameras[rows], gallery.ids[entries], gallery.cameras[entries])
            pairs.append(chance(*labels).rank1)
            weights.append(len(rows))
        figures["lookalikes"] = _figures(chance(query.ids[alike], query.cameras[alike], *gallery.labels)) | {
            "pair_rank1": float(np.average(pairs, weights=weights))
        }
    return figures


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
    asked = {t.pid for t in dataset.query}
    present = [[pid for pid in group if pid in asked] for group in groups]
    return {pid: number for number, group in enumerate(present) if len(group) > 1 for pid in group}


def protocol(dataset: Dataset, query: Side, gallery: Side, settings: Settings) -> dict[str, Any]:
    """Say what was measured, so that the figures can be compared."""
    evaluation = settings.evaluation
    parameters = {"k1": evaluation.rerank_k1, "k2": evaluation.rerank_k2, "mix": evaluation.rerank_mix}
    return {
        "gallery": "with_queries" if dataset.queries_in_gallery else "without_queries",
        "query_tracklets": len(dataset.query),
        "gallery_tracklets": len(dataset.gallery),
        "queries_in_gallery": dataset.queries_in_gallery,
        "gallery_identities": len({t.pid for t in dataset.gallery} - {DISTRACTOR}),
        "distractor_tracklets": sum(t.pid == DISTRACTOR for t in dataset.gallery),
        "split": settings.dataset.split if settings.dataset.layout in ("ilidsvid", "prid2011") else None,
        "level": evaluation.level,
        "query_entries": len(query.ids),
        "gallery_entries": len(gallery.ids),
        "sampling": evaluation.sampling,
        "clip_frames": settings.clips.frames,
        "removed": "gallery entries of the query's own identity and camera; junk",
        "ties": "a tie never helps: at equal distance the non-matches come first",
        "distance": "Euclidean between L2-normalised descriptors",
        "part_norm": evaluation.part_norm,
        "intervals": f"{CONFIDENCE:.0%}, bootstrap over {evaluation.bootstrap} samples of the valid queries"
        if evaluation.bootstrap
        else None,
        "reranking": parameters if evaluation.rerank else None,
    }


def figures_table(result: dict[str, Any]) -> Table:
    """Lay out ``metrics.json`` for people."""
    protocol, figures = result["protocol"], result["figures"]
    what = "tracklets" if protocol["level"] == "tracklet" else "clips"
    split = "" if protocol["split"] is None else f" split {protocol['split']}"
    table = Table(
        title=(
            f"{result['dataset']}{split}: {figures['valid_queries']} valid queries of {protocol['query_entries']}, "
            f"{protocol['gallery_entries']} gallery {what} ({protocol['gallery']}), {protocol['sampling']} sampling"
        ),
        title_justify="left",
    )
    alike = "lookalikes" in figures
    columns = ["Rank-1", "Rank-5", "mAP", "mINP"]
    columns += ["look-alikes: Rank-1", "mAP", "own pair only: Rank-1"] if alike else []
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    rows = [*result["compared"].items(), ("trained", figures)]
    if "reranked" in figures:
        rows.append(("trained, re-ranked", figures["reranked"]))
    for label, row in rows:
        values = [row["rank1"], row["rank5"], row["map"], row.get("minp")]
        if alike and "lookalikes" in row:
            values += [row["lookalikes"]["rank1"], row["lookalikes"]["map"], row["lookalikes"]["pair_rank1"]]
        cells = ["" if value is None else f"{value:.1%}" for value in values]
        table.add_row(label, *cells, style="bold" if label == "trained" else "")
    if figures["intervals"]:
        spans = [figures["intervals"][key] for key in ("rank1", "rank5", "map", "minp")]
        table.add_row(f"{CONFIDENCE:.0%} interval", *(f"{100 * low:.1f}-{100 * high:.1f}" for low, high in spans))
    return table


def cameras_table(result: dict[str, Any]) -> Table:
    """Lay out the trained model's figures by the query's camera."""
    table = Table("camera", title="by the query's camera", title_justify="left")
    for column in ("queries", "valid", "Rank-1", "mAP"):
        table.add_column(column, justify="right")
    for camera, row in result["figures"]["cameras"].items():
        shares = [f"{row[key]:.1%}" if key in row else "" for key in ("rank1", "map")]
        table.add_row(str(camera), str(row["queries"]), str(row["valid_queries"]), *shares)
    return table


def _all_figures(scores: Ranking, cameras: np.ndarray, evaluation: EvaluationSettings) -> dict[str, Any]:
    figures: dict[str, Any] = _figures(scores)
    figures |= {"queries": len(scores.valid), "valid_queries": scores.valid_queries}
    samples = evaluation.bootstrap
    figures["intervals"] = confidence_intervals(scores, level=CONFIDENCE, samples=samples) if samples else None
    valid = by_camera(scores, cameras)
    figures["cameras"] = {
        int(camera): {
            "queries": int((cameras == camera).sum()),
            "valid_queries": valid[camera].valid_queries if camera in valid else 0,
            **(_figures(valid[camera]) if camera in valid else {}),
        }
        for camera in np.unique(cameras)
    }
    return figures


def _figures(scores: Ranking | ChanceScores) -> dict[str, float]:
    figures = {f"rank{k}": scores.cmc[k] for k in RANKS} | {"map": scores.map}
    return figures | ({"minp": scores.minp} if isinstance(scores, Ranking) else {})


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
