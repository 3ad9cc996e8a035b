"""The stage-1 stage of the chain."""

from __future__ import annotations

from pathlib import Path

from csip.config import Settings
from csip.data.readers import load_labelled
from csip.training.stage1 import train_stage1
from pipelines.console import RichMonitor, console, is_first_process


def run(settings: Settings, skeletons: Path, run_folder: Path, overwrite: bool) -> None:
    """Train the skeleton encoder against the frozen image encoder; write ``RUN/stage1``."""
    dataset = load_labelled(settings.dataset, "training")
    with RichMonitor() as monitor:
        result = train_stage1(dataset, skeletons, settings, run_folder / "stage1", monitor, overwrite)
    if not is_first_process():
        return
    console.print(f"stage 1: loss {result.loss:.3f}, {result.seconds:.0f} s -> {run_folder / 'stage1'}")
    retrieval = result.retrieval
    if retrieval is None:
        console.print("  dataset.val_ids is 0: no held-out identities to measure skeleton-to-image retrieval on")
    else:
        console.print(
            f"  skeleton -> image, held-out identities, other cameras: Rank-1 {retrieval.rank1:.1%}, "
            f"mAP {retrieval.map:.1%} ({retrieval.queries} queries; chance mAP {retrieval.chance_map:.1%})"
        )
