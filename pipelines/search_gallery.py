"""The search stage: a tracklet, a folder of images or a video in, the nearest tracklets out."""

from __future__ import annotations

import contextlib
import difflib
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from csip.config import Settings
from csip.data import folder
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.retrieval import search as retrieval
from csip.retrieval.descriptors import Descriptors, check_pictures, read_descriptors
from csip.retrieval.labels import Labels
from csip.retrieval.model import Model
from csip.retrieval.search import Cameras, Hit, SearchResult
from csip.retrieval.search_index import open_index
from pipelines.console import RichMonitor, console
from pipelines.embed_tracklets import DESCRIPTORS, load


@dataclass(frozen=True)
class Source:
    """What embeds a query that is no tracklet of the data set.

    Attributes
    ----------
    run_folder, model, onnx
        As `pipelines.embed_tracklets.run` takes them.
    detector, boxes
        Who finds people in a video, and given boxes.
    """

    run_folder: Path
    model: Path | None = None
    onnx: Path | None = None
    detector: Literal["auto", "rtmdet", "hog", "boxes"] = "hog"
    boxes: Path | None = None


@dataclass(frozen=True)
class Request:
    """What is searched for, and how the answer is given.

    Attributes
    ----------
    query
        A tracklet of the data set, a folder of images of one person, or a video, whose tracklets are all queries; None takes
        every tracklet of the data set.
    top
        How many hits per query.
    cameras
        Only tracklets of the query's own camera, or only of the others.
    as_json
        Print one JSON object instead of tables.
    out
        A CSV file for the result.
    """

    query: str | None
    top: int = 10
    cameras: Cameras = "any"
    as_json: bool = False
    out: Path | None = None


def run(request: Request, settings: Settings, source: Source, found: Path | None = None) -> list[SearchResult]:
    """Rank the tracklets of a data set by how much they look like the query, and show the first.

    Parameters
    ----------
    source
        The model, for images and videos.
    found
        The file of descriptors, if not ``RUN/descriptors.h5``.

    Raises
    ------
    CsipError
        There is no such query, the descriptors are another model's, or the file cannot be used.
    """
    if request.top < 1:
        raise CsipError(f"--top {request.top}: expected at least 1")
    path = found or source.run_folder / DESCRIPTORS
    gallery = read_descriptors(path, mapped=True)
    if gallery.dataset != settings.dataset.name:
        raise CsipError(
            f"{path}: descriptors of data set {gallery.dataset}, not {settings.dataset.name}; `csip embed` makes them"
        )
    check_pictures(path, gallery, settings.dataset)
    # What a program reads is on standard output alone.
    with contextlib.redirect_stdout(sys.stderr) if request.as_json else contextlib.nullcontext():
        with RichMonitor() as monitor:
            index = open_index(path, gallery, monitor)
        queries = _queries(request, gallery, settings, source, path)
    labels = Labels.of(settings.dataset, gallery)
    results = retrieval.search(queries, gallery, request.top, request.cameras, labels, index)
    if request.out is not None:
        retrieval.write_table(request.out, results)
    if request.as_json:
        lists = [{"query": result.query, "results": [_entry(hit) for hit in result]} for result in results]
        print(json.dumps({"dataset": gallery.dataset, "model": gallery.model, "queries": lists}))
    elif request.out is None or request.query is not None:
        for result in results:
            console.print(_table(result, _about(result.query, queries, gallery, labels)))
    if request.out is not None and not request.as_json:
        console.print(f"search: {len(results):,} queries -> {request.out}", soft_wrap=True)
    return results


def _queries(request: Request, gallery: Descriptors, settings: Settings, source: Source, path: Path) -> Descriptors:
    """Return the descriptors of what is searched for."""
    query = request.query
    if query is None:
        return gallery
    if query in gallery.names:
        return gallery.take([gallery.names.index(query)])
    place = Path(query)
    if not place.exists():
        raise CsipError(_unknown(query, gallery, settings, path))
    if request.cameras != "any":
        raise CsipError(
            f"{query}: query camera unknown; --same-camera and --other-cameras need a tracklet of the data set as the query"
        )
    trained = load(settings, source.run_folder, source.model, source.onnx)
    if trained.digest != gallery.model:
        raise CsipError(
            f"{path}: descriptors of another model ({gallery.model}) than the one that would embed {query} "
            f"({trained.digest}); recompute them with `csip embed`, or name their model with --model"
        )
    with RichMonitor() as monitor:
        for text in trained.cautions(place, settings.dataset.name):
            monitor.say(text)
    return trained.embed(place) if place.is_dir() else _of_video(place, trained, source)


def _unknown(query: str, gallery: Descriptors, settings: Settings, path: Path) -> str:
    """Say what is wrong with a query that is nothing."""
    if settings.dataset.path.is_dir() and query in {t.name for t in load_dataset(settings.dataset).train}:
        return f"{query}: a training tracklet, not in {path}; `csip embed --part all` embeds these, too"
    near = difflib.get_close_matches(query, gallery.names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"its tracklets are named like {gallery.names[0]}"
    return f"{query}: neither a tracklet of data set {gallery.dataset} in {path}, nor a folder of images, nor a video; {hint}"


def _of_video(place: Path, trained: Model, source: Source) -> Descriptors:
    from csip.video.ingest import DetectorOptions, ingest

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "query"
        with RichMonitor() as monitor:
            found = ingest(place, root, DetectorOptions(source.detector, source.boxes), monitor=monitor)
        if not found.tracklets:
            raise CsipError(f"{place}: nobody was found in this video; try another --detector, or give --boxes")
        # Of no data set: its cameras are unknown, whatever their numbers.
        return trained.embed(replace(folder.load(root), name=""))


def _entry(hit: Hit) -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "tracklet": hit.tracklet,
        "camera": hit.camera,
        "cosine": hit.cosine,
        "distance": hit.distance,
        "person": hit.identity,
    }


def _about(query: str, queries: Descriptors, gallery: Descriptors, labels: Labels) -> str:
    """Return what is known of a query."""
    if not queries.dataset:
        return ""
    row = gallery.names.index(query)
    person = labels.identities[row]
    return f", camera {labels.cameras[row]}" + ("" if person is None else f", person {person}")


def _table(result: SearchResult, about: str) -> Table:
    table = Table(title=f"{result.query}{about}", title_justify="left")
    for column, justify in (("rank", "right"), ("tracklet", "left"), ("camera", "left"), ("cosine", "right"),
                            ("distance", "right"), ("person", "left")):  # fmt: skip
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for hit in result:
        numbers = (f"{hit.cosine:.4f}", f"{hit.distance:.4f}")
        table.add_row(str(hit.rank), hit.tracklet, hit.camera, *numbers, hit.identity or "")
    return table
