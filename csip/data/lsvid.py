"""LS-VID (Li et al., ICCV 2019).

tracklet_train/0000/0000_0000_07_000001.jpg    identity, tracklet, camera, frame
tracklet_test/0842/...
list_sequence/list_seq_train.txt               one tracklet per line: the prefix of its frames' names, and the identity
list_sequence/list_seq_test.txt
test/data/info_test.mat                        HDF5; `query`: 1-based lines of list_seq_test.txt that are queries

The lists count identities from 0, which stands for a distractor here: all are raised by one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from csip.data.dataset import JUNK, Dataset, Tracklet, is_image
from csip.data.index import Tree, indexed
from csip.data.matfiles import read_matrix
from csip.data.names import natural_order
from csip.data.queries import check_queries
from csip.errors import CsipError

QUERIES = "test/data/info_test.mat"


def load(
    root: Path,
    gallery: Literal["with_queries", "without_queries"] = "with_queries",
    piece_frames: int | None = 48,
    name: str = "lsvid",
) -> Dataset:
    """Read the lists and the names of the frames; no image is opened.

    Parameters
    ----------
    root
        The folder that holds ``list_sequence``, ``tracklet_train``, ``tracklet_test`` and ``test``.
    gallery
        ``with_queries`` ranks all test tracklets, ``without_queries`` those that are no query.
    piece_frames
        Training tracklets of twice that length or more are cut into pieces of so many frames; the last piece takes what is
        left. None keeps all whole.

    Raises
    ------
    CsipError
        A file is missing or cannot be read, a tracklet has no frames, two tracklets have one name, or a tracklet's frames
        were taken by several cameras.
    """
    root = Path(root)
    dataset = indexed(root, "lsvid", name, {"piece_frames": piece_frames}, lambda tree: _read(tree, name, piece_frames))
    return dataset.without_queries() if gallery == "without_queries" else dataset


def _read(tree: Tree, name: str, piece_frames: int | None) -> Dataset:
    train, test = _tracklets(tree, "train"), _tracklets(tree, "test")
    rows = read_matrix(tree, QUERIES, "query").reshape(-1)
    if not len(rows) or rows.min() < 1 or rows.max() > len(test):
        found = f"{rows.min()} to {rows.max()}" if len(rows) else "none"
        raise CsipError(
            f"{tree.root / QUERIES}: query should hold lines of list_seq_test.txt, 1 to {len(test)}, found {found}"
        )
    check_queries(tree.root / QUERIES, test, rows)
    query = tuple(test[row - 1] for row in rows)
    return Dataset(
        name,
        tree.root,
        tuple(piece for t in train if t.pid != JUNK for piece in cut(t, piece_frames)),
        query,
        tuple(t for t in test if t.pid != JUNK),
    )


def cut(tracklet: Tracklet, frames: int | None) -> list[Tracklet]:
    """Cut a tracklet into pieces of so many frames, named ``NAME/1`` and so on; the last takes what is left."""
    count = 1 if frames is None else len(tracklet.frames) // frames
    if count < 2 or frames is None:
        return [tracklet]
    starts = [i * frames for i in range(count)]
    ends = [*starts[1:], len(tracklet.frames)]
    return [
        Tracklet(f"{tracklet.name}/{i}", tracklet.pid, tracklet.camera, tracklet.frames[start:end])
        for i, (start, end) in enumerate(zip(starts, ends, strict=True), start=1)
    ]


def _tracklets(tree: Tree, part: str) -> list[Tracklet]:
    path = f"list_sequence/list_seq_{part}.txt"
    where = tree.root / path
    content = tree.read(path, "LS-VID's list of tracklets, one path and identity per line")
    text = content.decode("utf-8-sig", errors="replace")
    tracklets: list[Tracklet] = []
    lines: dict[str, int] = {}
    identities: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        beginning, _, pid = line.strip().rpartition(" ")
        if not beginning or not pid.removeprefix("-").isdecimal():
            raise CsipError(f"{where}: line {number} is {line!r}; expected a path and an identity")
        beginning = beginning.strip().rstrip("_")
        if beginning in lines:
            raise CsipError(f"{where}: lines {lines[beginning]} and {number} are both {beginning}")
        lines[beginning] = number
        folder, _, start = beginning.rpartition("/")
        files = _beginning_with(tree.files(folder), start + "_")
        if not files:
            raise CsipError(f"{where}: line {number} is {beginning}, but there is no frame {tree.root / beginning}_*")
        cameras = {file.split("_")[2] if file.count("_") > 2 else "" for file in files}
        if len(cameras) > 1:
            raise CsipError(
                f"{where}: line {number}, {beginning}, has frames of the cameras {', '.join(sorted(cameras))}"
            )
        camera = cameras.pop()
        if not camera.isdecimal():
            raise CsipError(
                f"{tree.root / folder / files[0]}: the third field of a frame's name should be the camera "
                "(IDENTITY_TRACKLET_CAMERA_FRAME)"
            )
        person = JUNK if int(pid) == JUNK else int(pid) + 1
        said = identities.setdefault(files[0].partition("_")[0], (pid, number))
        if said[0] != pid:
            raise CsipError(
                f"{where}: line {number} gives {files[0]} the identity {pid}, line {said[1]} gave a frame of the same name "
                f"{said[0]}; the first field of a frame's name is one person"
            )
        tracklets.append(Tracklet(beginning, person, int(camera), tuple(f"{folder}/{file}" for file in files)))
    if not tracklets:
        raise CsipError(f"{where}: no tracklets in it")
    return tracklets


def _beginning_with(names: Sequence[str], start: str) -> list[str]:
    first = bisect_left(names, start)
    end = first
    while end < len(names) and names[end].startswith(start):
        end += 1
    return sorted(filter(is_image, names[first:end]), key=natural_order)
