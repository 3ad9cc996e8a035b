"""Your own pictures: one folder per person, per camera, and optionally per tracklet; or a table.

    root/PERSON/CAMERA/FRAME.jpg             one tracklet of this person at this camera
    root/PERSON/CAMERA/TRACKLET/FRAME.jpg    several
    root/train/PERSON/...  root/test/PERSON/...   your split; otherwise a share of the people is used for training

    root/tracklets.csv                       instead: one frame per row; the files may be anywhere below the root
        tracklet,person,camera,frame,part    part is optional: train, or test, or query and gallery
    root/labels.csv                          identities that fill or replace those of the table; see `csip.data.labels`

A tracklet without a person is a distractor in the gallery. Where no tracklet has one, nobody can train: query and gallery
are all tracklets. More columns are welcome; ``video``, ``number`` (of the frame in it) and ``time`` (seconds) tell which
tracklets were in sight together.

Frames are taken in the natural order of their names (1, 2, 10); in a table in the order of ``number`` (or ``frame number``,
``frame_id``, ``frame index``), else of ``time`` (or ``timestamp``, ``seconds``), else of its lines. Person and camera may have
any name; they are numbered in sorted order. A name is the same however Unicode writes it. Who is both in train and in test is
one person. A camera folder may hold frames and folders of tracklets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import numpy as np

from csip.data.csv_table import parse_table
from csip.data.dataset import DISTRACTOR, IMAGES, Dataset, Tracklet
from csip.data.index import Tree, indexed
from csip.data.labels import LABELS, parse_labels
from csip.data.names import canonical, is_nobody
from csip.data.numerals import parse_number
from csip.errors import CsipError
from pose_cache.json_tree import FOLDER_NAME

TABLE = "tracklets.csv"
COLUMNS = ("tracklet", "person", "camera", "frame")
MORE = ("part", "video", "number", "time")
PARTS = ("train", "test", "query", "gallery")
# Columns of other programs that say the same.
_SAME = {
    "number": ("number", "frame number", "framenumber", "frame no", "frame num", "frame id", "frameid", "frame index",
               "frame idx"),
    "time": ("time", "timestamp", "time stamp", "seconds"),
}  # fmt: skip
# Names of parts of data sets, in small letters: folders that are called so are no people.
_PEOPLE_TOO = {"val", "valid"}
_PART_NAMES = {
    *PARTS, "training", "testing", "val", "valid", "validation", "probe", "bbox_train", "bbox_test", "bounding_box_train",
    "bounding_box_test",
}  # fmt: skip


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
        parts = {part: _by_name(f"{part}/{person}" for person in tree.folders(part)) for part in ("train", "test")}
    else:
        parts_of = [name for name in tree.folders() if name.casefold() in _PART_NAMES]
        if len(parts_of) > 1 or not _PEOPLE_TOO.issuperset(name.casefold() for name in parts_of):
            raise CsipError(
                f"{tree.root}: the folders {', '.join(parts_of)} are called as parts of a data set, not as people; expected "
                f"train and test, in small letters, or a table {TABLE} with the column part"
            )
        everyone = _by_name(name for name in tree.folders() if not _is_ours(name))
        shares = zip(("train", "test"), _share(sorted(everyone), train_share, seed), strict=True)
        parts = {part: {person: everyone[person] for person in people} for part, people in shares}
    for part, people in parts.items():
        if unknown := next(filter(is_nobody, people), None):
            raise CsipError(
                f"{tree.root}: the folder of a person is called {unknown!r}: all who are unknown would be one person; name them, "
                f"or use a table {TABLE}, whose tracklets need no person"
            )
        if not people:
            raise CsipError(
                f"{tree.root}: no person folders to {part} on; at least one for training and one for the test are needed"
            )
    people_of = [(path, person) for people in parts.values() for person, paths in people.items() for path in paths]
    pids = {person: pid for pid, person in enumerate(dict.fromkeys(person for _, person in sorted(people_of)), start=1)}
    names = sorted({canonical(camera) for path, _ in people_of for camera in tree.folders(path)})
    cameras = {camera: number for number, camera in enumerate(names, start=1)}

    def read(people: dict[str, list[str]]) -> tuple[Tracklet, ...]:
        return tuple(
            t for person, paths in people.items() for path in paths for t in _person(tree, path, pids[person], cameras)
        )

    train, test = read(parts["train"]), read(parts["test"])
    if tree.links:
        _refuse_one_folder_twice(tree, (*train, *test))
    return Dataset(name, tree.root, train, test, test)


def _refuse_one_folder_twice(tree: Tree, tracklets: Iterable[Tracklet]) -> None:
    """Refuse links that make two people, or two cameras, of one folder."""
    owners: dict[str, str] = {}
    for tracklet in tracklets:
        real = os.path.realpath(tree.root / tracklet.name)
        if owners.setdefault(real, tracklet.name) != tracklet.name:
            raise CsipError(
                f"{tree.root}: {owners[real]} and {tracklet.name} are one folder, by a link, and would count twice"
            )


def unread_parts(root: Path) -> list[str]:
    """Name the folders beside ``train`` and ``test`` that hold people: they are in neither part."""
    tree = Tree(root)
    if tree.has_file(TABLE) or not {"train", "test"} <= set(tree.folders()):
        return []
    beside = [name for name in tree.folders() if name not in ("train", "test") and not _is_ours(name)]
    return [part for part in beside if any(map(tree.frames, _two_down(tree, part)))]


def _two_down(tree: Tree, part: str) -> Iterator[str]:
    """Yield the camera folders and the tracklet folders below a part."""
    for person in tree.folders(part):
        for camera in tree.folders(f"{part}/{person}"):
            yield f"{part}/{person}/{camera}"
            yield from (f"{part}/{person}/{camera}/{name}" for name in tree.folders(f"{part}/{person}/{camera}"))


def _by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the folders of each person: two where a name is on the disk in two of Unicode's forms."""
    people: dict[str, list[str]] = {}
    for path in paths:
        people.setdefault(canonical(path.rpartition("/")[2]), []).append(path)
    return people


def _is_ours(name: str) -> bool:
    """Whether a folder is one that skeletons are in: shards of an extraction, or JSON files."""
    return name.endswith(".shards") or name.startswith(FOLDER_NAME)


def _share(people: Sequence[str], train_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Divide people at random into those who train and those who are tested, at least one each, in order."""
    order = np.random.default_rng(seed).permutation(len(people))
    cut = min(max(round(train_share * len(people)), 1), len(people) - 1)
    return [people[i] for i in sorted(order[:cut])], [people[i] for i in sorted(order[cut:])]


def _person(tree: Tree, person: str, pid: int, cameras: dict[str, int]) -> list[Tracklet]:
    tracklets = []
    if loose := tree.frames(person):
        raise CsipError(
            f"{tree.root / person}: {len(loose)} frames lie beside the camera folders, e.g. {loose[0]}; expected "
            f"{Path(person).name}/CAMERA/[TRACKLET/]FRAME.jpg"
        )
    for camera in tree.folders(person):
        place = f"{person}/{camera}"
        inner = [f"{place}/{name}" for name in tree.folders(place)]
        # Frames beside folders of tracklets are a tracklet of their own.
        for folder in [*([place] if not inner or tree.frames(place) else []), *inner]:
            frames = tuple(f"{folder}/{file}" for file in tree.frames(folder))
            if not frames:
                raise CsipError(f"{tree.root / folder}: no frames ({', '.join(sorted(IMAGES))}) in it")
            deeper = [name for name in tree.folders(folder) if folder != place and tree.frames(f"{folder}/{name}")]
            if deeper:
                raise CsipError(
                    f"{tree.root / folder / deeper[0]}: frames lie deeper than PERSON/CAMERA/TRACKLET; make it a tracklet "
                    "folder of its own, or move it out"
                )
            tracklets.append(Tracklet(folder, pid, cameras[canonical(camera)], frames))
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
    moments: dict[str, list[float | None]] = {}
    clock = clock_of(rows)
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
        moments.setdefault(title, []).append(_moment(row[clock], clock, number, where))
    for title, paths in frames.items():
        frames[title] = _in_time(paths, moments[title], f"{where}: tracklet {title}", clock)

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
    lines, rows = list(parse_table(content, where, COLUMNS)), []
    clocks = {column: _clock(lines, names) for column, names in _SAME.items()}
    for number, row in lines:
        cells = {column: row.get(column, "") for column in (*COLUMNS, *MORE)}
        cells |= {column: row[name] if name else "" for column, name in clocks.items()}
        cells |= {column: canonical(cells[column]) for column in ("tracklet", "person", "camera")}
        empty = next((column for column in COLUMNS if column != "person" and not cells[column]), None)
        if empty is not None:
            raise CsipError(f"{where}: line {number} has no {empty}")
        nobody = next((column for column in ("person", "camera") if is_nobody(cells[column])), None)
        if nobody is not None:
            raise CsipError(
                f"{where}: line {number} has the {nobody} {cells[nobody]!r}, as programs write where nothing is known; "
                + ("leave the cell empty" if nobody == "person" else "name the camera, which tells who can match whom")
                + ", or write another name"
            )
        path = PurePosixPath(cells["frame"])
        if path.is_absolute() or ".." in path.parts or "\\" in cells["frame"]:
            raise CsipError(
                f"{where}: line {number} has frame {cells['frame']}; expected a path below {tree.root}, with /"
            )
        cells["frame"] = str(path)  # ./a//b is a/b
        rows.append((number, cells))
    if not rows:
        raise CsipError(
            f"{where}: no lines below the head, so no tracklets; if it was made of videos, nobody was found in them, or "
            "the rules left everybody out"
        )
    return rows


def _clock(lines: Sequence[tuple[int, dict[str, str]]], names: Sequence[str]) -> str:
    """Return the name of the first of some columns that is there and has something in it; empty where none has."""
    head = lines[0][1] if lines else {}
    spelled = {name.replace("_", " "): name for name in head}
    there = (spelled[name] for name in names if name in spelled)
    return next((name for name in there if any(row[name] for _, row in lines)), "")


def clock_of(rows: Sequence[tuple[int, dict[str, str]]]) -> str:
    """Return the column that tells when a frame was taken: ``number`` where a line has one, else ``time``."""
    return "number" if any(row["number"] for _, row in rows) else "time"


def _moment(cell: str, column: str, line: int, where: Path) -> float | None:
    try:
        moment = None if not cell else _seconds(cell) if column == "time" else parse_number(cell)
    except ValueError as error:
        raise CsipError(f"{where}: line {line} has {column} {cell}; expected a number") from error
    if moment is not None and not math.isfinite(moment):
        raise CsipError(f"{where}: line {line} has {column} {cell}; expected a finite number")
    return moment


def _seconds(cell: str) -> float:
    """Return a time in seconds: a number, or a date and a time as ISO 8601 writes them."""
    try:
        return parse_number(cell)
    except ValueError:
        date = datetime.fromisoformat(cell)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _in_time(frames: list[str], moments: list[float | None], what: str, column: str) -> list[str]:
    """Return a tracklet's frames in the order of their moments; as they are where no line has one."""
    known = [moment for moment in moments if moment is not None]
    if not known:
        return frames
    if len(known) < len(frames):
        raise CsipError(
            f"{what} has a {column} on {len(known)} of its {len(frames)} lines; fill all of them, or leave all empty to keep the "
            "order of the lines"
        )
    return [frame for _, frame in sorted(zip(known, frames, strict=True), key=lambda pair: pair[0])]


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
    column = clock_of(rows)
    for line, row in rows:
        title = row["tracklet"]
        places.setdefault(title, (row["camera"], (row["camera"], row["video"])))
        moment = _moment(row[column], column, line, tree.root / TABLE)
        if moment is not None:
            moments.setdefault(title, []).append(moment)
    return {
        title: Sighting(*place, *((min(seen), max(seen)) if (seen := moments.get(title)) else (None, None)))
        for title, place in places.items()
    }


def camera_names(dataset: Dataset) -> dict[int, str]:
    """Return the names of a data set's cameras by their numbers, where a table has them; otherwise none."""
    sightings = read_sightings(dataset.root)
    everyone = (*dataset.train, *dataset.query, *dataset.gallery)
    return {t.camera: sightings[t.name].camera for t in everyone if t.name in sightings}


def names_in(root: Path) -> tuple[set[str], set[str]]:
    """Return the names of all people and of all cameras, of the table and the labels or of the folders."""
    tree = Tree(Path(root))
    if tree.has_file(TABLE):
        rows = [row for _, row in _rows(tree)]
        named = {row["tracklet"]: row["person"] for row in rows}
        people = {*named.values(), *_labels(tree, named).values()}
        return people - {""}, {row["camera"] for row in rows}
    parts = [part for part in ("train", "test") if {"train", "test"} <= set(tree.folders())] or [""]
    paths = [f"{part}/{person}".lstrip("/") for part in parts for person in tree.folders(part) if not _is_ours(person)]
    return (
        {canonical(path.rpartition("/")[2]) for path in paths},
        {canonical(camera) for path in paths for camera in tree.folders(path)},
    )


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
