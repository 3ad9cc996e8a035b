"""The stage-1 stage of the chain."""

from __future__ import annotations

from pathlib import Path

from csip.config import Settings
from csip.data.readers import load_labelled
from csip.training.stage1 import train_stage1
from pipelines.console import RichMonitor, console


def run(settings: Settings, skeletons: Path, run_folder: Path, overwrite: bool) -> None:
    """Train the skeleton encoder against the frozen image encoder; write ``RUN/stage1``."""
    dataset = load_labelled(settings.dataset, "training")
    with RichMonitor() as monitor:
        figures = train_stage1(dataset, skeletons, settings, run_folder / "stage1", monitor, overwrite)
    if not figures:
        return  # one of several processes; the first one speaks for all
    console.print(f"stage 1: loss {figures['loss']:.3f}, {figures['seconds']:.0f} s -> {run_folder / 'stage1'}")
    retrieval = figures["retrieval"]
    if retrieval is None:
        console.print("  dataset.val_ids is 0: no held-out identities to measure skeleton-to-image retrieval on")
    else:
        console.print(
            f"  skeleton -> image, held-out identities, other cameras: Rank-1 {retrieval['rank1']:.1%}, "
            f"mAP {retrieval['map']:.1%} ({retrieval['queries']} queries; chance mAP {retrieval['chance_map']:.1%})"
        )
