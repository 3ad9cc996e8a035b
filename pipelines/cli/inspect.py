"""Commands that look and change nothing: the settings, the installation, a data set."""

from typing import Annotated

import typer

from pipelines.cli.options import INSPECT, Cache, Config, Dataset, Prefix, Root, Set

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
) -> None:
    """Check the installation, or with --dataset or --config a data set.

    A data set: counts, cameras, lengths, frames, skeletons. The exit code is 1 if something is wrong.

    Example:
      csip doctor
      csip doctor --dataset mars --all-frames
    """
    from pipelines import paths
    from pipelines import run_doctor as stage

    given = any(option is not None for option in (dataset, config, root, skeletons, set_))
    chosen = paths.settings_for(dataset, config, root, set_ or []) if given else None
    if not stage.run(chosen, skeletons, None if all_frames else frames):
        raise typer.Exit(1)
