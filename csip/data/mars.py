"""MARS (Zheng et al., ECCV 2016), and every data set kept in its layout.

bbox_train/0001/0001C1T0001F001.jpg      identity, camera, tracklet, frame
bbox_test/0002/...                       identity 0000: distractors; folder 00-1: junk
info/train_name.txt, info/test_name.txt  file names, one per line
info/tracks_train_info.mat               rows start, end, identity, camera; start and end are 1-based, inclusive
info/tracks_test_info.mat                the same for the test tracklets
info/query_IDX.mat                       1-based rows of tracks_test_info that are queries
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from csip.data.dataset import JUNK, Dataset, Tracklet
from csip.data.index import Tree, indexed
from csip.data.matfiles import read_matrix
from csip.data.queries import check_queries
from csip.errors import CsipError


def load(
    root: Path, gallery: Literal["with_queries", "without_queries"] = "with_queries", name: str = "mars"
) -> Dataset:
    """Read the index files; no image is touched.

    Parameters
    ----------
    root
        The folder that holds ``info``, ``bbox_train`` and ``bbox_test``.
    gallery
        ``with_queries`` keeps the query tracklets in the gallery (the original protocol: MARS then has 11,310 gallery
        tracklets); ``without_queries`` takes them out (9,330; 140 queries then have no match). Junk is never in it.

    Raises
    ------
    CsipError
        A file is missing or cannot be read, or an index and the names it points to disagree.
    """
    root = Path(root)
    dataset = indexed(root, "mars", name, {}, lambda tree: _read(tree, name))
    return dataset.without_queries() if gallery == "without_queries" else dataset


def _read(tree: Tree, name: str) -> Dataset:
    train, test = _tracklets(tree, "train"), _tracklets(tree, "test")
    rows = read_matrix(tree, "info/query_IDX.mat", "query_IDX").reshape(-1) - 1
    if not rows.size or not (rows.min() >= 0 and rows.max() < len(test)):
        asked = f"rows {rows.min() + 1} to {rows.max() + 1}" if rows.size else "no rows"
        raise CsipError(
            f"{tree.root / 'info/query_IDX.mat'}: {asked} asked for, tracks_test_info.mat has rows 1 to {len(test)}"
        )
    check_queries(tree.root / "info/query_IDX.mat", test, rows + 1)
    return Dataset(
        name,
        tree.root,
        tuple(t for t in train if t.pid != JUNK),
        tuple(test[row] for row in rows),
        tuple(t for t in test if t.pid != JUNK),
    )


def _identity(file: str) -> int | None:
    """Return the identity that a frame's name begins with: 0001, 0000 for a distractor, 00-1 for junk."""
    text = file[:4]
    if text == "00-1":
        return JUNK
    return int(text) if text.isascii() and text.isdecimal() else None


def _tracklets(tree: Tree, part: str) -> list[Tracklet]:
    list_path = tree.root / "info" / f"{part}_name.txt"
    expected = f"the names of MARS's {part} frames; info, bbox_train and bbox_test belong into {tree.root}"
    names = tree.read(f"info/{part}_name.txt", expected).decode("utf-8-sig", errors="replace").split()
    path = tree.root / "info" / f"tracks_{part}_info.mat"
    info = read_matrix(tree, f"info/tracks_{part}_info.mat", f"track_{part}_info")
    if info.ndim != 2 or info.shape[1] != 4:
        raise CsipError(f"{path}: expected rows of start, end, identity, camera; got an array of shape {info.shape}")

    tracklets, seen = [], set()
    begun: dict[str, int] = {}
    for row, (start, end, pid, camera) in enumerate(info.tolist(), start=1):
        if not 1 <= start <= end <= len(names):
            raise CsipError(
                f"{path}: row {row} asks for names {start} to {end}; {list_path.name} has names 1 to {len(names)}"
            )
        files = names[start - 1 : end]
        prefix = f"{files[0][:4]}C{camera}"
        # A digit behind the prefix is of another camera: C1 is not C12.
        stray = next((file for file in files if not file.startswith(prefix) or file[len(prefix) :][:1].isdigit()), None)
        if stray is not None:
            raise CsipError(
                f"{path}: row {row} is identity {pid} at camera {camera}, but holds {stray} (expected {prefix}...)"
            )
        if _identity(files[0]) != pid:
            raise CsipError(
                f"{path}: row {row} is identity {pid}, but holds {files[0]}, which is of {files[0][:4]} by its name; the index "
                "and the names are of different versions: unpack both again"
            )
        if files[0] in begun:
            raise CsipError(f"{path}: rows {begun[files[0]]} and {row} both begin with {files[0]}")
        begun[files[0]] = row
        name = f"{part}/{files[0].rpartition('F')[0]}"
        if name in seen:
            name = f"{part}/{Path(files[0]).stem}"
        seen.add(name)
        tracklets.append(Tracklet(name, pid, camera, tuple(f"bbox_{part}/{file[:4]}/{file}" for file in files)))
    return tracklets
