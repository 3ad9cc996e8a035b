"""The stage that makes videos of rendered people, to try the chain from videos on where the truth is known."""

from __future__ import annotations

import time
from pathlib import Path

from csip.errors import CsipError
from csip.synthetic.videos import SceneSpec, render_videos
from pipelines.console import RichMonitor, console


def run(out: Path, spec: SceneSpec, workers: int, force: bool) -> None:
    """Render into ``out``, which must be new or empty unless ``force``."""
    if out.exists() and any(out.iterdir()):
        if not force:
            raise CsipError(f"{out}: not empty; give --force to replace its content, or another --out folder")
        if not (out / "scenes.json").exists():
            raise CsipError(
                f"{out}: expected rendered videos, found other files; --force replaces only rendered videos"
            )
    started = time.monotonic()
    with RichMonitor() as monitor:
        render_videos(out, spec, workers, monitor, replace=force)
    console.print(
        f"synth-videos: {spec.cameras} videos of {spec.seconds:g} s and {spec.people} people, "
        f"{time.monotonic() - started:.0f} s -> {out}"
    )
