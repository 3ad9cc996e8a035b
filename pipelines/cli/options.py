"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
Cache = Annotated[
    Path | None, typer.Option("--skeletons", help="The cache, if not skeletons.h5 in the data set.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, e.g. stage1.epochs=3; may be repeated.", show_default=False),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run, or an unfinished one with other inputs.")
]
Workers = Annotated[int, typer.Option("--workers", help="Processes.")]
Replace = Annotated[bool, typer.Option("--force", help="Replace a cache that was made otherwise.")]
