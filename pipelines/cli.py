"""The command line: one command a stage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import errors

INTERRUPTED = 130  # what Typer exits with after Ctrl-C

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Video person re-identification pretrained on 3D skeletons: from frames to ranks.",
)
skeletons_app = typer.Typer(help="Extract 3D skeletons into a cache, and look at one.")
app.add_typer(skeletons_app, name="skeletons")

Dataset = Annotated[
    str | None, typer.Option("--dataset", help="configs/NAME.yaml, or a folder data set data/NAME.", show_default=False)
]
Config = Annotated[
    Path | None, typer.Option("--config", help="A settings file, instead of configs/NAME.yaml.", show_default=False)
]
Root = Annotated[
    Path | None, typer.Option("--root", help="The data set's folder, if not data/NAME.", show_default=False)
]
Run = Annotated[Path | None, typer.Option("--run", help="The run's folder, if not runs/NAME.", show_default=False)]
Cache = Annotated[
    Path | None, typer.Option("--skeletons", help="The cache, if not skeletons.h5 in the data set.", show_default=False)
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, e.g. stage1.epochs=3; may be repeated.", show_default=False)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run, or an unfinished one with other inputs.")
]

# The stages import torch and MMPose, which takes seconds: each command does it when it runs, so that --help is quick.


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("data/demo"),
    seed: Annotated[int, typer.Option(help="Which people, cameras and walks.")] = 0,
    train_ids: Annotated[int, typer.Option(help="People to train on.")] = 64,
    test_ids: Annotated[int, typer.Option(help="People to test on, never trained on.")] = 40,
    cameras: Annotated[int, typer.Option(help="Cameras; each sees everybody.")] = 3,
    tracklets: Annotated[int, typer.Option(help="Walks of a person past a camera.")] = 2,
    frames: Annotated[int, typer.Option(help="Frames a walk.")] = 16,
    height: Annotated[int, typer.Option(help="Height of a crop, pixels.")] = 128,
    width: Annotated[int, typer.Option(help="Width of a crop, pixels.")] = 64,
    twins: Annotated[float, typer.Option(help="Share of the people who have a twin in the same clothing.")] = 0.5,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")] = False,
) -> None:
    """Render walking people in MARS's layout, with the true joints beside."""
    from csip.data.synthetic import SyntheticSpec
    from pipelines import synth as stage

    spec = SyntheticSpec(
        seed=seed, train_ids=train_ids, test_ids=test_ids, cameras=cameras, tracklets_per_camera=tracklets,
        frames=frames, height=height, width=width, twin_share=twins,
    )  # fmt: skip
    stage.run(out, spec, workers, force)


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
    from pipelines import paths, stage1

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
    from pipelines import paths, stage2

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage2.run(settings, paths.skeleton_file(settings, skeletons), paths.run_folder(settings, run), overwrite)


@app.command()
def evaluate(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    set_: Set = None,
    cross_dataset: Annotated[
        bool, typer.Option("--cross-dataset", help="The model may have been trained on another data set.")
    ] = False,
) -> None:
    """Rank the gallery for every query: Rank-k, mAP, mINP. Needs no skeletons."""
    from pipelines import evaluate as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), cross_dataset)


@app.command()
def report(dataset: Dataset = None, config: Config = None, root: Root = None, run: Run = None) -> None:
    """Gather a run's figures, times and files on one page, RUN/report.md."""
    from pipelines import paths
    from pipelines import report as stage

    settings = paths.settings_for(dataset, config, root, [])
    stage.run(settings, paths.run_folder(settings, run))


@app.command()
def doctor() -> None:
    """Check the installation: versions, compiled operators, devices, a forward pass of each kind of model."""
    from pipelines import doctor as stage

    if not stage.run():
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; what a user can mend is one message on standard error and exit code 1."""
    from csip.errors import CsipError
    from pose_cache.errors import PoseCacheError

    try:
        app()
    except (CsipError, PoseCacheError) as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            errors.print("stopped; what was finished is kept, and the same command goes on from there")
        raise
