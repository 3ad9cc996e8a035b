"""The pictures of docs/videos.md: the page of `csip review` on a data set of rendered videos.

    csip synth-videos --out scenes --people 60 --cameras 4 --visits 2 --seconds 200 --fps 8 --height 216
    csip ingest scenes/videos --out data/crowd --detector boxes --boxes scenes/det --margin 0.05
    csip embed --dataset crowd --model runs/demo
    python -m pipelines.maintain.review_pictures --dataset crowd

The review is of a copy of the table: nothing is written into the data set.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from csip.data.folder import TABLE
from pipelines.console import console
from pipelines.maintain.pictures import DARK, LIGHT, browser_tab, with_few_colours
from pipelines.paths import run_folder, settings_for
from pipelines.review_tracklets import Source, in_background, open_data

# Whether all strips above a height have been loaded: pictures are asked for when they come into view.
SEEN = """height => [...document.querySelectorAll(".view:not([hidden]) .film")]
  .filter(film => film.getBoundingClientRect().top < height)
  .every(film => film.complete && film.naturalWidth > 0)"""
VIEWS = {"pairs": 800, "people": 840}  # pixels of each view that are shown


def main(
    dataset: Annotated[str, typer.Option(help="Data set of rendered videos.")] = "crowd",
    root: Annotated[Path | None, typer.Option(help="Its folder.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run with its descriptors.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs/images"),
) -> None:
    """Make the pictures of the review."""
    settings = settings_for(dataset, None, root, [])
    source = Source(run_folder(settings, run))
    place = settings.dataset.path.resolve()
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / dataset
        copy.mkdir()
        shutil.copyfile(place / TABLE, copy / TABLE)
        for folder in filter(Path.is_dir, place.iterdir()):
            (copy / folder.name).symlink_to(folder)
        opened = open_data(settings_for(dataset, None, copy, []), source)
        with in_background(opened) as address:
            for theme in (LIGHT, DARK):
                with browser_tab(theme) as tab:
                    tab.goto(address)
                    for view, height in VIEWS.items():
                        tab.locator(f"#tab-{view}").click()
                        tab.locator(f"#{view} .strip").first.wait_for()
                        tab.wait_for_function(SEEN, arg=height)
                        path = out / f"review-{view}-{theme.name}.png"
                        tab.screenshot(path=path, clip={"x": 0, "y": 0, "width": 1200, "height": height})
                        console.print(f"{with_few_colours(path)}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    typer.run(main)
