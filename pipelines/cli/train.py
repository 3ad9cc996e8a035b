"""Commands that train."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import (
    TRAIN,
    Backend,
    Cache,
    Config,
    Dataset,
    Merge,
    Overwrite,
    Root,
    Run,
    Set,
    Shard,
    SpreadWorkers,
    spread_of,
)

app = typer.Typer()


@app.command(rich_help_panel=TRAIN)
def embed_frames(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    workers: SpreadWorkers = 1,
    backend: Backend = None,
    shard: Shard = None,
    merge: Merge = False,
    set_: Set = None,
) -> None:
    """Fill the frame feature cache of stage 1 in advance.

    Stage 1 does this itself if the cache is missing. An interrupted command resumes when you rerun it.

    Example:
      csip embed-frames --dataset mars
      csip embed-frames --dataset mars --shard 1/8
    """
    from pipelines import embed_frames as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), spread_of(workers, backend, shard, merge))


@app.command(rich_help_panel=TRAIN)
def train_stage1(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    skeletons: Cache = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Stage 1: align the skeleton encoder with the frozen image encoder.

    Reads the skeleton cache, writes RUN/stage1. An interrupted run resumes when you rerun the command.

    Example:
      csip train-stage1 --dataset mars
      csip train-stage1 --dataset mars --set stage1.epochs=60 --run runs/mars-60
    """
    from pipelines import paths
    from pipelines import train_stage1 as stage1

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage1.run(settings, paths.skeleton_file(settings, skeletons), paths.run_folder(settings, run), overwrite)


@app.command(rich_help_panel=TRAIN)
def train_stage2(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    skeletons: Cache = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Stage 2: fine-tune the image encoder with prototypes, and predict skeletons from its tokens.

    Reads RUN/stage1 and the skeleton cache, writes RUN/stage2. An interrupted run resumes when you rerun the command.

    Example:
      csip train-stage2 --dataset mars
    """
    from pipelines import paths
    from pipelines import train_stage2 as stage2

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage2.run(settings, paths.skeleton_file(settings, skeletons), paths.run_folder(settings, run), overwrite)


@app.command(rich_help_panel=TRAIN)
def train_skeleton(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random split and of training.", show_default="runtime.seed")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Stage-1 checkpoint to start from, of any joint set.", show_default="random weights"),
    ] = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Train re-identification from skeletons alone (KGBD, BIWI, IAS-Lab, KS20).

    An interrupted run resumes when you rerun the command.

    Example:
      csip train-skeleton --dataset kgbd --seed 1 --run runs/kgbd-1
    """
    from pipelines import paths
    from pipelines import train_skeleton as stage

    chosen = [] if seed is None else [f"runtime.seed={seed}"]
    settings = paths.settings_for(dataset, config, root, [*(set_ or []), *chosen])
    stage.run(settings, paths.run_folder(settings, run), overwrite, init)


@app.command(rich_help_panel=TRAIN)
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="State dict that torch.save wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write: RUN/stage2.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", metavar="NAME", help="Data set of the weights: mars, lsvid, ilidsvid, ...", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings file.", show_default="configs/paper/NAME.yaml"),
    ] = None,
    cameras: Annotated[
        str | None,
        typer.Option(help="Cameras of the rows of the camera embedding, e.g. 1,2,3.", show_default="1 to their number"),
    ] = None,
    set_: Set = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert stage-2 weights of the method's authors into a run.

    Example:
      csip import-checkpoint weights.pth --dataset mars --out runs/mars-authors/stage2
    """
    from pipelines import import_checkpoint as stage

    settings = stage.paper_settings(dataset, config, set_ or [])
    stage.run(file, out, settings, stage.camera_numbers(cameras), overwrite)


@app.command(rich_help_panel=TRAIN)
def ablate(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    skeletons: Cache = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs.", show_default="runs/NAME")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds: 0, 1, ...", min=1)] = 3,
    workers: Annotated[int, typer.Option(help="Trainings in parallel; they share the cores.", min=1)] = 1,
    set_: Set = None,
    second_look: Annotated[
        bool, typer.Option("--second-look", help="Allow a test world that was scored before; the table says so.")
    ] = False,
) -> None:
    """Ablation study: train with parts of the method left out, and compare, with controls.

    Writes ablation.md, ablation.svg and ablation.json. An interrupted study resumes when you rerun the command. With {seed} in
    --root each seed has a data set of its own.

    Example:
      csip ablate --dataset ablation --root 'data/ablation-{seed}' --seeds 3 --workers 2
    """
    from pipelines import ablate as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    cache = paths.skeleton_file(settings, skeletons)
    stage.run(settings, cache, paths.run_folder(settings, out), range(seeds), workers, second_look)


@app.command(
    rich_help_panel=TRAIN,
    # Options after the command's name are the command's own, --help too.
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def processes(
    context: typer.Context, count: Annotated[int, typer.Argument(min=1, help="Processes, one per GPU.", metavar="N")]
) -> None:
    """Run a command in several processes, one per GPU: `csip processes N COMMAND ...`.

    Training in several processes has the loss of one process with the same batch.

    Example:
      csip processes 2 train-stage1 --dataset mars
      csip processes 2 train-stage2 --dataset mars
    """
    from pipelines import run_processes

    run_processes.run(count, context.args)
