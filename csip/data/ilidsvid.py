"""iLIDS-VID (Wang et al., ECCV 2014): 300 identities, two cameras, ten splits into training and test identities.

i-LIDS-VID/sequences/cam1/person001/cam1_person001_00317.png
i-LIDS-VID/sequences/cam2/person001/...
train-test people splits/train_test_splits_ilidsvid.mat    `ls_set` (10, 300): 1-based; the first half is for training
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csip.data.dataset import Dataset, Tracklet
from csip.data.index import Tree, indexed
from csip.data.matfiles import read_matrix
from csip.errors import CsipError

SEQUENCES = "i-LIDS-VID/sequences"
SPLITS = "train-test people splits/train_test_splits_ilidsvid.mat"
CAMERAS = {"cam1": 1, "cam2": 2}


def load(root: Path, split: int = 0, name: str = "ilidsvid") -> Dataset:
    """Read the names of the frames and one split; no image is opened.

    The identity is the person's place among the person folders, from 1: the splits count like that. Camera 1 is the
    query, camera 2 the gallery.

    Parameters
    ----------
    root
        The folder that holds ``i-LIDS-VID`` and ``train-test people splits``.
    split
        Index of the split, 0 to 9.

    Raises
    ------
    CsipError
        A file or folder is missing or empty, a person is not in both cameras, or the splits are not of these people.
    """
    root = Path(root)
    return indexed(root, "ilidsvid", name, {"split": split}, lambda tree: _read(tree, name, split))


def _read(tree: Tree, name: str, split: int) -> Dataset:
    seen = {camera: tree.folders(f"{SEQUENCES}/{camera}") for camera in CAMERAS}
    for camera, people in seen.items():
        if not people:
            raise CsipError(f"{tree.root / SEQUENCES / camera}: no person folders in it (personNNN/*.png)")
    alone = sorted(set(seen["cam1"]) ^ set(seen["cam2"]))
    if alone:
        raise CsipError(
            f"{tree.root / SEQUENCES}: {len(alone)} people are in one camera only, e.g. {alone[0]}; unpack the archive again"
        )
    people = seen["cam1"]
    where = tree.root / SPLITS
    divisions = read_matrix(tree, SPLITS, "ls_set")
    if divisions.ndim != 2 or divisions.shape[1] != len(people):
        raise CsipError(
            f"{where}: ls_set has shape {divisions.shape}, expected one row per split with the {len(people)} people of "
            f"{SEQUENCES}"
        )
    if not 0 <= split < len(divisions):
        raise CsipError(f"dataset.split is {split}, but {where} has splits 0 to {len(divisions) - 1}")
    row = divisions[split]
    if (np.sort(row) != np.arange(1, len(people) + 1)).any():
        raise CsipError(
            f"{where}: row {split + 1} should hold each of 1 to {len(people)} once, found {row.min()} to {row.max()}, "
            f"{len(np.unique(row))} different ones"
        )
    half = len(people) // 2
    train = [_tracklet(tree, camera, people, pid) for pid in sorted(row[:half].tolist()) for camera in CAMERAS]
    test = sorted(row[half:].tolist())
    query, gallery = (tuple(_tracklet(tree, camera, people, pid) for pid in test) for camera in CAMERAS)
    return Dataset(name, tree.root, tuple(train), query, gallery)


def _tracklet(tree: Tree, camera: str, people: list[str], pid: int) -> Tracklet:
    person = people[pid - 1]
    folder = f"{SEQUENCES}/{camera}/{person}"
    files = tree.frames(folder)
    if not files:
        raise CsipError(f"{tree.root / folder}: no frames in it")
    stray = next((file for file in files if not file.startswith(f"{camera}_{person}_")), None)
    if stray is not None:
        raise CsipError(f"{tree.root / folder / stray}: expected a frame of {person} at {camera} ({camera}_{person}_*)")
    return Tracklet(f"{camera}/{person}", pid, CAMERAS[camera], tuple(f"{folder}/{file}" for file in files))
