"""The stage that turns a folder of videos into a data set of tracklets."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from csip.video.ingest import DetectorOptions, IngestResult, ingest
from csip.video.one_video import IngestOptions
from pipelines.advice import advice, share_done
from pipelines.console import RichMonitor, console
from pose_cache.pieces import Spread


def run(
    videos: Path,
    out: Path,
    detector: DetectorOptions | None = None,
    options: IngestOptions | None = None,
    camera: str | None = None,
    force: bool = False,
    spread: Spread | None = None,
) -> IngestResult:
    """Ingest (see `csip.video.ingest.ingest`), and say what has come of it."""
    share = spread.share if spread else None
    with RichMonitor() as monitor:
        result = ingest(videos, out, detector, options, camera, force, monitor, spread)
    _show(result)
    if share is None:
        console.print(f"ingest -> {out}/tracklets.csv")
    else:
        console.print(share_done(share, out / "tracklets.csv"), soft_wrap=True)
    return result


def _show(result: IngestResult) -> None:
    table = Table(show_header=False, box=None)
    passed_over = f"{len(result.skipped)} passed over" + "".join(
        sorted({advice(one.parameter) for one in result.skipped})
    )
    pace = f"{result.frames_per_second or 0:,.1f} frames/s, {result.real_time_factor or 0:.1f} x real time"
    lines = [
        ("videos", f"{result.ingested} of {result.videos}, {passed_over}"),
        ("frames", f"{result.frames:,}, {result.seconds:,.0f} s; {pace}"),
        ("cameras", ", ".join(result.cameras[:8]) + (" ..." if len(result.cameras) > 8 else "")),
        ("tracklets", f"{result.tracklets:,} with {result.crops:,} crops ({result.detector})"),
        *(("boxes", f"{reading} ({count} of {result.ingested} videos)") for reading, count in result.boxes.items()),
        ("left out", ", ".join(f"{key} {count:,}" for key, count in sorted(result.dropped.items())) or "nothing"),
    ]
    for what, value in lines:
        table.add_row(what, value)
    console.print(table)
    if result.ingested and not result.tracklets:
        console.print(
            "no tracklets: nobody was found, or the rules leave everybody out (see `csip ingest --help`: --smallest, "
            "--min-frames, --min-height)"
        )
