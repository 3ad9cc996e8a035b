"""The commands that look for people: describe tracklets, search among them, propose who is who."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.options import Config, Dataset, Root, Run, Set

Model = Annotated[
    Path | None, typer.Option("--model", help="Another run's model, RUN/stage2, if not this run's.", show_default=False)
]
Onnx = Annotated[
    Path | None,
    typer.Option("--onnx", help="The model as `csip export` wrote it, for onnxruntime.", show_default=False),
]
Found = Annotated[
    Path | None, typer.Option("--descriptors", help="Their file, if not RUN/descriptors.h5.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (embed, search, cluster):
        app.command()(command)


def embed(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    model: Model = None,
    onnx: Onnx = None,
    part: Annotated[
        Literal["test", "all"], typer.Option(help="test: query and gallery; all: also the training tracklets.")
    ] = "test",
    out: Annotated[
        Path | None, typer.Option(help="The file, .h5 or .npz, if not RUN/descriptors.h5.", show_default=False)
    ] = None,
    set_: Set = None,
) -> None:
    """Describe tracklets by a trained model; goes on where it was stopped."""
    from pipelines import embed_tracklets as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), model, onnx, part, out)


def search(
    query: Annotated[
        str | None,
        typer.Argument(help="A tracklet's name, a folder of images of one person, or a video.", show_default=False),
    ] = None,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    top: Annotated[int, typer.Option(help="How many tracklets to show.", min=1)] = 10,
    everybody: Annotated[bool, typer.Option("--all", help="Every tracklet is a query; for --out or --json.")] = False,
    same_camera: Annotated[bool, typer.Option("--same-camera", help="Only of the query's camera.")] = False,
    other_cameras: Annotated[bool, typer.Option("--other-cameras", help="Only of other cameras.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    out: Annotated[Path | None, typer.Option(help="A CSV file for the result.", show_default=False)] = None,
    model: Model = None,
    onnx: Onnx = None,
    found: Found = None,
    detector: Annotated[
        Literal["auto", "rtmdet", "hog", "boxes"], typer.Option(help="Who finds people in a video, as `csip ingest`.")
    ] = "hog",
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes of a video, as `csip ingest` reads them.", show_default=False)
    ] = None,
    set_: Set = None,
) -> None:
    """Find the tracklets that look most like a query."""
    from csip.errors import CsipError
    from pipelines import paths
    from pipelines import search_gallery as stage

    if (query is None) != everybody:
        raise CsipError("give a query: a tracklet's name, a folder of images or a video; or --all")
    if same_camera and other_cameras:
        raise CsipError("--same-camera and --other-cameras leave nothing: give one of them")
    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(
        query,
        settings,
        stage.Source(paths.run_folder(settings, run), model, onnx, detector, boxes),
        found,
        top,
        "same" if same_camera else "other" if other_cameras else "any",
        as_json,
        out,
    )


def cluster(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Join up to this mean distance, 1 - cosine, instead of the best silhouette's.", show_default=False
        ),
    ] = None,
    people: Annotated[int | None, typer.Option(help="How many people there are, if known.", show_default=False)] = None,
    found: Found = None,
    out: Annotated[
        Path | None, typer.Option(help="The file, if not labels.csv in the data set.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace labels that somebody has changed.")] = False,
    set_: Set = None,
) -> None:
    """Propose who is who over cameras; writes labels.csv, to be corrected by a person and read by training.

    Where the data set knows people already, the proposal goes into RUN/labels.csv and is compared with them.
    """
    from pipelines import cluster_people as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), found, threshold, people, out, force)
