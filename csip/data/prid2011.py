"""PRID2011, its multi-shot part (Hirzer et al., SCIA 2011): two cameras, 200 people seen by both.

prid_2011/multi_shot/cam_a/person_0001/0001.png
prid_2011/multi_shot/cam_b/person_0001/...
splits_prid2011.json     optional: ten splits, [{"train": ["person_0001", ...], "test": [...]}, ...]

People 1 to 200 are the same in both cameras. As is usual, those of them count who have more than 21 frames in both: 178.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csip.data.dataset import Dataset, Tracklet
from csip.data.index import Tree, indexed
from csip.errors import CsipError
from csip.files import parse_json

FRAMES = "prid_2011/multi_shot"
SPLITS = "splits_prid2011.json"
CAMERAS = {"cam_a": 1, "cam_b": 2}
SHARED, SHORTEST = 200, 22
DIVISIONS = 10


def load(root: Path, split: int = 0, name: str = "prid2011") -> Dataset:
    """Read the names of the frames; no image is opened. Camera a is the query, camera b the gallery.

    Parameters
    ----------
    root
        The folder that holds ``prid_2011``.
    split
        Index of the split: of ``splits_prid2011.json`` if that file exists; otherwise a random half is the training split, drawn
        with this number as the seed (0 to 9).

    Raises
    ------
    CsipError
        A folder is missing or empty, there is no such split, or it names people who are missing.
    """
    root = Path(root)
    return indexed(root, "prid2011", name, {"split": split}, lambda tree: _read(tree, name, split))


def _read(tree: Tree, name: str, split: int) -> Dataset:
    seen = {}
    for camera in CAMERAS:
        folders = tree.folders(f"{FRAMES}/{camera}")
        if not folders:
            raise CsipError(f"{tree.root / FRAMES / camera}: no person folders in it (person_NNNN/*.png)")
        numbered = [f for f in folders if f.startswith("person_") and f.removeprefix("person_").isdecimal()]
        stray = sorted(set(folders) - set(numbered))
        if stray:
            raise CsipError(f"{tree.root / FRAMES / camera / stray[0]}: expected a folder person_NNNN")
        seen[camera] = {f: _frames(tree, f"{FRAMES}/{camera}/{f}") for f in numbered if int(f[7:]) <= SHARED}
    shared = sorted(set(seen["cam_a"]) & set(seen["cam_b"]))
    people = [p for p in shared if all(len(seen[camera][p]) >= SHORTEST for camera in CAMERAS)]
    if len(people) < 2:
        raise CsipError(
            f"{tree.root / FRAMES}: {len(people)} people have more than {SHORTEST - 1} frames in both cameras, expected 178"
        )
    train, test = _division(tree, people, split)

    def of(camera: str, chosen: list[str]) -> tuple[Tracklet, ...]:
        return tuple(Tracklet(f"{camera}/{p}", int(p[7:]), CAMERAS[camera], seen[camera][p]) for p in chosen)

    both = tuple(sorted((*of("cam_a", train), *of("cam_b", train)), key=lambda t: (t.pid, t.camera)))
    return Dataset(name, tree.root, both, of("cam_a", test), of("cam_b", test))


def _frames(tree: Tree, folder: str) -> tuple[str, ...]:
    files = tuple(f"{folder}/{file}" for file in tree.frames(folder))
    if not files:
        raise CsipError(f"{tree.root / folder}: no frames in it")
    return files


def _division(tree: Tree, people: list[str], split: int) -> tuple[list[str], list[str]]:
    """Return who trains and who is tested, each sorted."""
    if not tree.has_file(SPLITS):
        if not 0 <= split < DIVISIONS:
            raise CsipError(f"dataset.split is {split}, expected 0 to {DIVISIONS - 1}")
        order = np.random.default_rng(split).permutation(len(people))
        drawn = [people[i] for i in order]
        return sorted(drawn[: len(people) // 2]), sorted(drawn[len(people) // 2 :])
    where = tree.root / SPLITS
    try:
        divisions = [(_people(d["train"]), _people(d["test"])) for d in parse_json(tree.read(SPLITS, "JSON"))]
    except (ValueError, TypeError, LookupError) as error:
        raise CsipError(f'{where}: expected a JSON list of {{"train": [...], "test": [...]}} ({error!r})') from error
    if not 0 <= split < len(divisions):
        raise CsipError(f"dataset.split is {split}, but {where} has splits 0 to {len(divisions) - 1}")
    train, test = divisions[split]
    unknown = sorted({*train, *test} - set(people))
    if unknown:
        raise CsipError(
            f"{where}: split {split} names {unknown[0]}, who is not among the {len(people)} people of {FRAMES}"
        )
    both = sorted(set(train) & set(test))
    if both:
        raise CsipError(f"{where}: split {split} has {both[0]} in both train and test")
    return train, test


def _people(names: object) -> list[str]:
    """Return the people of a part, sorted, where they are a list of names."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of people, found {names!r:.80}")
    return sorted(names)
