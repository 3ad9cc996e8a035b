"""Commands for who maintains the project: the weights that ship with it."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import MAINTAIN, Workers

app = typer.Typer()


@app.command(rich_help_panel=MAINTAIN)
def train_demo_pose(
    out: Annotated[Path, typer.Option(help="Folder to write: the weights and their metrics.")], workers: Workers = 2
) -> None:
    """Train the demo's pose estimator and lifter, on rendered people outside the demo.

    Example:
      csip train-demo-pose --out weights
    """
    from pipelines.console import RichMonitor, console
    from pipelines.maintain.demo_pose import train_demo_pose as train

    with RichMonitor() as monitor:
        figures = train(out, workers=workers, report=monitor.progress)
    console.print(f"PA-MPJPE {figures.pa_mpjpe:.1f} mm, PCK {figures.pck_box:.1%} of the crop's height / 10 -> {out}")


@app.command(rich_help_panel=MAINTAIN)
def train_demo_vision(
    out: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    people: Annotated[int, typer.Option(help="Rendered identities.")] = 2000,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 8000,
    model: Annotated[str, typer.Option(help="OpenCLIP model file of the encoder.")] = "vision/demo.json",
    twins: Annotated[
        bool, typer.Option("--twins/--no-twins", help="Pairs of identities in the same clothing, or each in its own.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of people, cameras and walks.")] = 31_415,
    workers: Workers = 2,
) -> None:
    """Pretrain the demo's image encoder, on rendered people outside the demo.

    Example:
      csip train-demo-vision --out weights/demo.safetensors
    """
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


@app.command(rich_help_panel=MAINTAIN)
def train_pose_vision(
    start: Annotated[Path, typer.Option(help="Weights that know clothing: of train-demo-vision --no-twins.")],
    out: Annotated[Path, typer.Option(help="Weights to write, .safetensors.")],
    people: Annotated[int, typer.Option(help="Rendered identities.", min=2)] = 6000,
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 7100,
    workers: Workers = 2,
) -> None:
    """Pretrain an image encoder that sees poses, for the motion world, on rendered people outside it.

    Example:
      csip train-pose-vision --start weights/clothing.safetensors --out weights/poses.safetensors
    """
    from pipelines.console import RichMonitor, console
    from pipelines.maintain.pose_vision import train_pose_vision as train

    with RichMonitor() as monitor:
        figures = train(start, out, people=people, steps=steps, workers=workers, report=monitor.progress)
    console.print(f"loss {figures['loss']:.3f}, {figures['seconds']:.0f} s -> {out}")
