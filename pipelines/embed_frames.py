"""The part of stage 1 that looks at pictures, on its own: what the frozen image encoder says of every training frame."""

from __future__ import annotations

import time
from pathlib import Path

from csip.config import Settings
from csip.data.readers import load_labelled
from csip.runtime import make_fabric, only_first
from csip.training.stage1 import embed_training_frames
from pipelines.console import RichMonitor, console


def run(settings: Settings, run_folder: Path) -> None:
    """Fill the feature cache ``RUN/stage1/features.h5``; an interrupted run resumes."""
    started = time.monotonic()
    dataset = load_labelled(settings.dataset, "training")
    fabric = make_fabric(settings.runtime)
    with RichMonitor() as monitor:
        features = embed_training_frames(dataset, settings, run_folder / "stage1", fabric, only_first(monitor, fabric))
    if fabric.is_global_zero:
        frames = sum(len(tracklet) for tracklet in features)
        console.print(
            f"frame features: {len(features):,} tracklets, {frames:,} frames of {features[0].shape[1]} values each, "
            f"{time.monotonic() - started:.0f} s -> {run_folder / 'stage1' / 'features.h5'}"
        )
