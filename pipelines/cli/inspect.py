"""Commands that look and change nothing: the settings, the installation, a data set."""

from typing import Annotated

import typer

from pipelines.cli.options import (
    INSPECT,
    Backend,
    Cache,
    Config,
    Dataset,
    Merge,
    Prefix,
    Root,
    Set,
    Shard,
    SpreadWorkers,
    spread_of,
)

app = typer.Typer()


@app.command(rich_help_panel=INSPECT)
def settings(
    prefix: Prefix = "",
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    set_: Set = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Settings file with comments.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/settings.md.")] = False,
) -> None:
    """List the settings: name, value, type and range, description.

    With --dataset or --config the values are those that a run would use, otherwise the defaults.

    Example:
      csip settings stage2
      csip settings --dataset mars --yaml > mine.yaml
    """
    from pipelines import list_settings as stage
    from pipelines import paths

    given = any(option is not None for option in (dataset, config, root, set_))
    chosen = paths.settings_for(dataset, config, root, set_ or []) if given else None
    stage.run(prefix, chosen, "yaml" if as_yaml else "markdown" if as_markdown else "table")


@app.command(rich_help_panel=INSPECT)
def doctor(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    skeletons: Cache = None,
    set_: Set = None,
    frames: Annotated[int, typer.Option(help="Random frames of the data set to decode.", min=0)] = 2000,
    all_frames: Annotated[bool, typer.Option("--all-frames", help="Decode every frame.")] = False,
    workers: SpreadWorkers = 1,
    backend: Backend = None,
    shard: Shard = None,
    merge: Merge = False,
) -> None:
    """Check the installation, or with --dataset or --config a data set.

    A data set: counts, cameras, lengths, frames, skeletons. The exit code is 1 if something is wrong. Workers and shares decode
    its frames.

    Example:
      csip doctor
      csip doctor --dataset mars --all-frames --workers 4
    """
    from pipelines import paths
    from pipelines import run_doctor as stage

    given = any(option is not None for option in (dataset, config, root, skeletons, set_))
    chosen = paths.settings_for(dataset, config, root, set_ or []) if given else None
    spread = spread_of(workers, backend, shard, merge)
    if not stage.run(chosen, skeletons, None if all_frames else frames, spread):
        raise typer.Exit(1)


@app.command(rich_help_panel=INSPECT)
def plan_scale(
    frames: Annotated[
        list[float] | None, typer.Option(help="Crops of people; repeatable.", show_default="1.2e6 (MARS), 1e8 and 1e10")
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART=RATE",
            help="Two cores: frames per second of decode, pose, lift, write or embed; repeatable.",
            show_default="docs/benchmarks.md",
        ),
    ] = None,
    price: Annotated[float, typer.Option(help="Two cores: dollars per hour.", min=0)] = 0.116,
    gpu_rate: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=RATE", help="GPU: the same; repeatable.", show_default="from --gpu-tflops"),
    ] = None,
    gpu_price: Annotated[float, typer.Option(help="GPU: dollars per hour.", min=0)] = 0.85,
    gpu_tflops: Annotated[float, typer.Option(help="GPU: sustained TFLOP/s in bf16, not the data sheet's.")] = 36,
    gpu_cores: Annotated[float, typer.Option(help="GPU: cores beside it.")] = 8,
    crop_bytes: Annotated[float, typer.Option(help="Bytes per crop.", min=0)] = 5300,
    tracklet_frames: Annotated[float, typer.Option(help="Frames per tracklet.", min=1)] = 58,
    disk_price: Annotated[float, typer.Option(help="Dollars per GB and month.", min=0)] = 0.023,
    months: Annotated[float, typer.Option(help="Months that everything is kept.", min=0)] = 1,
) -> None:
    """Estimate time, disk and cost of many frames, and the bottleneck.

    A frame is a crop of a person; skeletons and descriptors are made of all. The rates of 2 cores were measured, those of a GPU
    follow from its arithmetic. The output names the sources.

    Example:
      csip plan-scale
      csip plan-scale --frames 5e7 --gpu-rate pose=4000 --gpu-price 1.2
    """
    from pipelines import plan_scale as stage

    cores = stage.adjusted(stage.CPU, stage.parse_rates(rate or []), price)
    gpu = stage.adjusted(stage.gpu_machine(gpu_tflops, gpu_cores), stage.parse_rates(gpu_rate or []), gpu_price)
    sizes = stage.Sizes(crop=crop_bytes, tracklet=tracklet_frames, price=disk_price, months=months)
    stage.run(frames or [1.2e6, 1e8, 1e10], [cores, gpu], sizes)
