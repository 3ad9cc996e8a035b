"""Options that several commands share, and the panels of the help."""

# The command line's annotations are evaluated at each start: as they stand, which is faster than from text.
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from pose_cache.pieces import Spread

DATA = "Data"
TRAIN = "Train"
EVALUATE = "Evaluate"
VIDEOS = "Videos and search"
INSPECT = "Inspect"
MAINTAIN = "Maintain"


def _data_sets(start: str) -> Iterable[str]:
    """Return the data sets that begin with `start`, for the shell: those with settings, and the folders in data/."""
    from pose_cache.shipped import CONFIGS

    settings = [path.stem for folder in (Path("configs"), CONFIGS) for path in folder.glob("*.yaml")]
    folders = [path.name for path in Path("data").glob("*/")] if Path("data").is_dir() else []
    return sorted(name for name in {*settings, *folders} if name.startswith(start))


def _settings(start: str) -> Iterable[str]:
    """Return the settings that begin with `start`, for the shell."""
    from csip.config.listing import list_settings

    return [f"{setting.key}=" for setting in list_settings() if not setting.section and setting.key.startswith(start)]


def _keys(start: str) -> Iterable[str]:
    from csip.config import valid_keys

    return [key for key in valid_keys() if key.startswith(start)]


def _path(text: str) -> Path:
    """Read a path; an empty one is a variable of the shell that is not set, and not the current folder."""
    if not text:
        raise typer.BadParameter("expected a path, found an empty text")
    return Path(text)


Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="Data set: settings in configs/NAME.yaml, or a folder data/NAME.",
        show_default=False,
        autocompletion=_data_sets,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", parser=_path, help="Settings file.", show_default="configs/NAME.yaml"),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", parser=_path, help="Folder of the data set.", show_default="data/NAME"),
]
Run = Annotated[
    Path | None, typer.Option("--run", metavar="FOLDER", parser=_path, help="Run folder.", show_default="runs/NAME")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--skeletons", metavar="FILE", parser=_path, help="Skeleton cache.", show_default="skeletons.h5 in the data set"
    ),
]
Precision = Annotated[
    Literal["32", "bf16", "16"], typer.Option(help="Numerical precision of both models; 16 needs a GPU.")
]
CacheOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        parser=_path,
        help="Skeleton cache to write.",
        show_default="skeletons.h5 in the data set",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Setting to override, e.g. stage1.epochs=3; repeatable. `csip settings` lists them.",
        show_default=False,
        autocompletion=_settings,
    ),
]
Prefix = Annotated[
    str, typer.Argument(help="Section or setting, e.g. stage2.", show_default="all settings", autocompletion=_keys)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a finished run, or an unfinished one with other inputs.")
]
Workers = Annotated[int, typer.Option("--workers", help="Processes.", min=1)]

# Who does the work, of every command that does it in pieces; see docs/cluster.md.
SpreadWorkers = Annotated[
    int, typer.Option("--workers", help="Worker processes of this machine; they share its GPUs.", min=1)
]
Backend = Annotated[
    str | None,
    typer.Option(
        help="Joblib backend: loky, threading, or the cluster of dask or ray.", show_default="loky, if workers"
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(metavar="JOB/JOBS", help="Share of the work, e.g. 1/8; --merge joins the shares.", show_default=False),
]
Merge = Annotated[bool, typer.Option("--merge", help="Join the shares of --shard, once all jobs are done.")]


def spread_of(workers: int, backend: str | None, shard: str | None, merge: bool) -> "Spread":
    """Read the four options."""
    from pose_cache.pieces import Share, Spread

    return Spread(workers, backend, None if shard is None else Share.parse(shard), merge)


ReplaceCache = Annotated[bool, typer.Option("--force", help="Replace a cache that was made otherwise.")]
ReplaceFolder = Annotated[bool, typer.Option("--force", help="Replace the content of the folder.")]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", metavar="PATH", parser=_path, help="Model of another run: RUN/stage2.", show_default="this run's"
    ),
]
Onnx = Annotated[
    Path | None,
    typer.Option(
        "--onnx",
        metavar="PATH",
        parser=_path,
        help="Model that `csip export` wrote, for onnxruntime.",
        show_default=False,
    ),
]
Descriptors = Annotated[
    Path | None,
    typer.Option(
        "--descriptors", metavar="FILE", parser=_path, help="Descriptors to read.", show_default="RUN/descriptors.h5"
    ),
]
Detector = Literal["auto", "rtmdet", "hog", "boxes"]
