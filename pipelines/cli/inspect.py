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
    if dataset is not None or config is not None:
        from pipelines import check_dataset, paths

        settings = paths.settings_for(dataset, config, root, set_ or [])
        cache = paths.skeleton_file(settings, skeletons)
        spread = spread_of(workers, backend, shard, merge)
        if not check_dataset.run(settings, cache, None if all_frames else frames, spread):
            raise typer.Exit(1)
        return
    from pipelines import check_installation

    if not check_installation.run():
        raise typer.Exit(1)
