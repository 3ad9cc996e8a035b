"""The stage that trains re-identification from skeletons alone."""

from __future__ import annotations

from pathlib import Path

from csip.config import Settings
from csip.data.skeleton_readers import load_skeleton_set
from csip.training.skeletons_alone import train_skeleton
from pipelines.console import RichMonitor, console

FOLDER = "skeleton"  # of the run


def run(settings: Settings, run_folder: Path, overwrite: bool, init: Path | None) -> None:
    """Train on the training sequences of a data set; write ``RUN/skeleton``."""
    dataset = load_skeleton_set(settings.dataset, settings.runtime.seed)
    people = len({s.pid for s in dataset.train})
    console.print(
        f"{dataset.name}, {dataset.protocol}: {len(dataset.train)} training sequences of {people} people, "
        f"{len(dataset.probe)} probe, {len(dataset.gallery)} gallery"
    )
    with RichMonitor() as monitor:
        result = train_skeleton(dataset, settings, run_folder / FOLDER, monitor, overwrite, init)
    chosen = "the last one" if not result.validation else "chosen on held-out training sequences"
    console.print(
        f"train-skeleton: epoch {result.chosen_epoch} ({chosen}), {result.seconds:.0f} s -> {run_folder / FOLDER}"
    )
