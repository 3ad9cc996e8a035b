from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from csip.data import folder, mars
from csip.data.dataset import fingerprint, hold_out, number_cameras, relabel
from csip.errors import CsipError


def make_mars(root: Path) -> Path:
    """A miniature in MARS's format: index files alone, since a reader touches no image."""
    (root / "info").mkdir(parents=True)
    parts = {
        "train": [("0003", 3, 1, 2), ("0003", 3, 2, 3), ("0007", 7, 1, 1), ("0007", 7, 4, 2), ("0009", 9, 1, 1)],
        "test": [("00-1", -1, 1, 2), ("0000", 0, 1, 2), ("0002", 2, 1, 2), ("0002", 2, 2, 1), ("0004", 4, 6, 2)],
    }
    for part, tracklets in parts.items():
        names, rows = [], []
        for folder_name, pid, camera, frames in tracklets:
            start = len(names) + 1
            names += [f"{folder_name}C{camera}T0001F{i:03d}.jpg" for i in range(1, frames + 1)]
            rows.append((start, len(names), pid, camera))
        (root / "info" / f"{part}_name.txt").write_text("\n".join(names))
        savemat(root / "info" / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, dtype=np.float64)})
    savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([[3, 5]], dtype=np.uint16)})
    return root


def test_mars_rows_are_one_based_and_inclusive(tmp_path: Path) -> None:
    dataset = mars.load(make_mars(tmp_path))
    second = dataset.train[1]
    assert (second.name, second.pid, second.camera) == ("train/0003C2T0001", 3, 2)
    assert second.frames == tuple(f"bbox_train/0003/0003C2T0001F00{i}.jpg" for i in (1, 2, 3))
    assert [t.pid for t in dataset.query] == [2, 4]
    assert [t.pid for t in dataset.gallery] == [0, 2, 2, 4], "junk goes, distractors stay"


def test_mars_gallery_policy_is_explicit(tmp_path: Path) -> None:
    dataset = mars.load(make_mars(tmp_path), gallery="without_queries")
    assert [(t.pid, t.camera) for t in dataset.gallery] == [(0, 1), (2, 2)]


def break_index(root: Path) -> None:
    savemat(root / "info" / "tracks_train_info.mat", {"track_train_info": np.array([[0, 2, 3, 1]])})


def break_camera(root: Path) -> None:
    savemat(root / "info" / "tracks_train_info.mat", {"track_train_info": np.array([[1, 5, 3, 1]])})


def break_query(root: Path) -> None:
    savemat(root / "info" / "query_IDX.mat", {"query_IDX": np.array([[0, 5]])})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "info/train_name.txt").unlink(), "train_name.txt: missing"),
        (lambda root: (root / "info/query_IDX.mat").unlink(), "query_IDX.mat: missing"),
        (lambda root: (root / "info/tracks_test_info.mat").write_bytes(b"junk"), "not a readable .mat"),
        (lambda root: savemat(root / "info/query_IDX.mat", {"idx": [1]}), "no variable query_IDX; found idx"),
        (break_index, "names 0 to 2"),
        (break_camera, "holds 0003C2T0001F001.jpg"),
        (break_query, "rows 0 to 5"),
    ],
)
def test_damaged_mars_is_named(tmp_path: Path, damage, words: str) -> None:
    damage(make_mars(tmp_path))
    with pytest.raises(CsipError, match=words):
        mars.load(tmp_path)


def make_folder(root: Path, people: list[str], cameras: tuple[str, ...] = ("left", "right")) -> Path:
    for person in people:
        for camera in cameras:
            (root / person / camera).mkdir(parents=True)
            for i in range(3):
                (root / person / camera / f"{i}.jpg").touch()
    return root


def test_folder_splits_people_not_tracklets(tmp_path: Path) -> None:
    dataset = folder.load(make_folder(tmp_path, ["ann", "bob", "eve", "joe"]))
    train, test = {t.pid for t in dataset.train}, {t.pid for t in dataset.query}
    assert len(train) == len(test) == 2 and not train & test
    assert dataset.gallery == dataset.query
    assert {t.camera for t in dataset.train} == {1, 2}
    assert dataset.train[0].frames[0].endswith("left/0.jpg")
    assert folder.load(tmp_path) == dataset


def test_folder_respects_train_and_test_folders_and_tracklet_folders(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", ["ann", "bob"])
    make_folder(tmp_path / "test", ["eve"])
    for walk in ("walk1", "walk2"):
        (tmp_path / "test" / "eve" / "third" / walk).mkdir(parents=True)
        (tmp_path / "test" / "eve" / "third" / walk / "0.png").touch()
    dataset = folder.load(tmp_path)
    assert [t.name for t in dataset.query] == [
        "test/eve/left", "test/eve/right", "test/eve/third/walk1", "test/eve/third/walk2",
    ]  # fmt: skip
    assert len(dataset.train) == 4


def test_folder_errors_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match="nowhere: no such folder"):
        folder.load(tmp_path / "nowhere")
    make_folder(tmp_path, ["ann"])
    with pytest.raises(CsipError, match="at least one for training"):
        folder.load(tmp_path)
    (tmp_path / "bob" / "left").mkdir(parents=True)
    with pytest.raises(CsipError, match=r"bob/left: no frames"):
        folder.load(tmp_path)


def test_held_out_identities_are_apart_and_seen_twice(tmp_path: Path) -> None:
    train = mars.load(make_mars(tmp_path)).train
    kept, held = hold_out(train, 1)
    assert len({t.pid for t in held}) == 1 and not {t.pid for t in held} & {t.pid for t in kept}
    assert len({t.camera for t in held}) == 2
    assert hold_out(train, 0) == (train, ())
    with pytest.raises(CsipError, match="only 3 training identities"):
        hold_out(train, 2)


def test_labels_and_cameras_are_ranks(tmp_path: Path) -> None:
    train = mars.load(make_mars(tmp_path)).train
    assert relabel(train[::-1]) == {3: 0, 7: 1, 9: 2}
    assert number_cameras(train) == {1: 0, 2: 1, 4: 2}


def test_fingerprint_sees_every_part(tmp_path: Path) -> None:
    from dataclasses import replace

    train = mars.load(make_mars(tmp_path)).train
    changed = [
        (*train[1:], replace(train[0], pid=99)),
        (replace(train[0], camera=9), *train[1:]),
        (replace(train[0], frames=train[0].frames[:1]), *train[1:]),
        (replace(train[0], name="x"), *train[1:]),
        train[:-1],
    ]
    assert len({fingerprint(t) for t in (train, *changed)}) == 6
