"""The stage that makes a data set of rendered people."""

from __future__ import annotations

import json
import time
from pathlib import Path

from csip.errors import CsipError
from csip.synthetic.world import SyntheticSpec, render_mars
from pipelines.console import RichMonitor, console


def run(out: Path, spec: SyntheticSpec, workers: int, force: bool) -> None:
    """Render into ``out``, which must be new or empty unless ``force``."""
    if out.exists() and any(out.iterdir()) and not force:
        raise CsipError(f"{out}: is not empty; give --force to replace what is there, or another --out folder")
    if out.exists() and any(out.iterdir()) and not (out / "truth.npz").exists():
        raise CsipError(f"{out}: holds something else than rendered people; --force replaces only those")
    started = time.monotonic()
    with RichMonitor() as monitor:
        render_mars(
            out, spec, workers, lambda done, total: monitor.progress("rendering frames", done, total), replace=force
        )
    seconds = time.monotonic() - started
    crops = sum(1 for part in ("bbox_train", "bbox_test") for _ in (out / part).glob("*/*.jpg"))
    (out / "synth.json").write_text(json.dumps({"crops": crops, "seconds": seconds}))
    console.print(f"synth: {crops:,} crops of {spec.train_ids} + {spec.test_ids} people, {seconds:.0f} s -> {out}")
