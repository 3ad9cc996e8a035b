"""Search: the gallery tracklets most similar to a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from csip.data.csv_table import format_rows
from csip.errors import CsipError
from csip.files import write_text
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.labels import Labels
from csip.retrieval.search_index import Index, build

Cameras = Literal["any", "same", "other"]
_BEYOND = 4  # how many times more is looked for where a filter has left too little


@dataclass(frozen=True)
class Hit:
    """One gallery tracklet of a ranked list.

    Attributes
    ----------
    rank
        From 1.
    tracklet, camera, identity
        Name of the tracklet, its camera, who it is; the camera by its name where it has one, the identity None where unknown.
    cosine, distance
        Similarity of the descriptors, and the Euclidean distance between them, 0 to 2, as the evaluation's.
    row
        Of the gallery's descriptors.
    """

    rank: int
    tracklet: str
    camera: str
    identity: str | None
    cosine: float
    distance: float
    row: int


@dataclass(frozen=True)
class SearchResult:
    """The ranked list of one query; its length, items and iteration are those of `hits`."""

    query: str
    hits: tuple[Hit, ...]

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


def search(
    queries: Descriptors,
    gallery: Descriptors,
    top: int = 10,
    cameras: Cameras = "any",
    labels: Labels | None = None,
    index: Index | None = None,
) -> list[SearchResult]:
    """Rank the gallery for each query by the cosine of the descriptors.

    A query that is itself in the gallery, a tracklet of the same name of the same data set, is not among its own hits.

    Parameters
    ----------
    queries, gallery
        Descriptors of one and the same model.
    top
        How many hits; fewer where the gallery has no more.
    cameras
        Only hits of the query's own camera, or only of other cameras; the queries must be of the gallery's data set.
    labels
        What cameras and identities are called; their numbers by default.
    index
        The gallery's search index, where it is at hand.

    Raises
    ------
    CsipError
        `top` is below 1, the descriptors are of different models, or a query's camera is asked for and unknown.
    """
    if top < 1:
        raise CsipError(f"top: expected at least 1, found {top}")
    if queries.model != gallery.model:
        raise CsipError(
            f"the queries' descriptors are of model {queries.model}, the gallery's of {gallery.model}: embed both with "
            "the same model"
        )
    same_dataset = bool(queries.dataset) and queries.dataset == gallery.dataset
    if cameras != "any" and not same_dataset:
        raise CsipError(f"query camera unknown: hits of {cameras} cameras need queries of the gallery's data set")
    rows = {name: row for row, name in enumerate(gallery.names)} if same_dataset else {}
    own = np.array([rows.get(name, -1) for name in queries.names], dtype=np.int64)
    labels = labels or Labels.numbers(gallery)
    found = _rank(index or build(gallery.features), queries, own, gallery.cameras, top, cameras)
    return [
        SearchResult(
            name, tuple(_hit(place, row, cosine, gallery, labels) for place, (row, cosine) in enumerate(one, 1))
        )
        for name, one in zip(queries.names, found, strict=True)
    ]


def write_table(path: Path, results: Sequence[SearchResult]) -> None:
    """Write ranked lists as CSV, one line per hit: query, rank, tracklet, camera, cosine, distance, person."""
    lines = [
        (result.query, hit.rank, hit.tracklet, hit.camera, hit.cosine, hit.distance, hit.identity)
        for result in results
        for hit in result.hits
    ]
    write_text(path, format_rows([("query", "rank", "tracklet", "camera", "cosine", "distance", "person"), *lines]))


def _rank(
    index: Index, queries: Descriptors, own: np.ndarray, cameras: np.ndarray, top: int, which: Cameras
) -> list[list[tuple[int, float]]]:
    """Return the first entries of each query, (row, cosine), without itself and without cameras that are not wanted."""
    hits: list[list[tuple[int, float]]] = [[] for _ in own]
    left, count = np.arange(len(own)), top + 1
    while len(left):
        similar, rows = index.search(queries.features[left], count)
        again = []
        for i, cosines, entries in zip(left.tolist(), similar, rows, strict=True):
            kept = (entries >= 0) & (entries != own[i])
            if which != "any":
                kept &= (cameras[entries] == queries.cameras[i]) == (which == "same")
            hits[i] = list(zip(entries[kept][:top].tolist(), cosines[kept][:top].tolist(), strict=True))
            if len(hits[i]) < top and count < len(index):
                again.append(i)
        left, count = np.array(again, dtype=np.int64), count * _BEYOND
    return hits


def _hit(rank: int, row: int, cosine: float, gallery: Descriptors, labels: Labels) -> Hit:
    distance = round(max(2 - 2 * cosine, 0) ** 0.5, 6)
    return Hit(rank, gallery.names[row], labels.cameras[row], labels.identities[row], round(cosine, 6), distance, row)
