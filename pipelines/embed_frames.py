"""The part of stage 1 that looks at pictures, on its own: what the frozen image encoder says of every training frame."""

from __future__ import annotations

import time
from pathlib import Path

from csip.config import Settings
from csip.data.readers import load_labelled
from csip.runtime import make_fabric, only_first
from csip.training.stage1 import FEATURES, fill_features
from pipelines.advice import share_done
from pipelines.console import RichMonitor, console
from pose_cache.pieces import Spread


def run(settings: Settings, run_folder: Path, spread: Spread | None = None) -> None:
    """Fill the feature cache ``RUN/stage1/features.h5``; an interrupted run resumes.

    Parameters
    ----------
    spread
        Who does the work, and which share of it; this process by default, or all that ``torchrun`` has started.
    """
    started, spread = time.monotonic(), spread or Spread()
    dataset = load_labelled(settings.dataset, "training")
    folder, fabric = run_folder / "stage1", make_fabric(settings.runtime)
    with RichMonitor() as monitor:
        features = fill_features(dataset, settings, folder, spread, fabric, only_first(monitor, fabric))
    if not fabric.is_global_zero:
        return
    if features is None:
        assert spread.share is not None
        console.print(f"frame features: {share_done(spread.share, folder / FEATURES)}", soft_wrap=True)
        return
    frames = sum(len(tracklet) for tracklet in features)
    console.print(
        f"frame features: {len(features):,} tracklets, {frames:,} frames of {features[0].shape[1]} values each, "
        f"{time.monotonic() - started:.0f} s -> {folder / FEATURES}"
    )
