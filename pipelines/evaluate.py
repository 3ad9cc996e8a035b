"""The evaluation stage of the chain: embed query and gallery, rank, write ``metrics.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from csip.checkpoints import digest
from csip.config import Settings
from csip.data.datasets import load_dataset
from csip.data.tracklets import Dataset, Tracklet
from csip.embedding import embed_tracklets
from csip.errors import CsipError
from csip.metrics import RANKS, chance, rank
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.training.common import make_fabric
from csip.training.stage2 import load_trained, untrained_like
from pipelines.console import RichMonitor, console

Embed = Callable[[Sequence[Tracklet]], np.ndarray]


def run(settings: Settings, run_folder: Path, cross_dataset: bool) -> None:
    """Score ``RUN/stage2`` on the data set's query and gallery; write ``RUN/metrics.json``."""
    started = time.monotonic()
    path = run_folder / "stage2" / "model.safetensors"
    model, cameras, description = load_trained(path, settings, None if cross_dataset else settings.dataset.name)
    trained = Settings.model_validate(description["settings"])
    # The clips are the model's; what to score, how, and on which machine is decided now.
    trained = trained.model_copy(
        update={"dataset": settings.dataset, "evaluation": settings.evaluation, "runtime": settings.runtime}
    )
    dataset = load_dataset(settings.dataset)
    groups = lookalike_groups(dataset)
    device = make_fabric(settings.runtime).device
    rows = {"chance": chance_scores(dataset, groups)}
    with RichMonitor() as monitor:
        models: dict[str, ReIDModel] = {}
        if settings.evaluation.compare_untrained:
            models["random weights"] = untrained_like(description, pretrained=False)
            models["before training"] = untrained_like(description, pretrained=True)
        models["trained"] = model
        for label, candidate in models.items():
            rows[label] = score(candidate, dataset, groups, cameras, trained, device, monitor)
    result = {
        "dataset": dataset.name,
        "protocol": protocol(dataset, trained),
        "model": digest(path),
        "figures": rows["trained"],
        "compared": {label: row for label, row in rows.items() if label != "trained"},
        "seconds": time.monotonic() - started,
    }
    out = run_folder / "metrics.json"
    out.write_text(json.dumps(result, indent=1))
    console.print(figures_table(result))
    console.print(f"evaluate: {result['seconds']:.0f} s -> {out}")


def score(
    model: ReIDModel,
    dataset: Dataset,
    groups: dict[int, int],
    cameras: dict[int, int],
    settings: Settings,
    device: Any,
    monitor: Monitor,
) -> dict[str, Any]:
    """Rank the gallery with one model.

    Parameters
    ----------
    groups
        Group number of each identity that has look-alikes, see `lookalike_groups`.

    Returns
    -------
    dict
        ``rank1`` to ``rank20``, ``map``, ``minp``, ``queries``, ``valid_queries``; with look-alikes also
        ``lookalikes``: the same over their queries, and ``pair_rank1``, where a query is ranked against its own group alone.
    """
    everyone = list({t.name: t for t in (*dataset.query, *dataset.gallery)}.values())
    descriptors = embed_tracklets(model, dataset.root, everyone, cameras, settings, device, monitor)
    row = {t.name: i for i, t in enumerate(everyone)}
    query, gallery = (descriptors[[row[t.name] for t in part]] for part in (dataset.query, dataset.gallery))
    scores = rank(query, *_labels(dataset.query), gallery, *_labels(dataset.gallery))
    figures: dict[str, Any] = _figures(scores) | {"queries": len(dataset.query), "valid_queries": scores.valid_queries}
    if groups:
        alike = np.array([t.pid in groups for t in dataset.query]) & scores.valid
        hits = []
        for asked, found in _within_groups(dataset, groups):
            pair = rank(
                query[asked],
                *_labels([dataset.query[i] for i in asked]),
                gallery[found],
                *_labels([dataset.gallery[i] for i in found]),
            )
            hits += (pair.first_hit[pair.valid] == 1).tolist()
        figures["lookalikes"] = _figures(scores.subset(alike)) | {
            "valid_queries": int(alike.sum()),
            "pair_rank1": float(np.mean(hits)),
        }
    return figures


def chance_scores(dataset: Dataset, groups: dict[int, int]) -> dict[str, Any]:
    """Return what random rankings score on average under the same protocol; the keys of `score`."""
    gallery = _labels(dataset.gallery)
    figures: dict[str, Any] = _figures(chance(*_labels(dataset.query), *gallery))
    if groups:
        alike = [t for t in dataset.query if t.pid in groups]
        pairs, weights = [], []
        for asked, found in _within_groups(dataset, groups):
            labels = _labels([dataset.query[i] for i in asked])
            pairs.append(chance(*labels, *_labels([dataset.gallery[i] for i in found])).rank1)
            weights.append(len(asked))
        figures["lookalikes"] = _figures(chance(*_labels(alike), *gallery)) | {
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


def protocol(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Say what was measured, so that the figures can be compared."""
    return {
        "gallery": settings.dataset.gallery if settings.dataset.layout == "mars" else "with_queries",
        "query_tracklets": len(dataset.query),
        "gallery_tracklets": len(dataset.gallery),
        "sampling": settings.evaluation.sampling,
        "removed": "gallery entries of the query's own identity and camera; junk",
        "distance": "Euclidean between L2-normalised descriptors",
    }


def figures_table(result: dict[str, Any]) -> Table:
    """Lay out ``metrics.json`` for people."""
    protocol = result["protocol"]
    table = Table(
        title=(
            f"{result['dataset']}: {result['figures']['valid_queries']} valid queries of {protocol['query_tracklets']}, "
            f"{protocol['gallery_tracklets']} gallery tracklets ({protocol['gallery']}), {protocol['sampling']} sampling"
        ),
        title_justify="left",
    )
    alike = "lookalikes" in result["figures"]
    columns = ["Rank-1", "Rank-5", "mAP", *(["look-alikes: Rank-1", "mAP", "own pair only: Rank-1"] if alike else [])]
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for label, row in (*result["compared"].items(), ("trained", result["figures"])):
        values = [row["rank1"], row["rank5"], row["map"]]
        if alike:
            values += [row["lookalikes"]["rank1"], row["lookalikes"]["map"], row["lookalikes"]["pair_rank1"]]
        table.add_row(label, *(f"{value:.1%}" for value in values), style="bold" if label == "trained" else "")
    return table


def _figures(scores: Any) -> dict[str, float]:
    figures = {f"rank{k}": scores.cmc[k] for k in RANKS} | {"map": scores.map}
    return figures | ({"minp": scores.minp} if hasattr(scores, "minp") else {})


def _labels(tracklets: Sequence[Tracklet]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([t.pid for t in tracklets]), np.array([t.camera for t in tracklets])


def _within_groups(dataset: Dataset, groups: dict[int, int]) -> list[tuple[list[int], list[int]]]:
    """Return, for each group that can be ranked on its own, the query rows and the gallery rows of its identities."""
    result = []
    for number in sorted(set(groups.values())):
        found = [i for i, t in enumerate(dataset.gallery) if groups.get(t.pid) == number]
        asked = [
            i
            for i, q in enumerate(dataset.query)
            if groups.get(q.pid) == number
            and any(dataset.gallery[j].pid == q.pid and dataset.gallery[j].camera != q.camera for j in found)
        ]
        if asked:
            result.append((asked, found))
    return result
