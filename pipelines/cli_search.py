"""The commands that look for people: describe tracklets, search among them, propose who is who."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

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
Model = Annotated[
    Path | None, typer.Option("--model", help="Another run's model, RUN/stage2, if not this run's.", show_default=False)
]
Onnx = Annotated[
    Path | None,
    typer.Option("--onnx", help="The model as `csip export` wrote it, for onnxruntime.", show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, e.g. runtime.workers=0; may be repeated.", show_default=False),
]
Found = Annotated[
    Path | None, typer.Option("--descriptors", help="Their file, if not RUN/descriptors.h5.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(embed)


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
    from pipelines import embed as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, set_ or [])
    stage.run(settings, paths.run_folder(settings, run), model, onnx, part, out)
