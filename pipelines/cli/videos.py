"""The command that turns videos into a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def ingest(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, searched to its depth, or one video.")],
    out: Annotated[Path, typer.Option(help="The data set's folder, data/NAME.")],
    detector: Annotated[
        Literal["auto", "rtmdet", "hog", "boxes"],
        typer.Option(help="Who finds people; auto is rtmdet where its weights can be had, else hog."),
    ] = "auto",
    boxes: Annotated[
        Path | None, typer.Option(help="Folder of files of boxes, if not beside the videos.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights of a detector of mmdet, if not RTMDet's.", show_default=False)
    ] = None,
    detector_config: Annotated[
        Path | None, typer.Option(help="Its config, if not RTMDet-m for people.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="Of rtmdet: auto, cpu, cuda:0, ...")] = "auto",
    batch: Annotated[int, typer.Option(help="Frames that rtmdet is given at once.", min=1)] = 8,
    smallest: Annotated[
        float,
        typer.Option(
            help="hog: smallest person, as a share of the picture's height; half takes four times as long.",
            min=0.02,
            max=1,
        ),
    ] = 0.3,
    threads: Annotated[
        int | None, typer.Option(help="hog: frames at once, if not one a processor.", show_default=False, min=1)
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Regular expression that finds the camera in a video's path, if not its folder.")
    ] = None,
    rate: Annotated[
        float,
        typer.Option(help="Looks for people a second of video; boxes between are interpolated. 0: every frame.", min=0),
    ] = 10.0,
    min_frames: Annotated[int, typer.Option(help="Crops that a tracklet needs.", min=1)] = 10,
    min_height: Annotated[int, typer.Option(help="Height that a box needs, pixels.", min=1)] = 48,
    min_width: Annotated[int, typer.Option(help="Width that a box needs, pixels.", min=1)] = 16,
    max_gap: Annotated[
        float, typer.Option(help="Seconds out of sight after which a person's next tracklet begins.", min=0)
    ] = 1.0,
    max_overlap: Annotated[
        float, typer.Option(help="Share of a box that nearer people may cover.", min=0, max=1)
    ] = 0.5,
    min_change: Annotated[
        float,
        typer.Option(help="Share of a box that must differ from the background at least once; 0: any.", min=0, max=1),
    ] = 0.2,
    min_score: Annotated[float, typer.Option(help="Mean score that a track needs.", min=0, max=1)] = 0.0,
    max_jump: Annotated[
        float, typer.Option(help="Boxes so many times as high as around them are interpolated.", min=1)
    ] = 1.5,
    smooth: Annotated[float, typer.Option(help="Seconds over which boxes are smoothed.", min=0)] = 0.5,
    margin: Annotated[float, typer.Option(help="Margin of a crop, as a share of the box's side.", min=0)] = 0.0,
    force: Annotated[
        bool, typer.Option("--force", help="Make a data set anew that was made with other options.")
    ] = False,
) -> None:
    """Find the people of videos and cut out their tracklets; goes on where it was stopped.

    The exit code is 0 where at least one video could be read. Where the boxes that are given have tracks, tracklets are
    those tracks, and no rule is applied to them.
    """
    from csip.video.ingestion import IngestOptions
    from csip.video.tracklets import TrackletRules
    from pipelines import ingest_videos as stage

    rules = TrackletRules(
        min_frames=min_frames, min_height=min_height, min_width=min_width, max_gap=max_gap, max_overlap=max_overlap,
        min_change=min_change, min_score=min_score, max_jump=max_jump, smooth=smooth,
    )  # fmt: skip
    finder = stage.DetectorOptions(
        name=detector, boxes=boxes, config=detector_config, checkpoint=checkpoint, device=device, batch=batch,
        smallest=smallest, threads=threads,
    )  # fmt: skip
    stage.run(videos, out, finder, IngestOptions(rate=rate, margin=margin, rules=rules), camera, force)


def register(app: typer.Typer) -> None:
    """Add this file's command to the program."""
    app.command()(ingest)
