"""What each part of the method adds: the same training with parts left out, over several seeds, in one table.

The rows add one part at a time. Each row and seed is a run of its own below the output folder, trained and scored as the
stages do it; finished runs are kept, and an interrupted study resumes. Runs are parallel, one process each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.fingerprints import TrainingData, evaluation_data
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.files import atomic, write_json, write_text
from csip.monitor import Silent
from csip.retrieval.evaluation import embed_sides, lookalike_groups, score, side
from csip.training.run_folder import RunFolder
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from pipelines.console import RichMonitor, console

BASELINE = "image branch alone"
# In the order in which they are added; each with the settings that leave it out.
PARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("+ stage 1", {"stage2.lambda_csip": 0.0}),
    ("+ PFU", {"stage2.update_prototypes": False}),
    ("+ MTE", {"stage2.mte": False}),
    ("+ ATD", {"stage2.atd": False}),
    ("+ TA", {"stage2.ta": False}),
    ("+ temporal", {"stage2.frame_position": False, "skeleton_encoder.temporal": False}),
    ("+ distillation", {"stage2.lambda_distill": 0.0}),
)
COLUMNS = (("rank1", "Rank-1"), ("map", "mAP"))


@dataclass(frozen=True)
class Row:
    """One line of the table: the method with some of its parts."""

    label: str
    settings: Settings

    @property
    def folder(self) -> str:
        return self.label.removeprefix("+ ").replace(" ", "-").lower()


def run(settings: Settings, skeletons: Path, out: Path, seeds: Sequence[int], workers: int) -> None:
    """Train and score every row with every seed; write ``ablation.md`` and ``ablation.json`` into ``out``.

    Raises
    ------
    CsipError
        A part is off in the settings to begin with, or a run of other settings or data is in the folder.
    """
    if not skeletons.exists():
        raise CsipError(f"{skeletons}: no such skeleton cache; `csip skeletons` makes it")
    rows = rows_of(settings)
    dataset = load_dataset(settings.dataset)
    data = _data(dataset, skeletons)
    pretrainings = {(first_stage(row.settings, seed, out)) for row in rows for seed in seeds}
    threads = max(torch.get_num_threads() // workers, 1)
    pool = Parallel(n_jobs=workers, return_as="generator_unordered")
    with RichMonitor() as monitor:
        by_place = {
            place: (row, seed) for row in rows for seed in seeds for place in [first_stage(row.settings, seed, out)]
        }
        pretrain = (
            delayed(_pretrain)(seeded(row.settings, seed), skeletons, place, threads)
            for place, (row, seed) in sorted(by_place.items())
        )
        for done, _ in enumerate(pool(pretrain), start=1):
            monitor.progress("stage 1", done, len(pretrainings))
        jobs = [(row, seed) for seed in seeds for row in rows]
        train = (
            delayed(_train)(
                seeded(row.settings, seed), skeletons, first_stage(row.settings, seed, out),
                out / f"seed{seed}" / row.folder, data, threads,
            )
            for row, seed in jobs
        )  # fmt: skip
        for done, _ in enumerate(pool(train), start=1):
            monitor.progress("stage 2", done, len(jobs))
    found = {
        row.label: [
            json.loads((out / f"seed{seed}" / row.folder / "ablation.json").read_text())["figures"] for seed in seeds
        ]
        for row in rows
    }
    result = {"dataset": dataset.name, "seeds": list(seeds), "data": data, "rows": found}
    write_json(out / "ablation.json", result)
    write_text(out / "ablation.md", table(found, seeds))
    console.print(table(found, seeds), markup=False)
    console.print(f"ablation -> {out / 'ablation.md'}, {out / 'ablation.json'}")


def rows_of(settings: Settings) -> list[Row]:
    """Return the rows, the image branch alone first and the whole method last.

    Raises
    ------
    CsipError
        The settings leave a part out, so that the row that adds it would add nothing.
    """
    whole = settings.model_dump()
    for label, off in PARTS:
        missing = next((key for key, value in off.items() if _get(whole, key) == value), None)
        if missing is not None:
            raise CsipError(
                f"{missing} is {_get(whole, missing)} in these settings: the row {label!r} would add nothing"
            )
    labels = [BASELINE, *(label for label, _ in PARTS)]
    rows = []
    for kept, label in enumerate(labels):
        tree = settings.model_dump()
        for _, off in PARTS[kept:]:
            for key, value in off.items():
                section, _, name = key.rpartition(".")
                tree[section][name] = value
        rows.append(Row(label, Settings.model_validate(tree)))
    return rows


def seeded(settings: Settings, seed: int) -> Settings:
    """Return the settings with another seed."""
    return settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"seed": seed})})


def first_stage(settings: Settings, seed: int, out: Path) -> Path:
    """Return the folder of the stage-1 run that a row starts from: one with, one without the order of frames."""
    order = "temporal" if settings.skeleton_encoder.temporal else "frames"
    return out / f"seed{seed}" / f"stage1-{order}"


def table(found: dict[str, list[dict[str, Any]]], seeds: Sequence[int]) -> str:
    """Lay out the metrics as Markdown: mean and standard deviation over the seeds, in per cent."""
    alike = all("lookalikes" in one for row in found.values() for one in row)
    columns: list[tuple[str, tuple[str, ...]]] = [(name, (key,)) for key, name in COLUMNS]
    columns += [(f"look-alikes: {name}", ("lookalikes", key)) for key, name in COLUMNS] if alike else []
    lines = ["| | " + " | ".join(name for name, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for label, figures in found.items():
        cells = []
        for _, path in columns:
            values = [100 * _follow(one, path) for one in figures]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    gains = []
    for name, path in columns:
        last, first = ([100 * _follow(one, path) for one in found[label]] for label in (list(found)[-1], BASELINE))
        each = np.subtract(last, first)
        gains.append(f"{name} {np.mean(each):+.1f} ({', '.join(f'{value:+.1f}' for value in each)})")
    lines += ["", f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}, per cent."]
    lines += [f"The whole method against the {BASELINE}, mean and by seed: {'; '.join(gains)}.", ""]
    return "\n".join(lines)


def _data(dataset: Dataset, skeletons: Path) -> str:
    """Digest of all that the study reads, by content."""
    parts = [TrainingData.of(dataset, skeletons).as_dict(), evaluation_data(dataset)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _pretrain(settings: Settings, skeletons: Path, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    dataset = load_dataset(settings.dataset)
    if (folder / "model.safetensors").exists():
        there = RunFolder(folder, settings, TrainingData.of(dataset, skeletons).as_dict()).differences()
        if there:
            raise CsipError(f"{folder}: a run with other settings or data is here ({there[0]}); give another --out")
        return
    # The image features are the same in every run: whoever is first has made them for all.
    ready = sorted(folder.parent.parent.glob("seed*/stage1-*/model.safetensors"))
    if ready and not (folder / "features.h5").exists():
        with atomic(folder / "features.h5") as temporary:
            shutil.copyfile(ready[0].with_name("features.h5"), temporary)
    train_stage1(dataset, skeletons, settings, folder, Silent())


def _train(settings: Settings, skeletons: Path, stage1: Path, folder: Path, data: str, threads: int) -> None:
    torch.set_num_threads(threads)
    inputs = {"settings": settings.model_dump(mode="json"), "data": data}
    finished = folder / "ablation.json"
    if finished.exists():
        if json.loads(finished.read_text())["inputs"] != inputs:
            raise CsipError(f"{folder}: a run with other settings or data is here; give another --out")
        return
    dataset = load_dataset(settings.dataset)
    if not (folder / "model.safetensors").exists():
        train_stage2(dataset, skeletons, stage1, settings, folder, Silent())
    model = csip.loading.load(
        folder / "model.safetensors", settings.runtime.device, evaluation=settings.evaluation, runtime=settings.runtime
    )
    query, gallery = (side(tracklets, settings) for tracklets in (dataset.query, dataset.gallery))
    (features,) = embed_sides([model.embedder(dataset.name)], dataset.root, query, gallery, Silent())
    metrics = score(*features, query, gallery, lookalike_groups(dataset), settings.evaluation, model.device)
    write_json(finished, {"inputs": inputs, "figures": metrics.as_dict()})


def _get(tree: dict[str, Any], key: str) -> Any:
    return _follow(tree, key.split("."))


def _follow(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
