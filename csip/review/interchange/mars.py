"""MARS's layout: bbox_train, bbox_test and info, see `csip.data.mars`; ``people.csv`` has the names behind the numbers.

What comes back is matched by the content of the pictures, so that folders and files may be renamed as MARS's names allow.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.io import savemat

from csip.data import mars
from csip.data.csv_table import format_rows
from csip.data.dataset import DISTRACTOR, Dataset, Tracklet
from csip.errors import CsipError
from csip.files import digest, write_text
from csip.monitor import Monitor
from csip.review.interchange.tracks import PEOPLE, PERSON, Matched, read_people

_JPEG = (".jpg", ".jpeg")
_MOST_PEOPLE, _MOST_FRAMES = 9999, 999  # that MARS's names of files have digits for
_ENOUGH = 0.5  # share of a tracklet's pictures that are there


def write_mars(dataset: Dataset, people: Mapping[str, str], out: Path, monitor: Monitor) -> None:
    """Write a data set into a folder: its training part, and the gallery with the queries as the test part.

    Parameters
    ----------
    people
        The name of each tracklet's person, where it has one.

    Raises
    ------
    CsipError
        There are more people than MARS has numbers for, or a frame is no JPEG.
    """
    test = tuple(dict.fromkeys((*dataset.gallery, *dataset.query)))
    everything = (*dataset.train, *test)
    most = max((t.pid for t in everything), default=0)
    if most > _MOST_PEOPLE:
        raise CsipError(
            f"{dataset.root}: MARS has numbers for {_MOST_PEOPLE:,} people, found {most:,}; export another format"
        )
    total, done = sum(len(t.frames) for t in everything), 0
    turns: Counter[tuple[int, int]] = Counter()
    (out / "info").mkdir(parents=True)
    for part, tracklets in (("train", dataset.train), ("test", test)):
        names: list[str] = []
        rows = []
        for tracklet in tracklets:
            turns[tracklet.pid, tracklet.camera] += 1
            files = _file_names(tracklet, turns[tracklet.pid, tracklet.camera], dataset.root)
            folder = out / f"bbox_{part}" / files[0][:4]
            folder.mkdir(parents=True, exist_ok=True)
            for frame, file in zip(tracklet.frames, files, strict=True):
                shutil.copyfile(dataset.root / frame, folder / file)
                done += 1
                monitor.progress("copying pictures", done, total)
            rows.append((len(names) + 1, len(names) + len(files), tracklet.pid, tracklet.camera))
            names += files
        write_text(out / f"info/{part}_name.txt", "".join(f"{name}\n" for name in names))
        savemat(out / f"info/tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, np.int32).reshape(-1, 4)})
    place = {tracklet.name: row for row, tracklet in enumerate(test, start=1)}
    savemat(out / "info/query_IDX.mat", {"query_IDX": np.array([[place[t.name] for t in dataset.query]], np.int32)})
    known = sorted({(t.pid, people[t.name]) for t in everything if t.pid > DISTRACTOR and t.name in people})
    if known:
        write_text(out / PEOPLE, format_rows([("id", PERSON), *known]))


def match_mars(folder: Path, dataset: Dataset, monitor: Monitor) -> Matched:
    """Give each tracklet of a data set the person whose pictures in MARS's layout are its own.

    Raises
    ------
    CsipError
        The folder is not in MARS's layout.
    """
    there = mars.load(folder)
    names = read_people(folder)
    # A picture that several people have tells nothing.
    owners: dict[str, int | None] = {}
    parts = {t.name: t for t in (*there.train, *there.gallery, *there.query)}
    for count, tracklet in enumerate(parts.values(), start=1):
        for frame in tracklet.frames:
            key = digest(there.root / frame)
            owners[key] = tracklet.pid if owners.get(key, tracklet.pid) == tracklet.pid else None
        monitor.progress("reading pictures", count, len(parts))
    people: dict[str, str] = {}
    unknown, missing, mixed = [], [], []
    for tracklet in {t.name: t for t in (*dataset.train, *dataset.query, *dataset.gallery)}.values():
        found = Counter(owners.get(digest(dataset.root / frame)) for frame in tracklet.frames)
        found.pop(None, None)
        best = found.most_common(1)
        if not best or best[0][1] < _ENOUGH * len(tracklet.frames):
            missing.append(tracklet.name)
        elif len(found) > 1:
            mixed.append(tracklet.name)
        elif best[0][0] == DISTRACTOR:
            unknown.append(tracklet.name)
        else:
            number = str(best[0][0])
            people[tracklet.name] = names.get(number, number) or number
    return Matched(people, tuple(unknown), tuple(missing), tuple(mixed))


def _file_names(tracklet: Tracklet, turn: int, root: Path) -> list[str]:
    wrong = next((frame for frame in tracklet.frames if not frame.lower().endswith(_JPEG)), None)
    if wrong is not None:
        raise CsipError(f"{root / wrong}: expected a JPEG, which is all that MARS's layout holds; convert the frames")
    if len(tracklet.frames) > _MOST_FRAMES:
        raise CsipError(
            f"{root}: tracklet {tracklet.name} has {len(tracklet.frames):,} frames, more than the {_MOST_FRAMES} that MARS has "
            "numbers for; export another format"
        )
    start = f"{tracklet.pid:04d}C{tracklet.camera}T{turn:04d}F"
    return [f"{start}{number:03d}.jpg" for number in range(1, len(tracklet.frames) + 1)]
