"""The command line: one command a stage."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import search as cli_search
from pipelines.cli import skeletons as cli_skeletons
from pipelines.cli import videos as cli_video
from pipelines.cli.options import Cache, Config, Dataset, Overwrite, Root, Run, Set
from pipelines.console import errors

INTERRUPTED = 130  # what Typer exits with after Ctrl-C
TERMINATED = 143
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PLACE = (errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Video person re-identification pretrained on 3D skeletons: from frames to ranks.",
)
app.add_typer(cli_skeletons.app, name="skeletons")

# The stages import torch and MMPose, which takes seconds: each command does it when it runs, so that --help is quick.


@app.command()
def demo(
    set_: Set = None,
    train_ids: Annotated[int, typer.Option(help="Rendered people to train on.")] = 96,
    test_ids: Annotated[int, typer.Option(help="Rendered people to test on.")] = 40,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
) -> None:
    """Run the whole chain on rendered people, in the current folder: data/demo, runs/demo and a report card.

    A stage is run again where its output is missing or older than what it is made from.
    """
    from csip.synthetic.world import SyntheticSpec
    from pipelines import run_demo as stage

    stage.run(set_ or [], SyntheticSpec(train_ids=train_ids, test_ids=test_ids), workers)


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("data/demo"),
    seed: Annotated[int, typer.Option(help="Which people, cameras and walks.")] = 0,
    train_ids: Annotated[int, typer.Option(help="People to train on.")] = 96,
    test_ids: Annotated[int, typer.Option(help="People to test on, never trained on.")] = 40,
    cameras: Annotated[int, typer.Option(help="Cameras; each sees everybody.")] = 3,
    tracklets: Annotated[int, typer.Option(help="Walks of a person past a camera.")] = 2,
    frames: Annotated[int, typer.Option(help="Frames a walk.")] = 16,
    height: Annotated[int, typer.Option(help="Height of a crop, pixels.")] = 128,
    width: Annotated[int, typer.Option(help="Width of a crop, pixels.")] = 64,
    twins: Annotated[float, typer.Option(help="Share of the people who have a twin in the same clothing.")] = 0.25,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")] = False,
) -> None:
    """Render walking people in MARS's layout, with the true joints beside."""
    from csip.synthetic.world import SyntheticSpec
    from pipelines import render_tracklets as stage

    spec = SyntheticSpec(
        seed=seed, train_ids=train_ids, test_ids=test_ids, cameras=cameras, tracklets_per_camera=tracklets,
        frames=frames, height=height, width=width, twin_share=twins,
    )  # fmt: skip
    stage.run(out, spec, workers, force)


@app.command()
def synth_videos(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    people: Annotated[int, typer.Option(help="People; every camera sees them all.")] = 8,
    cameras: Annotated[int, typer.Option(help="Cameras, a video each.")] = 2,
    seconds: Annotated[float, typer.Option(help="Length of each video.")] = 20.0,
    visits: Annotated[int, typer.Option(help="Walks of a person past a camera.")] = 1,
    fps: Annotated[int, typer.Option(help="Frames a second.")] = 15,
    height: Annotated[int, typer.Option(help="Height of the picture, pixels; it is 16 : 9.")] = 432,
    seed: Annotated[int, typer.Option(help="Which people, cameras and walks.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")] = False,
) -> None:
    """Render videos in which people cross, come and go; true boxes beside (MOTChallenge), to try `csip ingest`."""
    from csip.synthetic.videos import SceneSpec
    from pipelines import render_videos as stage

    spec = SceneSpec(
        seed=seed, people=people, cameras=cameras, visits=visits, seconds=seconds, fps=fps, height=height
    )  # fmt: skip
    stage.run(out, spec, workers, force)


@app.command()
def embed_frames(
    dataset: Dataset = None, config: Config = None, root: Root = None, run: Run = None, set_: Set = None
) -> None:
    """Fill stage 1's cache of frame features ahead of it; goes on where it was stopped."""
    from pipelines import embed_frames as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run))


@app.command()
def train_stage1(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    skeletons: Cache = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Align the skeleton encoder with the frozen image encoder (contrastive pretraining)."""
    from pipelines import paths
    from pipelines import train_stage1 as stage1

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage1.run(settings, paths.skeleton_file(settings, skeletons), paths.run_folder(settings, run), overwrite)


@app.command()
def train_stage2(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    skeletons: Cache = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune the image encoder with prototypes and skeleton-guided temporal modelling."""
    from pipelines import paths
    from pipelines import train_stage2 as stage2

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage2.run(settings, paths.skeleton_file(settings, skeletons), paths.run_folder(settings, run), overwrite)


@app.command()
def train_skeleton(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    seed: Annotated[
        int | None, typer.Option(help="Which random split, and the random numbers of training.", show_default=False)
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="A stage-1 checkpoint to start from; of another joint set too.", show_default=False),
    ] = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Learn to know people by their skeletons alone (KGBD, BIWI, IAS-Lab, KS20)."""
    from pipelines import paths
    from pipelines import train_skeleton as stage

    changes = [*(set_ or []), *([] if seed is None else [f"runtime.seed={seed}"])]
    settings = paths.settings_for(dataset, config, root, changes)
    stage.train(settings, paths.run_folder(settings, run), overwrite, init)


@app.command()
def evaluate(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    set_: Set = None,
    cross_dataset: Annotated[
        bool,
        typer.Option(
            "--cross-dataset", help="The model may be another data set's; its camera embedding is then left out."
        ),
    ] = False,
) -> None:
    """Rank the gallery for every query: Rank-k, mAP, mINP. Needs no skeletons but for a model of skeletons alone."""
    from csip.data.skeleton_readers import LAYOUTS
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    if settings.dataset.layout in LAYOUTS:
        from pipelines import train_skeleton as skeleton_reid

        skeleton_reid.evaluate(settings, paths.run_folder(settings, run))
        return
    from pipelines import evaluate_run as stage

    stage.run(settings, paths.run_folder(settings, run), cross_dataset)


@app.command()
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A state dict that torch.save wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to make: RUN/stage2.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="What it was trained on: mars, lsvid, ...", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="A settings file, instead of configs/paper/NAME.yaml.", show_default=False),
    ] = None,
    cameras: Annotated[
        str | None,
        typer.Option(help="Cameras of the camera embedding's rows, e.g. 1,2,3; 1 to their number by default."),
    ] = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn stage-2 weights of the method's authors into a run that `csip evaluate` reads."""
    from pipelines import import_checkpoint as stage

    settings = stage.paper_settings(dataset, config, set_ or [])
    stage.run(file, out, settings, stage.camera_numbers(cameras), overwrite)


@app.command()
def report(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    skeletons: Cache = None,
    model: Annotated[
        Path | None, typer.Option(help="Another run's model, RUN/stage2, if not this run's.", show_default=False)
    ] = None,
) -> None:
    """Gather a run on one page: RUN/report.html for the browser, RUN/report.md as text."""
    from pipelines import paths
    from pipelines import write_report as stage

    settings = paths.settings_for(dataset, config, root, [])
    stage.run(settings, paths.run_folder(settings, run), model, paths.skeleton_file(settings, skeletons))


@app.command()
def export(
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Export the model of runs/NAME.", show_default=False)
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The run, the folder of a model, or its file.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make, if not RUN/export.", show_default=False)] = None,
    part_norm: Annotated[
        bool | None,
        typer.Option(help="Normalise the parts of a descriptor, if not as evaluation.part_norm of the training says."),
    ] = None,
) -> None:
    """Write what the test needs of a trained model: ONNX, compared with torch, and slim safetensors."""
    from pipelines import export_model as stage

    run = stage.run_of(dataset, run)
    stage.run(run, out or stage.default_out(run), part_norm)


@app.command()
def average(
    runs: Annotated[list[Path], typer.Argument(help="Run folders that were evaluated, e.g. runs/ilidsvid/split*.")],
    out: Annotated[Path | None, typer.Option(help="A JSON file for the result.", show_default=False)] = None,
) -> None:
    """Mean and spread of the figures of several runs: a data set's divisions, or seeds."""
    from pipelines import average_runs as stage

    stage.run(runs, out)


@app.command()
def ablate(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    skeletons: Cache = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs, if not runs/NAME.", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(help="How many: 0, 1, ...", min=1)] = 3,
    workers: Annotated[int, typer.Option(help="Trainings side by side, the processor's cores shared.", min=1)] = 1,
    set_: Set = None,
) -> None:
    """Train with parts of the method left out, and say what each adds; goes on where it was stopped."""
    from pipelines import ablate as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    cache = paths.skeleton_file(settings, skeletons)
    stage.run(settings, cache, paths.run_folder(settings, out), range(seeds), workers)


@app.command()
def train_demo_pose(
    out: Annotated[Path, typer.Option(help="Folder for the weights and figures.json.")],
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
) -> None:
    """Train the demo's pose estimator and lifter anew, on rendered walkers outside the demo."""
    from pipelines.console import RichMonitor, console
    from pipelines.maintain.demo_pose import train_demo_pose as train

    with RichMonitor() as monitor:
        figures = train(out, workers=workers, report=monitor.progress)
    console.print(f"PA-MPJPE {figures.pa_mpjpe:.1f} mm, PCK {figures.pck_box:.1%} of the crop's height / 10 -> {out}")


@app.command()
def train_demo_vision(
    out: Annotated[Path, typer.Option(help="The weights to write, .safetensors.")],
    people: Annotated[int, typer.Option(help="Rendered people.")] = 2000,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 8000,
    model: Annotated[str, typer.Option(help="OpenCLIP model file of the encoder.")] = "vision/demo.json",
    twins: Annotated[
        bool, typer.Option("--twins/--no-twins", help="People in pairs in the same clothing, or each in his own.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Which people, cameras and walks.")] = 31_415,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
) -> None:
    """Pretrain the demo's image encoder anew, on rendered people outside the demo."""
    from pipelines.console import RichMonitor, console
    from pipelines.maintain.demo_vision import train_demo_vision as train

    with RichMonitor() as monitor:
        figures = train(
            out,
            model=model,
            people=people,
            steps=steps,
            seed=seed,
            twins=twins,
            workers=workers,
            report=monitor.progress,
        )
    console.print(f"contrastive loss {figures['loss']:.3f}, {figures['seconds']:.0f} s -> {out}")


@app.command()
def doctor(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    skeletons: Cache = None,
    set_: Set = None,
    frames: Annotated[int, typer.Option(help="Frames of the data set to decode, at random.", min=0)] = 2000,
    all_frames: Annotated[bool, typer.Option("--all-frames", help="Decode every frame.")] = False,
) -> None:
    """Check the installation, or with --dataset a data set: counts, cameras, lengths, frames, skeletons.

    The exit code is 1 where something is wrong.
    """
    if dataset is not None or config is not None:
        from pipelines import check_dataset as dataset_report
        from pipelines import paths

        settings = paths.settings_for(dataset, config, root, set_ or [])
        cache = paths.skeleton_file(settings, skeletons)
        if not dataset_report.run(settings, cache, None if all_frames else frames):
            raise typer.Exit(1)
        return
    from pipelines import check_installation as stage

    if not stage.run():
        raise typer.Exit(1)


cli_search.register(app)
cli_video.register(app)


def main() -> None:
    """Run the command line; what a user can mend is one message on standard error and exit code 1."""
    from csip.errors import CsipError
    from pose_cache.errors import PoseCacheError

    if sys.platform == "win32":
        errors.print("error: Windows is not supported; use the Windows Subsystem for Linux (`wsl --install`)", markup=False)
        sys.exit(1)
    # Deprecations inside the pinned stack are nothing that its user can mend.
    for module in ("mmengine", "mmcv", "mmdet", "mmpose", "torch", "timm", "lightning_fabric"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    # A job that is told to end leaves its files and workers in order, as after Ctrl-C.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except (CsipError, PoseCacheError) as error:
        errors.print(f"error: {_own_words(error)}", markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (*_FULL, *_PLACE):
            raise
        words = [error.filename2 or error.filename, os.strerror(error.errno)]  # what libraries say instead is long
        kept = "; what was finished is kept: make room, and give the same command again" if error.errno in _FULL else ""
        errors.print(f"error: {': '.join(str(word) for word in words if word)}{kept}", markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            errors.print("stopped; what was finished is kept, and the same command goes on from there")
        raise


def _own_words(error: Exception) -> str:
    """Return an error's message without the traceback that torch puts around one from a worker of its loaders."""
    text, name = str(error), f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(name)[2].strip() if text.startswith("Caught ") and name in text else text


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)
