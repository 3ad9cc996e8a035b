"""The stage that looks for a person: a tracklet, a folder of images or a video in, the nearest tracklets out."""

from __future__ import annotations

import contextlib
import csv
import difflib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from csip.config import Settings
from csip.data import folder
from csip.data.dataset import DISTRACTOR, Tracklet, is_image
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.monitor import Monitor, Silent
from csip.retrieval import search
from csip.retrieval.descriptors import Descriptors, read_descriptors
from csip.retrieval.embedding import embed_tracklets
from csip.runtime import make_fabric
from pipelines.console import RichMonitor, console
from pipelines.embed_tracklets import DESCRIPTORS, Trained, load, warn

Cameras = Literal["any", "same", "other"]
_BEYOND = 4  # how many times more is looked for where a filter has left too little


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes
    ----------
    name
        A tracklet, or where the images come from.
    feature
        (D,) float32, its descriptor.
    row
        Its row among the descriptors; None for what is not among them.
    """

    name: str
    feature: np.ndarray
    row: int | None = None


@dataclass(frozen=True)
class Source:
    """What describes a query that is no tracklet of the data set.

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


def run(
    query: str | None,
    settings: Settings,
    source: Source,
    found: Path | None = None,
    top: int = 10,
    cameras: Cameras = "any",
    as_json: bool = False,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Rank the tracklets of a data set by how much they look like the query, and show the first.

    Parameters
    ----------
    query
        A tracklet of the data set, a folder of images of one person, or a video, whose tracklets are all looked for; None
        takes every tracklet of the data set.
    source
        The model, for images and videos.
    found
        The file of descriptors, if not ``RUN/descriptors.h5``.
    top
        How many to show.
    cameras
        Only tracklets of the query's own camera, or only of the others.
    as_json
        Print one JSON object instead of tables.
    out
        A CSV file for the result.

    Returns
    -------
    list of dict
        For each query ``query``, and ``results``: dicts of ``rank``, ``tracklet``, ``camera``, ``cosine``, ``distance`` and
        ``person`` (None where unknown).

    Raises
    ------
    CsipError
        There is no such query, the descriptors are another model's, or the file cannot be used.
    """
    if top < 1:
        raise CsipError(f"--top {top}: expected at least 1")
    path = found or source.run_folder / DESCRIPTORS
    descriptors = read_descriptors(path, mapped=True)
    if descriptors.dataset != settings.dataset.name:
        raise CsipError(
            f"{path}: descriptors of data set {descriptors.dataset}, not {settings.dataset.name}; `csip embed` makes them"
        )
    # What a program reads is on standard output alone.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        with RichMonitor() as monitor:
            index = open_index(path, descriptors, monitor)
        queries = _queries(query, descriptors, settings, source, path, cameras)
    labels = Labels.of(settings, descriptors)
    results = [
        {"query": one.name, "results": [labels.entry(rank, row, cosine) for rank, (row, cosine) in enumerate(hits, start=1)]}
        for one, hits in zip(queries, rank(index, queries, descriptors.cameras, top, cameras), strict=True)
    ]  # fmt: skip
    if out is not None:
        write_table(out, results)
    if as_json:
        print(json.dumps({"dataset": descriptors.dataset, "model": descriptors.model, "queries": results}))
    elif out is None or query is not None:
        for one, result in zip(queries, results, strict=True):
            console.print(_table(result, "" if one.row is None else labels.about(one.row)))
    if out is not None and not as_json:
        console.print(f"search: {len(results):,} queries -> {out}", soft_wrap=True)
    return results


def open_index(path: Path, descriptors: Descriptors, monitor: Monitor) -> search.Index:
    """Return the index of a file of descriptors: the one kept beside it where it is still right, or a new one.

    Small ones are made anew each time. Where the folder cannot be written, so are large ones.
    """
    status = path.stat()
    source = f"{descriptors.dataset} {descriptors.model} {len(descriptors)} {status.st_size} {status.st_mtime_ns}"
    kept = path.with_name(f"{path.name}.index")
    if len(descriptors) > search.EXACT:
        index = search.load(kept, descriptors.features, source)
        if index is not None:
            return index
    index = search.build(descriptors.features, monitor)
    if index.codes is not None:
        try:
            search.save(index, kept, source)
        except (OSError, RuntimeError) as error:
            monitor.say(f"the index cannot be kept in {kept} ({error}): it will be made anew next time")
    return index


def rank(
    index: search.Index, queries: Sequence[Query], cameras: np.ndarray, top: int, which: Cameras
) -> list[list[tuple[int, float]]]:
    """Return the first entries of each query, (row, cosine), without itself and without cameras that are not wanted."""

    def wanted(query: Query) -> Callable[[np.ndarray], np.ndarray]:
        def keep(rows: np.ndarray) -> np.ndarray:
            kept = (rows >= 0) & (rows != query.row)
            if which != "any" and query.row is not None:
                kept &= (cameras[rows] == cameras[query.row]) == (which == "same")
            return kept

        return keep

    hits: list[list[tuple[int, float]]] = [[] for _ in queries]
    left, count = list(range(len(queries))), top + 1
    while left:
        similar, rows = index.search(np.stack([queries[i].feature for i in left]), count)
        again = []
        for i, cosines, entries in zip(left, similar, rows, strict=True):
            kept = wanted(queries[i])(entries)
            hits[i] = list(zip(entries[kept][:top].tolist(), cosines[kept][:top].tolist(), strict=True))
            if len(hits[i]) < top and count < len(index):
                again.append(i)
        left, count = again, count * _BEYOND
    return hits


@dataclass(frozen=True)
class Labels:
    """What is shown of tracklets: their names, their cameras as people call them, and who they are.

    Attributes
    ----------
    descriptors
        The tracklets.
    cameras
        (tracklets,) names of their cameras, or numbers where there are no names.
    people
        (tracklets,) names of the people, or their numbers; None where unknown.
    """

    descriptors: Descriptors
    cameras: list[str]
    people: list[str | None]

    @staticmethod
    def of(settings: Settings, descriptors: Descriptors) -> Labels:
        """Ask the data set, where it is there: labels may have changed since the tracklets were described."""
        people = {
            n: str(p) for n, p in zip(descriptors.names, descriptors.pids.tolist(), strict=True) if p != DISTRACTOR
        }
        sightings: dict[str, folder.Sighting] = {}
        root = settings.dataset.path
        if settings.dataset.layout == "folder" and (root / folder.TABLE).exists():
            sightings, people = folder.read_sightings(root), folder.read_people(root)
        elif root.is_dir():
            dataset = load_dataset(settings.dataset)
            everyone = (*dataset.train, *dataset.query, *dataset.gallery)
            people = {t.name: str(t.pid) for t in everyone if t.pid != DISTRACTOR}
        cameras = [
            sightings[name].camera if name in sightings else str(camera)
            for name, camera in zip(descriptors.names, descriptors.cameras.tolist(), strict=True)
        ]
        return Labels(descriptors, cameras, [people.get(name) for name in descriptors.names])

    def entry(self, rank: int, row: int, cosine: float) -> dict[str, Any]:
        """Return a line of a ranked list; ``distance`` is Euclidean between unit vectors, as the evaluation's."""
        return {
            "rank": rank,
            "tracklet": self.descriptors.names[row],
            "camera": self.cameras[row],
            "cosine": round(cosine, 6),
            "distance": round(max(2 - 2 * cosine, 0) ** 0.5, 6),
            "person": self.people[row],
        }

    def about(self, row: int) -> str:
        """Return what is known of a query."""
        person = self.people[row]
        return f", camera {self.cameras[row]}" + ("" if person is None else f", person {person}")


def write_table(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write ranked lists as CSV, a line an entry: query, rank, tracklet, camera, cosine, distance, person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="") as file:
        columns = ["query", "rank", "tracklet", "camera", "cosine", "distance", "person"]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for result in results:
            writer.writerows({"query": result["query"], **line} for line in result["results"])
    temporary.replace(path)


def _queries(
    query: str | None, descriptors: Descriptors, settings: Settings, source: Source, path: Path, cameras: Cameras
) -> list[Query]:
    if query is None:
        return [Query(name, descriptors.features[row], row) for row, name in enumerate(descriptors.names)]
    if query in descriptors.names:
        row = descriptors.names.index(query)
        return [Query(query, descriptors.features[row], row)]
    place = Path(query)
    if not place.exists():
        if settings.dataset.path.is_dir() and query in {t.name for t in load_dataset(settings.dataset).train}:
            raise CsipError(
                f"{query}: a training tracklet, not in {path}; `csip embed --part all` describes these, too"
            )
        near = difflib.get_close_matches(query, descriptors.names, n=3)
        raise CsipError(
            f"{query}: neither a tracklet of data set {descriptors.dataset} in {path}, nor a folder of images, nor a video"
            + (
                f"; did you mean {', '.join(near)}?"
                if near
                else f"; its tracklets are named like {descriptors.names[0]}"
            )
        )
    if cameras != "any":
        raise CsipError(
            f"{query}: nobody knows its camera; --same-camera and --other-cameras need a tracklet of the data set as the query"
        )
    trained = load(settings, source.run_folder, source.model, source.onnx)
    if trained.digest != descriptors.model:
        raise CsipError(
            f"{path}: descriptors of another model ({descriptors.model}) than the one that would describe {query} "
            f"({trained.digest}); make them anew with `csip embed`, or name their model with --model"
        )
    return _of_images(place, trained) if place.is_dir() else _of_video(place, trained, source)


def _of_images(place: Path, trained: Trained) -> list[Query]:
    frames = tuple(sorted(entry.name for entry in place.iterdir() if entry.is_file() and is_image(entry.name)))
    if not frames:
        raise CsipError(
            f"{place}: no images in it; expected crops of one person, .jpg or .png, in the order of their names"
        )
    return _described(place, [Tracklet(place.name, DISTRACTOR, 0, frames)], trained)


def _of_video(place: Path, trained: Trained, source: Source) -> list[Query]:
    from pipelines import ingest_videos as ingest

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "query"
        found = ingest.ingest(place, root, ingest.DetectorOptions(source.detector, source.boxes))
        if not found["tracklets"]:
            raise CsipError(f"{place}: nobody was found in this video; try another --detector, or give --boxes")
        return _described(root, folder.load(root).query, trained)


def _described(root: Path, tracklets: Sequence[Tracklet], trained: Trained) -> list[Query]:
    device = make_fabric(trained.settings.runtime).device
    with RichMonitor() as monitor:
        warn(trained, root, trained.settings.dataset.name, monitor)
        # Nobody knows the query's camera, so there is nothing to say of it.
        features = embed_tracklets(trained.model, root, tracklets, {}, trained.settings, device, Silent())
    return [Query(t.name, feature) for t, feature in zip(tracklets, features, strict=True)]


def _table(result: dict[str, Any], about: str) -> Table:
    table = Table(title=f"{result['query']}{about}", title_justify="left")
    for column, justify in (("rank", "right"), ("tracklet", "left"), ("camera", "left"), ("cosine", "right"),
                            ("distance", "right"), ("person", "left")):  # fmt: skip
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for line in result["results"]:
        numbers = (f"{line['cosine']:.4f}", f"{line['distance']:.4f}")
        table.add_row(str(line["rank"]), line["tracklet"], line["camera"], *numbers, line["person"] or "")
    return table
