"""The stage-2 stage of the chain."""

from __future__ import annotations

from pathlib import Path

from csip.config import Settings
from csip.data.readers import load_labelled
from csip.training.stage2 import train_stage2
from pipelines.console import RichMonitor, console, is_first_process


def run(settings: Settings, skeletons: Path, run_folder: Path, overwrite: bool) -> None:
    """Train the re-identification model from ``RUN/stage1``; write ``RUN/stage2``."""
    dataset = load_labelled(settings.dataset, "training")
    with RichMonitor() as monitor:
        result = train_stage2(
            dataset, skeletons, run_folder / "stage1", settings, run_folder / "stage2", monitor, overwrite
        )
    if not is_first_process():
        return
    console.print(
        f"stage 2: epoch {result.chosen_epoch} of {settings.stage2.epochs} kept, {result.seconds:.0f} s "
        f"-> {run_folder / 'stage2'}"
    )
    for validation in result.validation:
        console.print(f"  epoch {validation.epoch}: mAP on held-out training identities {validation.map:.1%}")
    for weight, score in result.f4_map.items():
        console.print(f"  predicted skeletons weigh {weight:g}: mAP on held-out training identities {score:.1%}")
