"""Commands from videos to people found in them: ingest, describe tracklets, search, cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.cli.options import (
    VIDEOS,
    Backend,
    Config,
    Dataset,
    Descriptors,
    Detector,
    Merge,
    Model,
    Onnx,
    Root,
    Run,
    Set,
    Shard,
    SpreadWorkers,
    spread_of,
)

if TYPE_CHECKING:
    from csip.retrieval.search import Cameras

Videos = Annotated[Path, typer.Argument(help="Folder of videos, searched recursively, or one video.")]
Out = Annotated[Path, typer.Option(help="Folder of the data set to write: data/NAME.")]
Finder = Annotated[
    Detector, typer.Option(help="Person detector; auto: rtmdet if its weights are available, otherwise hog.")
]
Boxes = Annotated[Path | None, typer.Option(help="Folder of box files.", show_default="beside the videos")]
BoxesFormat = Annotated[
    Literal["auto", "mot", "mot-gt", "tracker", "visdrone", "yolo", "coco"],
    typer.Option(help="Format of the box files, if it is not recognised; see docs/videos.md."),
]
BoxesCoordinates = Annotated[
    Literal["auto", "xywh", "xyxy", "cxcywh"],
    typer.Option(help="Coordinates in the box files, if they are not recognised."),
]
BoxesFirstFrame = Annotated[
    int | None,
    typer.Option(
        help="Number of the first frame in the box files.", show_default="0 if there is a frame 0, otherwise 1", min=0
    ),
]
BoxesClasses = Annotated[
    str | None,
    typer.Option(help="Comma-separated classes that are people, e.g. 0 or person,rider.", show_default="recognised"),
]
BoxesPicture = Annotated[
    str, typer.Option(help="Picture that box coordinates refer to: display, coded, or WIDTHxHEIGHT.")
]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights of an MMDetection detector.", show_default="RTMDet's")]
DetectorConfig = Annotated[
    Path | None, typer.Option(help="Config of the detector.", show_default="RTMDet-m for people")
]
Device = Annotated[str, typer.Option(help="rtmdet: device, e.g. auto, cpu, cuda:0.")]
Batch = Annotated[int, typer.Option(help="rtmdet: frames per batch.", min=1)]
Smallest = Annotated[
    float,
    typer.Option(
        help="hog: smallest person as a share of the picture's height; half of it takes four times as long.",
        min=0.02,
        max=1,
    ),
]
Threads = Annotated[int | None, typer.Option(help="hog: frames in parallel.", show_default="one per core", min=1)]
Camera = Annotated[
    str | None, typer.Option(help="Regular expression for the camera in a video's path.", show_default="its folder")
]
Rate = Annotated[
    float, typer.Option(help="Detections per second of video; boxes between are interpolated. 0: every frame.", min=0)
]
MinFrames = Annotated[int, typer.Option(help="Fewest crops of a tracklet.", min=1)]
MinHeight = Annotated[int, typer.Option(help="Smallest height of a box in pixels.", min=1)]
MinWidth = Annotated[int, typer.Option(help="Smallest width of a box in pixels.", min=1)]
MaxGap = Annotated[float, typer.Option(help="Longest time out of sight within a tracklet in seconds.", min=0)]
MaxOverlap = Annotated[float, typer.Option(help="Largest share of a box covered by nearer people.", min=0, max=1)]
MinChange = Annotated[
    float,
    typer.Option(help="Smallest share of a box that differs from the background at least once; 0: any.", min=0, max=1),
]
MinScore = Annotated[float, typer.Option(help="Smallest mean score of a track.", min=0, max=1)]
MaxJump = Annotated[
    float,
    typer.Option(help="Largest ratio of a box's height to its neighbours'; larger boxes are interpolated.", min=1),
]
Smooth = Annotated[float, typer.Option(help="Smoothing window of boxes in seconds.", min=0)]
Margin = Annotated[float, typer.Option(help="Margin of a crop as a share of the box's side.", min=0)]
Force = Annotated[bool, typer.Option("--force", help="Replace a data set that was made with other options.")]

app = typer.Typer()


@app.command(rich_help_panel=VIDEOS)
def ingest(
    videos: Videos,
    out: Out,
    detector: Finder = "auto",
    boxes: Boxes = None,
    boxes_format: BoxesFormat = "auto",
    boxes_coordinates: BoxesCoordinates = "auto",
    boxes_first_frame: BoxesFirstFrame = None,
    boxes_classes: BoxesClasses = None,
    boxes_picture: BoxesPicture = "auto",
    checkpoint: Checkpoint = None,
    detector_config: DetectorConfig = None,
    device: Device = "auto",
    batch: Batch = 8,
    smallest: Smallest = 0.3,
    threads: Threads = None,
    camera: Camera = None,
    rate: Rate = 10.0,
    min_frames: MinFrames = 10,
    min_height: MinHeight = 48,
    min_width: MinWidth = 16,
    max_gap: MaxGap = 1.0,
    max_overlap: MaxOverlap = 0.5,
    min_change: MinChange = 0.2,
    min_score: MinScore = 0.0,
    max_jump: MaxJump = 1.5,
    smooth: Smooth = 0.5,
    margin: Margin = 0.0,
    workers: SpreadWorkers = 1,
    backend: Backend = None,
    shard: Shard = None,
    merge: Merge = False,
    force: Force = False,
) -> None:
    """Detect and track people in videos, and cut out their tracklets.

    If the boxes have track numbers, the tracklets are those tracks, and no rule is applied to them. An interrupted command
    resumes when you rerun it. The exit code is 0 if at least one video was read.

    Example:
      csip ingest videos --out data/hall
      csip ingest videos --out data/hall --detector boxes --boxes mot
      csip ingest videos --out data/hall --shard 1/8
    """
    from csip.video.box_raw import BoxesOptions
    from csip.video.ingest import DetectorOptions
    from csip.video.one_video import IngestOptions
    from csip.video.tracklets import TrackletRules
    from pipelines import ingest_videos as stage

    reading = BoxesOptions(
        format=boxes_format, coordinates=boxes_coordinates, first_frame=boxes_first_frame,
        classes=tuple(map(str.strip, boxes_classes.split(","))) if boxes_classes else None, picture=boxes_picture,
    )  # fmt: skip
    rules = TrackletRules(
        min_frames=min_frames, min_height=min_height, min_width=min_width, max_gap=max_gap, max_overlap=max_overlap,
        min_change=min_change, min_score=min_score, max_jump=max_jump, smooth=smooth,
    )  # fmt: skip
    finder = DetectorOptions(
        name=detector, boxes=boxes, config=detector_config, checkpoint=checkpoint, device=device, batch=batch,
        smallest=smallest, threads=threads, reading=reading,
    )  # fmt: skip
    spread = spread_of(workers, backend, shard, merge)
    stage.run(videos, out, finder, IngestOptions(rate=rate, margin=margin, rules=rules), camera, force, spread)


@app.command(rich_help_panel=VIDEOS)
def embed(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    model: Model = None,
    onnx: Onnx = None,
    part: Annotated[
        Literal["test", "all"], typer.Option(help="Tracklets: query and gallery, or also those of training.")
    ] = "test",
    out: Annotated[
        Path | None, typer.Option(help="File to write, .h5 or .npz.", show_default="RUN/descriptors.h5")
    ] = None,
    workers: SpreadWorkers = 1,
    backend: Backend = None,
    shard: Shard = None,
    merge: Merge = False,
    set_: Set = None,
) -> None:
    """Compute the descriptors of tracklets with a trained model.

    An interrupted command resumes when you rerun it.

    Example:
      csip embed --dataset hall --model runs/mars
      csip embed --dataset hall --model runs/mars --shard 1/8
    """
    from pipelines import embed_tracklets as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    spread = spread_of(workers, backend, shard, merge)
    stage.run(settings, paths.run_folder(settings, run), model, onnx, part, out, spread)


@app.command(rich_help_panel=VIDEOS)
def search(
    query: Annotated[
        str | None, typer.Argument(help="Tracklet, folder of images of one person, or video.", show_default=False)
    ] = None,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    top: Annotated[int, typer.Option(help="Tracklets to show.", min=1)] = 10,
    everybody: Annotated[bool, typer.Option("--all", help="Every tracklet as a query; for --out or --json.")] = False,
    same_camera: Annotated[bool, typer.Option("--same-camera", help="Only tracklets of the query's camera.")] = False,
    other_cameras: Annotated[bool, typer.Option("--other-cameras", help="Only tracklets of other cameras.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.", show_default=False)] = None,
    model: Model = None,
    onnx: Onnx = None,
    found: Descriptors = None,
    detector: Annotated[Detector, typer.Option(help="Person detector for a query video, as in `csip ingest`.")] = "hog",
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes of a query video, as in `csip ingest`.", show_default=False)
    ] = None,
    set_: Set = None,
) -> None:
    """Rank the tracklets of a data set by similarity to a query.

    Example:
      csip search "front/0001 track 3" --dataset hall --model runs/mars
      csip search --all --dataset hall --out runs/hall/search.csv
    """
    from csip.errors import CsipError
    from pipelines import paths
    from pipelines import search_gallery as stage

    if (query is None) != everybody:
        raise CsipError("give a query: a tracklet's name, a folder of images or a video; or --all")
    if same_camera and other_cameras:
        raise CsipError("--same-camera and --other-cameras leave nothing: give one of them")
    settings = paths.settings_for(dataset, config, root, set_ or [])
    cameras: Cameras = "same" if same_camera else "other" if other_cameras else "any"
    stage.run(
        stage.Request(query, top, cameras, as_json, out),
        settings,
        stage.Source(paths.run_folder(settings, run), model, onnx, detector, boxes),
        found,
    )


@app.command(rich_help_panel=VIDEOS)
def cluster(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Largest mean distance, 1 - cosine, within a cluster.", show_default="of the best silhouette"
        ),
    ] = None,
    people: Annotated[int | None, typer.Option(help="Number of people, if known.", show_default=False)] = None,
    found: Descriptors = None,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="labels.csv in the data set")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace labels that were edited.")] = False,
    set_: Set = None,
) -> None:
    """Propose identities across cameras: writes labels.csv, for you to correct.

    Training reads labels.csv. If the data set has identities already, the proposal goes into RUN/labels.csv and is compared
    with them.

    Example:
      csip cluster --dataset hall
      csip cluster --dataset hall --people 12
    """
    from pipelines import cluster_people as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), found, threshold, people, out, force)


@app.command(rich_help_panel=VIDEOS)
def review(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="Model of another run to describe the tracklets with, e.g. after a training round.",
            show_default="the descriptors of `csip embed`",
        ),
    ] = None,
    found: Descriptors = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Largest mean distance, 1 - cosine, within a proposed person.", show_default="of the best silhouette"
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.", show_default="any free one", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    simulate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Answer from --truth instead, with this share of wrong answers.", show_default=False
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Folder gt of rendered videos, for --simulate.", show_default=False)
    ] = None,
    set_: Set = None,
) -> None:
    """Review proposed identities in the browser: answers which tracklets are the same person, and writes labels.csv.

    Every answer is kept in review.jsonl in the data set. The command continues where it was stopped.

    Example:
      csip review --dataset hall
      csip review --dataset hall --model runs/hall-split
      csip review --dataset hall --simulate 0.03 --truth scenes/gt
    """
    from csip.errors import CsipError
    from pipelines import paths
    from pipelines import review_tracklets as stage

    if (simulate is None) != (truth is None):
        raise CsipError("--simulate and --truth go together: give both, or neither")
    settings = paths.settings_for(dataset, config, root, set_ or [])
    source = stage.Source(paths.run_folder(settings, run), found, model, threshold)
    if simulate is not None and truth is not None:
        from pipelines import simulate_review

        simulate_review.run(settings, source, truth, simulate)
        return
    stage.run(settings, source, port, browser)


@app.command(rich_help_panel=VIDEOS)
def split(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the data set to write.", show_default="data/NAME-split")
    ] = None,
    train_share: Annotated[
        float, typer.Option(help="Share of the people seen by two cameras or more who train.", min=0, max=1)
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    set_: Set = None,
) -> None:
    """Divide a reviewed data set into train, query and gallery.

    People are in one part only. People of one camera train. Each tracklet of a tested person is a query and is ranked against
    the other cameras. The frames are links to those of the reviewed data set.

    Example:
      csip split --dataset hall
    """
    from pipelines import paths
    from pipelines import split_dataset as stage

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, out, train_share, seed)
