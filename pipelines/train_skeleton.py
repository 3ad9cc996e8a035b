"""Re-identification from skeletons alone: the stages that train and score it."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from csip.config import Settings
from csip.data.sequences import SkeletonDataset, SkeletonSequence, fingerprint_sequences, windows
from csip.data.skeleton_readers import load_skeleton_set
from csip.errors import CsipError
from csip.files import digest, write_json, write_text
from csip.models.skeleton_reid import bone_lengths
from csip.retrieval.metrics import RANKS, chance
from csip.runtime import make_fabric
from csip.training.skeletons_alone import embed_windows, load_skeleton_model, rank_windows, train_skeleton
from pipelines.console import RichMonitor, console
from pipelines.markdown import code, plain
from pose_cache.joints import joint_set

FOLDER = "skeleton"  # of the run
BASELINE = "bone lengths, nearest neighbour"


def train(settings: Settings, run_folder: Path, overwrite: bool, init: Path | None) -> None:
    """Train on the training sequences of a data set; write ``RUN/skeleton``."""
    dataset = load_skeleton_set(settings.dataset, settings.runtime.seed)
    people = len({s.pid for s in dataset.train})
    console.print(
        f"{dataset.name}, {dataset.protocol}: {len(dataset.train)} training sequences of {people} people, "
        f"{len(dataset.probe)} probe, {len(dataset.gallery)} gallery"
    )
    with RichMonitor() as monitor:
        figures = train_skeleton(dataset, settings, run_folder / FOLDER, monitor, overwrite, init)
    chosen = "the last one" if not figures["validation"] else "chosen on held-out training sequences"
    console.print(
        f"train-skeleton: epoch {figures['chosen_epoch']} ({chosen}), {figures['seconds']:.0f} s -> {run_folder / FOLDER}"
    )


def evaluate(settings: Settings, run_folder: Path) -> None:
    """Score ``RUN/skeleton`` on the probe and gallery of its own split; write ``RUN/metrics.json``.

    Raises
    ------
    CsipError
        The data set's training sequences are not those of the model, so that its probe might be among them.
    """
    started = time.monotonic()
    path = run_folder / FOLDER / "model.safetensors"
    trained = load_skeleton_model(path)
    chosen = trained.settings.skeleton_training
    # The split is the model's; where the data are now and on which machine is decided now.
    where = settings.dataset.model_copy(update={"probe": trained.settings.dataset.probe})
    dataset = load_skeleton_set(where, trained.settings.runtime.seed)
    if fingerprint_sequences(dataset.train) != trained.description["sequences"]:
        raise CsipError(
            f"{path}: trained on other sequences (data set {trained.description['dataset']}) than the training part of "
            f"{dataset.name} in {dataset.root}: its probe may be among them; train again on this data set"
        )
    fabric = make_fabric(settings.runtime)
    if fabric.world_size > 1:
        raise CsipError(
            "models of skeletons alone are evaluated by one process: start `csip evaluate` without torchrun"
        )
    device = fabric.device
    root = joint_set(dataset.joint_set).root
    probe, gallery = (windows(part, chosen.frames) for part in (dataset.probe, dataset.gallery))
    described = {
        BASELINE: [_bones(part[0], dataset.joint_set) for part in (probe, gallery)],
        "trained": [embed_windows(trained.model, part[0], root, device) for part in (probe, gallery)],
    }
    rows: dict[str, Any] = {"chance": _chance(dataset, probe[1], gallery[1])}
    for label, (asked, found) in described.items():
        rows[label] = _score(asked, found, dataset, probe[1], gallery[1], device)
    result = {
        "kind": "skeletons",
        "dataset": dataset.name,
        "protocol": {
            "split": dataset.protocol,
            "frames": chosen.frames,
            "probe_windows": len(probe[0]),
            "gallery_windows": len(gallery[0]),
            "probe_sequences": len(dataset.probe),
            "gallery_sequences": len(dataset.gallery),
            "windows": "consecutive, not overlapping, every one counted",
            "removed": "nothing: no camera filter",
            "tracklet": "the mean of a sequence's windows",
        },
        "model": digest(path),
        "figures": rows["trained"],
        "compared": {label: row for label, row in rows.items() if label != "trained"},
        "seconds": time.monotonic() - started,
    }
    out = run_folder / "metrics.json"
    write_json(out, result)
    console.print(figures_table(result))
    console.print(f"evaluate: {result['seconds']:.0f} s -> {out}")


def _bones(joints: np.ndarray, joints_name: str) -> np.ndarray:
    return bone_lengths(torch.from_numpy(joints), joint_set(joints_name)).numpy()


def pool(entries: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Average the rows (W, E) of each sequence: (sequences, E)."""
    count = np.bincount(owners)
    sums = np.zeros((len(count), entries.shape[1]))
    np.add.at(sums, owners, entries)
    return sums / count[:, None]


def _ids(sequences: tuple[SkeletonSequence, ...], owners: np.ndarray) -> np.ndarray:
    return np.array([s.pid for s in sequences])[owners]


def _score(
    asked: np.ndarray,
    found: np.ndarray,
    dataset: SkeletonDataset,
    probe_owners: np.ndarray,
    gallery_owners: np.ndarray,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    every = np.arange(len(dataset.probe)), np.arange(len(dataset.gallery))
    levels = {
        "window": (asked, found, probe_owners, gallery_owners),
        "tracklet": (pool(asked, probe_owners), pool(found, gallery_owners), *every),
    }
    result = {}
    for level, (left, right, left_owners, right_owners) in levels.items():
        left_ids, right_ids = _ids(dataset.probe, left_owners), _ids(dataset.gallery, right_owners)
        scores = rank_windows(left, left_ids, right, right_ids, device)
        result[level] = {f"rank{k}": scores.cmc[k] for k in RANKS} | {
            "map": scores.map,
            "probes": len(left),
            "valid_probes": scores.valid_queries,
        }
    return result


def _chance(
    dataset: SkeletonDataset, probe_owners: np.ndarray, gallery_owners: np.ndarray
) -> dict[str, dict[str, float]]:
    every = np.arange(len(dataset.probe)), np.arange(len(dataset.gallery))
    result = {}
    for level, (left, right) in {"window": (probe_owners, gallery_owners), "tracklet": every}.items():
        ids = _ids(dataset.probe, left), _ids(dataset.gallery, right)
        expected = chance(ids[0], np.zeros_like(ids[0]), ids[1], np.zeros_like(ids[1]), camera_filter=False)
        result[level] = {f"rank{k}": expected.cmc[k] for k in RANKS} | {"map": expected.map}
    return result


def _rows(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    rows = [*result["compared"].items(), ("trained", result["figures"])]
    keys = [("window", key) for key in ("rank1", "rank5", "rank10", "map")] + [
        ("tracklet", "rank1"),
        ("tracklet", "map"),
    ]
    return [(label, [f"{100 * row[level][key]:.1f}" for level, key in keys]) for label, row in rows]


COLUMNS = ("Rank-1", "Rank-5", "Rank-10", "mAP", "whole sequences: Rank-1", "mAP")


def _title(result: dict[str, Any]) -> str:
    protocol, window = result["protocol"], result["figures"]["window"]
    return (
        f"{result['dataset']}, {protocol['split']}: {window['valid_probes']} valid probe windows of "
        f"{protocol['probe_windows']} ({protocol['frames']} frames) against {protocol['gallery_windows']}, "
        f"{protocol['probe_sequences']} sequences against {protocol['gallery_sequences']}"
    )


def figures_table(result: dict[str, Any]) -> Table:
    """Lay out ``metrics.json`` for people, in per cent."""
    table = Table(title=_title(result), title_justify="left")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for label, cells in _rows(result):
        table.add_row(label, *cells, style="bold" if label == "trained" else "")
    return table


def report(result: dict[str, Any], run_folder: Path) -> None:
    """Write ``RUN/report.md`` from ``metrics.json`` and what training left."""
    trained = json.loads((run_folder / FOLDER / "metrics.json").read_text())
    lines = [f"# {plain(result['dataset'])}: people by their skeletons alone", "", plain(_title(result)) + ".", ""]
    lines += ["| model | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [
        f"| {'**trained**' if label == 'trained' else label} | {' | '.join(cells)} |" for label, cells in _rows(result)
    ]
    chosen = "on held-out training sequences" if trained["validation"] else "as the last one"
    lines += [
        "",
        f"Windows: {result['protocol']['windows']}. Epoch {trained['chosen_epoch']}, chosen {chosen}. "
        f"Training {trained['seconds']:.0f} s, evaluation {result['seconds']:.0f} s.",
        "",
        "Training curves: " + code(f".venv/bin/tensorboard --logdir {shlex.quote(str(run_folder))}"),
        "",
    ]
    out = run_folder / "report.md"
    write_text(out, "\n".join(lines))
    console.print(f"report -> {out}")
