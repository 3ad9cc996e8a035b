"""Your own people: one folder a person, a camera, and optionally a tracklet; or a table.

    root/PERSON/CAMERA/FRAME.jpg             one tracklet of this person at this camera
    root/PERSON/CAMERA/TRACKLET/FRAME.jpg    several
    root/train/PERSON/...  root/test/PERSON/...   where you decide who trains; otherwise a share of the people does

    root/tracklets.csv                       instead: a frame a line, wherever the files are below the root
        tracklet,person,camera,frame,part    part is optional: train, or test, or query and gallery
    root/labels.csv                          who is who, where the table leaves it open or is wrong; see `csip.data.labels`

A tracklet without a person is a distractor in the gallery. Where no tracklet has one, nobody can train: query and gallery
are all tracklets. More columns are welcome; ``video``, ``number`` (of the frame in it) and ``time`` (seconds) tell which
tracklets were in sight together.

Frames are taken in the order of their names, or of the table's lines. Person and camera may have any name; they are numbered
in sorted order.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from csip.data.csv_table import parse_table
from csip.data.dataset import DISTRACTOR, IMAGES, Dataset, Tracklet, is_image
from csip.data.index import Tree, indexed
from csip.data.labels import LABELS, parse_labels
from csip.errors import CsipError

TABLE = "tracklets.csv"
COLUMNS = ("tracklet", "person", "camera", "frame")
MORE = ("part", "video", "number", "time")
PARTS = ("train", "test", "query", "gallery")


def load(root: Path, train_share: float = 0.5, seed: int = 0, name: str = "folder") -> Dataset:
    """Read the folders or the table; no image is opened.

    Every test tracklet is a query, and the gallery is all of them: a query is ranked against the other cameras. Where the
    table says ``query`` and ``gallery`` instead of ``test``, they are just those.

    Raises
    ------
    CsipError
        The root is missing, no person folder is in it, a folder is empty, frames lie where a folder should, or a line of
        the table or of the labels cannot be used.
    """
    root = Path(root)
    if not root.is_dir():
        raise CsipError(f"{root}: no such folder; expected {root}/PERSON/CAMERA/[TRACKLET/]FRAME.jpg")
    options: dict[str, object] = {"train_share": train_share, "seed": seed}
    return indexed(root, "folder", name, options, lambda tree: _read(tree, name, train_share, seed))


def _read(tree: Tree, name: str, train_share: float, seed: int) -> Dataset:
    if tree.has_file(TABLE):
        return _read_table(tree, name, train_share, seed)
    if {"train", "test"} <= set(tree.folders()):
        parts = {part: [f"{part}/{person}" for person in tree.folders(part)] for part in ("train", "test")}
    else:
        parts = dict(zip(("train", "test"), _share(tree.folders(), train_share, seed), strict=True))
    for part, people in parts.items():
        if not people:
            raise CsipError(
                f"{tree.root}: no person folders to {part} on; at least one for training and one for the test are needed"
            )
    pids = {path: pid for pid, path in enumerate(sorted(parts["train"] + parts["test"]), start=1)}
    names = sorted({camera for path in pids for camera in tree.folders(path)})
    cameras = {camera: number for number, camera in enumerate(names, start=1)}

    def read(people: list[str]) -> tuple[Tracklet, ...]:
        return tuple(t for person in people for t in _person(tree, person, pids[person], cameras))

    test = read(parts["test"])
    return Dataset(name, tree.root, read(parts["train"]), test, test)


def _share(people: Sequence[str], train_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Divide people at random into those who train and those who are tested, at least one each, in order."""
    order = np.random.default_rng(seed).permutation(len(people))
    cut = min(max(round(train_share * len(people)), 1), len(people) - 1)
    return [people[i] for i in sorted(order[:cut])], [people[i] for i in sorted(order[cut:])]


def _person(tree: Tree, person: str, pid: int, cameras: dict[str, int]) -> list[Tracklet]:
    tracklets = []
    for camera in tree.folders(person):
        place = f"{person}/{camera}"
        for folder in [f"{place}/{name}" for name in tree.folders(place)] or [place]:
            frames = tuple(f"{folder}/{file}" for file in tree.files(folder) if is_image(file))
            if not frames:
                raise CsipError(f"{tree.root / folder}: no frames ({', '.join(sorted(IMAGES))}) in it")
            tracklets.append(Tracklet(folder, pid, cameras[camera], frames))
    if not tracklets:
        raise CsipError(
            f"{tree.root / person}: no camera folders in it; expected {Path(person).name}/CAMERA/[TRACKLET/]FRAME.jpg"
        )
    return tracklets


# ---- a table ---------------------------------------------------------------------------------------------------------


def _read_table(tree: Tree, name: str, train_share: float, seed: int) -> Dataset:
    where = tree.root / TABLE
    rows = _rows(tree)
    frames: dict[str, list[str]] = {}
    of: dict[str, tuple[str, str, str]] = {}
    lines: dict[str, int] = {}
    for number, row in rows:
        title, frame = row["tracklet"], row["frame"]
        about = (row["person"], row["camera"], row["part"])
        if of.setdefault(title, about) != about:
            raise CsipError(
                f"{where}: line {number} has tracklet {title} of person, camera, part {', '.join(about)}; before it was "
                f"{', '.join(of[title])}. A tracklet is one person at one camera: give the other one a name of its own"
            )
        if frame in lines:
            raise CsipError(f"{where}: lines {lines[frame]} and {number} are both frame {frame}")
        lines[frame] = number
        frames.setdefault(title, []).append(frame)

    person_of = {title: person for title, (person, _, _) in of.items()} | _labels(tree, of)
    people = sorted(set(person_of.values()) - {""})
    cameras = {camera: n for n, camera in enumerate(sorted({camera for _, camera, _ in of.values()}), start=1)}
    pids = {person: n for n, person in enumerate(people, start=1)} | {"": DISTRACTOR}
    tracklets = {
        title: Tracklet(title, pids[person_of[title]], cameras[of[title][1]], tuple(paths))
        for title, paths in frames.items()
    }
    if not people:
        everything = tuple(tracklets.values())
        return Dataset(name, tree.root, (), everything, everything)
    said = {part for _, _, part in of.values()}
    if said == {""}:
        if len(people) < 2:
            named = f"{TABLE} and {LABELS} name" if tree.has_file(LABELS) else f"{TABLE} names"
            raise CsipError(
                f"{tree.root}: {named} one person alone, {people[0]}; at least one for training and one for the test are needed"
            )
        training = set(_share(people, train_share, seed)[0])
        part_of = {title: "train" if person in training else "test" for title, person in person_of.items()}
    else:
        part_of = {title: part for title, (_, _, part) in of.items()}
    wrong = next((title for title, part in part_of.items() if part not in PARTS), None)
    if wrong is not None:
        raise CsipError(
            f"{where}: tracklet {wrong} has part {part_of[wrong]!r}; expected {', '.join(PARTS)} for all, or none"
        )

    nobody = next((t for t in tracklets if not person_of[t] and part_of[t] in ("train", "query")), None)
    if nobody is not None:
        raise CsipError(
            f"{where}: line {lines[frames[nobody][0]]} has no person, but part {part_of[nobody]}; name the person there or in "
            f"{LABELS}, or say gallery"
        )

    def chosen(*parts: str, known: bool = False) -> tuple[Tracklet, ...]:
        return tuple(
            t for title, t in tracklets.items() if part_of[title] in parts and (t.pid != DISTRACTOR or not known)
        )

    dataset = Dataset(name, tree.root, chosen("train"), chosen("query", "test", known=True), chosen("gallery", "test"))
    for part, members in (("train", dataset.train), ("query", dataset.query), ("gallery", dataset.gallery)):
        if not members:
            raise CsipError(f"{where}: no {part} tracklets; the column part says {', '.join(sorted(said))}")
    both = {t.pid for t in dataset.train} & {t.pid for t in dataset.query}
    if both:
        raise CsipError(f"{where}: person {people[min(both) - 1]} is both in train and tested")
    return dataset


def _labels(tree: Tree, known: Container[str]) -> dict[str, str]:
    """Return the people that ``labels.csv`` names, where there is one."""
    if not tree.has_file(LABELS):
        return {}
    return parse_labels(tree.read(LABELS, "the people of tracklets"), tree.root / LABELS, known)


def _rows(tree: Tree) -> list[tuple[int, dict[str, str]]]:
    """Return the table's lines with their numbers, every needed cell but the person filled."""
    where = tree.root / TABLE
    content = tree.read(TABLE, f"a table with the columns {', '.join(COLUMNS)}")
    rows = []
    for number, row in parse_table(content, where, COLUMNS):
        cells = {column: row.get(column, "") for column in (*COLUMNS, *MORE)}
        empty = next((column for column in COLUMNS if column != "person" and not cells[column]), None)
        if empty is not None:
            raise CsipError(f"{where}: line {number} has no {empty}")
        path = PurePosixPath(cells["frame"])
        if path.is_absolute() or ".." in path.parts or "\\" in cells["frame"]:
            raise CsipError(
                f"{where}: line {number} has frame {cells['frame']}; expected a path below {tree.root}, with /"
            )
        rows.append((number, cells))
    if not rows:
        raise CsipError(
            f"{where}: no lines below the head, so no tracklets; where `csip ingest` made it, it found nobody, or its rules "
            "left everybody out"
        )
    return rows


# ---- what else a table may say ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sighting:
    """Where and when a tracklet was seen, as far as the table says.

    Attributes
    ----------
    camera
        The camera's name.
    source
        The camera and the video; only times of one source can be compared.
    start, end
        The first and the last frame: numbers in the video, or else seconds. None where the table has neither.
    """

    camera: str
    source: tuple[str, str]
    start: float | None
    end: float | None


def read_sightings(root: Path) -> dict[str, Sighting]:
    """Read where and when each tracklet was seen from ``tracklets.csv``; empty where there is no such table.

    Raises
    ------
    CsipError
        A line of the table cannot be used.
    """
    tree = Tree(Path(root))
    if not tree.has_file(TABLE):
        return {}
    moments: dict[str, list[float]] = {}
    places: dict[str, tuple[str, tuple[str, str]]] = {}
    rows = _rows(tree)
    column = "number" if any(row["number"] for _, row in rows) else "time"
    for line, row in rows:
        title = row["tracklet"]
        places.setdefault(title, (row["camera"], (row["camera"], row["video"])))
        if row[column]:
            try:
                moments.setdefault(title, []).append(float(row[column]))
            except ValueError as error:
                raise CsipError(
                    f"{tree.root / TABLE}: line {line} has {column} {row[column]}; expected a number"
                ) from error
    return {
        title: Sighting(*place, *((min(seen), max(seen)) if (seen := moments.get(title)) else (None, None)))
        for title, place in places.items()
    }


def camera_names(dataset: Dataset) -> dict[int, str]:
    """Return the names of a data set's cameras by their numbers, where a table has them; otherwise none."""
    sightings = read_sightings(dataset.root)
    everyone = (*dataset.train, *dataset.query, *dataset.gallery)
    return {t.camera: sightings[t.name].camera for t in everyone if t.name in sightings}


def read_people(root: Path, labels: bool = True) -> dict[str, str]:
    """Read the name of each tracklet's person, where it is known; empty where there is no table.

    Parameters
    ----------
    labels
        Whether ``labels.csv`` counts.

    Raises
    ------
    CsipError
        A line of the table or of the labels cannot be used.
    """
    tree = Tree(Path(root))
    if not tree.has_file(TABLE):
        return {}
    named = {row["tracklet"]: row["person"] for _, row in _rows(tree)}
    if labels:
        named |= _labels(tree, named)
    return {title: person for title, person in named.items() if person}
