"""Commands that take labels into other tools and back."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.options import Config, Dataset, ReplaceFolder, Root, Set

Form = Annotated[
    Literal["mot", "coco", "cvat", "fiftyone", "mars"],
    typer.Option(
        "--format",
        help="MOTChallenge with ids over all cameras, COCO video, CVAT for video 1.1, FiftyOneVideoLabelsDataset, or MARS.",
        show_default=False,
    ),
]
Videos = Annotated[
    Path | None, typer.Option(help="Folder of videos that was ingested; needed for fiftyone.", show_default=False)
]

app = typer.Typer()


@app.callback()
def labels() -> None:
    """Export labels to other tools, and import them.

    Example:
      csip labels export --dataset hall --format cvat --out export/hall
      csip labels import export/hall --dataset hall --format cvat
    """


@app.command("export")
def labels_export(
    form: Form,
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    videos: Videos = None,
    force: ReplaceFolder = False,
    set_: Set = None,
) -> None:
    """Export the tracklets and people of a data set in another tool's format.

    Tracklets that the review has left out are not exported. MARS needs a split; the other formats need the boxes of
    `csip ingest`.

    Example:
      csip labels export --dataset hall --format mot --out export/hall
      csip labels export --dataset hall-split --format mars --out export/hall-mars
    """
    from pipelines import exchange_labels as stage
    from pipelines import paths

    stage.export_labels(paths.settings_for(dataset, config, root, set_ or []), form, out, videos, force)


@app.command("import")
def labels_import(
    source: Annotated[Path, typer.Argument(help="File or folder of labels.", show_default=False)],
    form: Form,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    videos: Videos = None,
    force: Annotated[bool, typer.Option("--force", help="Replace labels that were edited.")] = False,
    set_: Set = None,
) -> None:
    """Import people from another tool's labels into labels.csv.

    Boxes are compared with those of the tracklets, frame by frame; MARS's pictures by their content. The tool may number, join
    and cut tracks as it likes. `csip review` takes the change over.

    Example:
      csip labels import export/hall --dataset hall --format mot
    """
    from pipelines import exchange_labels as stage
    from pipelines import paths

    stage.import_labels(paths.settings_for(dataset, config, root, set_ or []), form, source, videos, force)
