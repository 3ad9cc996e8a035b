"""Commands that make data sets without videos: rendered people. Skeletons have a file of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.options import DATA, Config, Dataset, ReplaceFolder, Root, Run, Set, Workers

app = typer.Typer()


@app.command(rich_help_panel=DATA)
def demo(
    train_ids: Annotated[int, typer.Option(help="Training identities.")] = 96,
    test_ids: Annotated[int, typer.Option(help="Test identities.")] = 48,
    workers: Workers = 2,
    set_: Set = None,
) -> None:
    """Run every stage on rendered people: data/demo, runs/demo and a report.

    A stage reruns if its output is missing or older than its input.

    Example:
      csip demo
    """
    from pipelines import run_demo as stage

    stage.run(set_ or [], replace(stage.PEOPLE, train_ids=train_ids, test_ids=test_ids), workers)


@app.command(rich_help_panel=DATA)
def synth(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("data/rendered"),
    seed: Annotated[int, typer.Option(help="Seed of people, cameras and walks.")] = 0,
    train_ids: Annotated[int, typer.Option(help="Training identities.")] = 96,
    test_ids: Annotated[int, typer.Option(help="Test identities.")] = 40,
    cameras: Annotated[int, typer.Option(help="Cameras; each sees every identity.")] = 3,
    tracklets: Annotated[int, typer.Option(help="Tracklets per identity and camera.")] = 2,
    frames: Annotated[
        int | None, typer.Option(help="Frames per tracklet, 12 per second.", show_default="16; motion world: 64")
    ] = None,
    height: Annotated[int, typer.Option(help="Height of a crop in pixels.")] = 128,
    width: Annotated[int, typer.Option(help="Width of a crop in pixels.")] = 64,
    twins: Annotated[
        float | None,
        typer.Option(
            help="Share of the identities with a twin in the same clothing.", show_default="0.25; motion world: 1"
        ),
    ] = None,
    world: Annotated[
        Literal["walkers", "motion"],
        typer.Option(help="World; motion: everyone has a twin who differs in body, posture, swings or cadence alone."),
    ] = "walkers",
    test_people: Annotated[
        Literal["validation", "test"],
        typer.Option(help="Motion world: test identities for choices, or for the final score."),
    ] = "validation",
    workers: Workers = 2,
    force: ReplaceFolder = False,
) -> None:
    """Render walking people in the MARS layout, with their true joints.

    Example:
      csip synth --out data/crowd --train-ids 200 --test-ids 100 --cameras 6
      csip synth --out data/motion --world motion
    """
    from csip.synthetic.world import SyntheticSpec
    from pipelines import render_tracklets as stage

    spec = SyntheticSpec(
        seed=seed, train_ids=train_ids, test_ids=test_ids, cameras=cameras, tracklets_per_camera=tracklets,
        frames=frames if frames is not None else (64 if world == "motion" else 16), height=height, width=width,
        twin_share=twins if twins is not None else 1.0 if world == "motion" else 0.25, world=world, part=test_people,
    )  # fmt: skip
    stage.run(out, spec, workers, force)


@app.command(rich_help_panel=DATA)
def fingerprint(
    dataset: Dataset = None, config: Config = None, root: Root = None, run: Run = None, set_: Set = None
) -> None:
    """Note what a data set holds, by content, for Make.

    Writes RUN/train.fingerprint and RUN/test.fingerprint. A file whose part of the data set has not changed keeps its time.

    Example:
      csip fingerprint --dataset mars
    """
    from pipelines import fingerprint_data as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run))


@app.command(rich_help_panel=DATA)
def ceilings(
    root: Annotated[Path, typer.Option(help="Folder of a rendered motion world.")],
    skeletons: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Skeleton cache, to measure estimated joints.", show_default="true joints"),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Stage-1 model, to measure what it tells apart.", show_default="none"),
    ] = None,
) -> None:
    """Measure what skeletons tell about the twins of a rendered motion world.

    Example:
      csip ceilings --root data/motion --skeletons data/motion/skeletons.h5
    """
    from pipelines import render_tracklets as stage

    stage.run_ceilings(root, skeletons, encoder)


@app.command(rich_help_panel=DATA)
def synth_videos(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    people: Annotated[int, typer.Option(help="Identities; every camera sees all of them.")] = 8,
    cameras: Annotated[int, typer.Option(help="Cameras, one video each.")] = 2,
    seconds: Annotated[float, typer.Option(help="Length of each video in seconds.")] = 20.0,
    visits: Annotated[int, typer.Option(help="Walks per identity and camera.")] = 1,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 15,
    height: Annotated[int, typer.Option(help="Height of the picture in pixels; it is 16:9.")] = 432,
    seed: Annotated[int, typer.Option(help="Seed of people, cameras and walks.")] = 0,
    workers: Workers = 2,
    force: ReplaceFolder = False,
) -> None:
    """Render videos of walking people, with their true boxes (MOTChallenge).

    Example:
      csip synth-videos --out scenes --people 6 --cameras 2 --seconds 12
      csip ingest scenes --out data/scenes
    """
    from csip.synthetic.videos import SceneSpec
    from pipelines import render_videos as stage

    spec = SceneSpec(
        seed=seed, people=people, cameras=cameras, visits=visits, seconds=seconds, fps=fps, height=height
    )  # fmt: skip
    stage.run(out, spec, workers, force)
