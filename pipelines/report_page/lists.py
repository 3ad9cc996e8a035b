"""The part of the page that shows tracklets: ranked lists, the map, and the attention of the image encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csip.data.dataset import Dataset, Tracklet
from csip.data.labels import LABELS, is_proposal, parse_labels
from csip.errors import CsipError
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.retrieval import projection, ranked_lists
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.model import Model
from pipelines.report_page import heat, strips
from pipelines.report_page.cards import camera_title
from pipelines.report_page.content import Content

STRIP_BUDGET = 13 * 2**20  # bytes of the page; the map's pictures, attention and the rest stay well below 5 MB
FEW = 500  # tracklets whose strips fit the budget in the large size
_CARD = 700  # bytes that a query takes beside its strips

Picked = list[tuple[str, ranked_lists.RankedList]]


@dataclass(frozen=True)
class Ranked:
    """All ranked lists, worst query first, and the CMC where people are known."""

    lists: list[ranked_lists.RankedList]
    curve: ranked_lists.CmcCurve | None


def add_lists(
    content: Content, d: Descriptors, dataset: Dataset | None, cameras: Mapping[int, str], cache: Path, monitor: Monitor
) -> Ranked:
    """Rank, choose what the page has room for, and add the lists, their pictures and the map.

    Parameters
    ----------
    dataset
        Where the pictures are; None where it is not there.
    cameras
        Names of the data set's cameras, as far as they have any.
    cache
        The skeletons' file.
    """
    tracklets = _by_name(dataset)
    root = Path() if dataset is None else dataset.root
    store, why = strips.open_store(cache)
    maker = strips.StripMaker(tracklets, root, store)
    people = _people(root, tracklets, content) if dataset is not None else {}
    titles = _titles(d, dataset, cameras)

    known = ranked_lists.people_known(d)
    scores = ranked_lists.scores(d) if known else None
    lists = ranked_lists.ranked_lists(d, scores)
    picked = _pick(lists, maker, d, monitor)
    rows = [row for _, one in picked for row in (one.query, *one.found.tolist())]
    points = projection.choose(d, rows)
    drawn = len(points) >= projection.LEAST
    every = list(dict.fromkeys([*rows, *(points.tolist() if drawn else [])]))
    index = {row: number for number, row in enumerate(every)}
    thumbs = {row: number for number, row in enumerate(points.tolist())} if drawn else {}
    content.tracklets = [_tracklet(d, row, titles[row], maker, people, thumbs.get(row)) for row in every]
    content.lists = {"scored": known, "queries": [_query(group, one, index) for group, one in picked]}
    content.lists_note = _lists_note(picked, int(d.query.sum()), known)
    if not any(s.skeletons for s in maker.made.values() if s is not None):
        reason = why or f"{cache.name} has none of these tracklets"
        command = "csip skeletons --test-too" if known else "csip skeletons"
        content.skeletons_note = f"No skeletons: {reason}; `{command}` estimates them."
    if drawn:
        monitor.say(f"map of {len(points):,} descriptors")
        plane = (1000 * projection.project(d.features[points])).round().astype(int)
        content.map = {
            "thumbs": strips.thumbnails([tracklets.get(d.names[row]) for row in points], root),
            "columns": strips.COLUMNS,
            "points": [[index[row], x, y] for row, (x, y) in zip(points.tolist(), plane.tolist(), strict=True)],
            "people": any(t["person"] for t in content.tracklets),
        }
        whole = int((d.query | d.gallery).sum())
        count = f"All {whole:,}" if len(points) == whole else f"{len(points):,} of the {whole:,}"
        content.map_note = f"{count} tracklets of query and gallery."
    return Ranked(lists, None if scores is None else ranked_lists.cmc_curve(d, scores))


def add_attention(
    content: Content,
    model: Model,
    dataset: Dataset,
    cameras: Mapping[int, str],
    d: Descriptors,
    lists: Sequence[ranked_lists.RankedList],
    monitor: Monitor,
) -> None:
    """Add what the encoder looks at in some queries and in what they found first."""
    if model.digest != d.model:
        content.missing.append(
            f"Attention is left out: the descriptors were made by another model than {model.digest}."
        )
        return
    network = model.network
    assert isinstance(network, ReIDModel)
    camera_rows = model.embedder(dataset.name).camera_rows
    tracklets = _by_name(dataset)
    titles = _titles(d, dataset, cameras)
    chosen = heat.choose(lists, d.identities)
    for number, one in enumerate(chosen):
        sides = [
            {
                "name": d.names[row],
                "camera": titles[row],
                "frames": heat.look(
                    network.eval(), model.settings, camera_rows, dataset.root, tracklets.get(d.names[row])
                ),
            }
            for row in (one.query, int(one.found[0]))
        ]
        if all(side["frames"] for side in sides):
            content.cases.append({"sides": sides, "right": None if one.right is None else bool(one.right[0])})
        monitor.progress("attention", number + 1, len(chosen))


def _by_name(dataset: Dataset | None) -> dict[str, Tracklet]:
    parts = () if dataset is None else (dataset.train, dataset.query, dataset.gallery)
    return {t.name: t for part in parts for t in part}


def _titles(d: Descriptors, dataset: Dataset | None, names: Mapping[int, str]) -> list[str]:
    """Return what the camera of each described tracklet is called; numbers may have changed since it was described."""
    now = {name: tracklet.camera for name, tracklet in _by_name(dataset).items()}
    cameras = [now.get(name, camera) for name, camera in zip(d.names, d.cameras.tolist(), strict=True)]
    return [camera_title(camera, names) for camera in cameras]


def _people(root: Path, tracklets: Mapping[str, Tracklet], content: Content) -> dict[str, str]:
    """Return the person of each tracklet by ``labels.csv``, where that is there."""
    path = root / LABELS
    if not path.is_file():
        return {}
    try:
        people = parse_labels(path.read_bytes(), path, tracklets)
    except CsipError as error:
        content.notes.append(str(error))
        return {}
    content.people_note = f"Groups of tracklets are the people of {path.name}."
    if is_proposal(path):
        content.notes.append(
            f"The identities are a proposal of `csip cluster` in {path.name}, and nobody has corrected it: right, wrong and all "
            "metrics compare descriptors with a guess made from descriptors, not with the truth."
        )
    return people


def _pick(lists: list[ranked_lists.RankedList], maker: strips.StripMaker, d: Descriptors, monitor: Monitor) -> Picked:
    """Choose the queries that fit the page, in the order of `lists`, and make their strips."""
    needed = {row for one in lists for row in (one.query, *one.found.tolist())}
    maker.cell = strips.LARGE if len(needed) <= FEW else strips.SMALL
    order = ranked_lists.spread(lists)
    spent, picked, made = 0, [], set[int]()
    for number, (group, one) in enumerate(order):
        new = {one.query, *one.found.tolist()} - made
        size = _CARD + sum(s.size for s in (maker.strip(d.names[row]) for row in sorted(new)) if s is not None)
        if spent + size > STRIP_BUDGET:
            for row in new:
                del maker.made[d.names[row]]
            break
        spent += size
        made |= new
        picked.append((group, one))
        monitor.progress("ranked lists", number + 1, len(order))
    place = {one.query: number for number, one in enumerate(lists)}
    return sorted(picked, key=lambda pair: place[pair[1].query])


def _query(group: str, one: ranked_lists.RankedList, index: Mapping[int, int]) -> dict[str, Any]:
    return {
        "tracklet": index[one.query],
        "group": group,
        "precision": None if one.average_precision is None else round(one.average_precision, 4),
        "firstHit": one.first_hit,
        "found": [index[row] for row in one.found.tolist()],
        "distances": np.round(one.distances, 3).tolist(),
        "right": None if one.right is None else one.right.astype(int).tolist(),
    }


def _tracklet(
    d: Descriptors, row: int, camera: str, maker: strips.StripMaker, people: Mapping[str, str], thumb: int | None
) -> dict[str, Any]:
    name, pid = d.names[row], int(d.identities[row])
    tracklet = maker.tracklets.get(name)
    return {
        "name": name,
        "person": people.get(name) or (f"person {pid}" if pid > 0 else ""),
        "camera": camera,
        "length": 0 if tracklet is None else len(tracklet.frames),
        "thumb": thumb,
        "strip": strips.as_json(maker.made.get(name)),
    }


def _lists_note(picked: Picked, total: int, known: bool) -> str:
    what, order = ("queries", "worst first") if known else ("tracklets", "in the order of the data set")
    if len(picked) == total:
        return f"All {total:,} {what}, {order}."
    counts = {group: sum(g == group for g, _ in picked) for group in ("worst", "middle", "best")}
    which = ", ".join(f"{count:,} {group}" for group, count in counts.items() if count) or "spread over all"
    return f"{len(picked):,} of {total:,} {what} fit on this page ({which}), {order}."
