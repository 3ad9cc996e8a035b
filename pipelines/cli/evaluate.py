"""Commands that score a trained model, report on it, and hand it on."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import EVALUATE, Cache, Config, Dataset, Model, Root, Run, Set

app = typer.Typer()


@app.command(rich_help_panel=EVALUATE)
def evaluate(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    set_: Set = None,
    cross_dataset: Annotated[
        bool,
        typer.Option(
            "--cross-dataset",
            help="Allow a model of another data set (without its camera embedding), or of this one before it changed.",
        ),
    ] = False,
    second_look: Annotated[
        bool,
        typer.Option("--second-look", help="Score another model of the same seed on the test world; reports say so."),
    ] = False,
) -> None:
    """Rank the gallery for every query: Rank-k, mAP, mINP.

    Writes RUN/metrics.json. Skeletons are not needed, except by models of skeletons alone.

    Example:
      csip evaluate --dataset mars
      csip evaluate --dataset lsvid --run runs/mars --cross-dataset
    """
    from pipelines import evaluate_run as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), cross_dataset, second_look)


@app.command(rich_help_panel=EVALUATE)
def report(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    run: Run = None,
    skeletons: Cache = None,
    model: Model = None,
    set_: Set = None,
) -> None:
    """Summarise a run on one page: RUN/report.html and RUN/report.md.

    Example:
      csip report --dataset demo
    """
    from pipelines import paths
    from pipelines import write_report as stage

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), model, paths.skeleton_file(settings, skeletons))


@app.command(rich_help_panel=EVALUATE)
def average(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with metrics.json, e.g. runs/ilidsvid/split*.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.", show_default=False)] = None,
) -> None:
    """Mean and standard deviation of the metrics of several runs: splits or seeds.

    Example:
      csip average runs/ilidsvid/split* --out runs/ilidsvid/splits.json
    """
    from pipelines import average_runs as stage

    stage.run(runs, out)


@app.command(rich_help_panel=EVALUATE)
def export(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="Data set: the run is runs/NAME.", show_default=False),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="PATH", help="Run, folder of a model, or its file.", show_default="runs/NAME"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="RUN/export")] = None,
    part_norm: Annotated[
        bool | None,
        typer.Option(
            help="L2 normalisation of the parts of a descriptor.", show_default="evaluation.part_norm of the training"
        ),
    ] = None,
) -> None:
    """Export the test branch of a model: ONNX, checked against torch, and slim safetensors.

    Example:
      csip export --dataset mars --out export/mars
    """
    from pipelines import export_model as stage

    run = stage.run_of(dataset, run)
    stage.run(run, out or stage.default_out(run), part_norm)
