"""Miniatures of real data sets in their true formats, each read, and each broken in every way that is known of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from csip.config import DatasetSettings
from csip.data import folder, ilidsvid, lsvid, mars, prid2011
from csip.data.dataset import Dataset
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.retrieval.metrics import rank


def frame(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def valid_queries(dataset: Dataset) -> int:
    """How many queries have a match, by the evaluator itself; the features do not matter."""
    labels = [np.array([[t.pid, t.camera] for t in part]).T for part in (dataset.query, dataset.gallery)]
    return rank(
        np.zeros((len(dataset.query), 1)), *labels[0], np.zeros((len(dataset.gallery), 1)), *labels[1]
    ).valid_queries


# ---- MARS ------------------------------------------------------------------------------------------------------------


def make_mars(root: Path) -> Path:
    """Person 2 is seen by 3 cameras, person 4 by 2, and both of person 4's tracklets are queries."""
    test = [
        ("00-1", -1, 1, 1, 2), ("0000", 0, 1, 1, 2), ("0000", 0, 3, 1, 1),
        ("0002", 2, 1, 1, 2), ("0002", 2, 1, 2, 3), ("0002", 2, 5, 1, 2), ("0002", 2, 6, 1, 2),
        ("0004", 4, 2, 1, 2), ("0004", 4, 3, 1, 1), ("0006", 6, 2, 1, 1),
    ]  # fmt: skip
    train = [("0001", 1, 1, 1, 3), ("0001", 1, 2, 1, 2), ("0003", 3, 6, 1, 4)]
    (root / "info").mkdir(parents=True)
    for part, tracklets in (("train", train), ("test", test)):
        names, rows = [], []
        for person, pid, camera, number, frames in tracklets:
            rows.append((len(names) + 1, len(names) + frames, pid, camera))
            names += [f"{person}C{camera}T{number:04d}F{i:03d}.jpg" for i in range(1, frames + 1)]
        (root / f"info/{part}_name.txt").write_text("\n".join(names) + "\n")
        savemat(root / f"info/tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, dtype=np.float64)})
    savemat(root / "info/query_IDX.mat", {"query_IDX": np.array([[4, 6, 8, 9]], dtype=np.uint16)})
    return root


def test_mars_counts_by_gallery_policy(tmp_path: Path) -> None:
    """A query identity whose tracklets are all queries has no match left when the queries leave the gallery."""
    settings = DatasetSettings(name="mars", layout="mars", root=make_mars(tmp_path))
    whole = load_dataset(settings)
    assert (len(whole.train), len(whole.query), len(whole.gallery), valid_queries(whole)) == (3, 4, 9, 4)
    less = load_dataset(settings.model_copy(update={"gallery": "without_queries"}))
    assert (len(less.train), len(less.query), len(less.gallery), valid_queries(less)) == (3, 4, 5, 2)
    assert [t.pid for t in less.gallery] == [0, 0, 2, 2, 6]
    assert whole.queries_in_gallery == 4 and less.queries_in_gallery == 0


def write_rows(root: Path, part: str, rows: list[list[int]]) -> None:
    savemat(root / f"info/tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, dtype=np.float64)})


MARS_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no names": (
        lambda r: (r / "info/test_name.txt").unlink(),
        "test_name.txt: missing; expected the names of MARS's test",
    ),
    "no rows": (lambda r: (r / "info/tracks_train_info.mat").unlink(), "tracks_train_info.mat: missing"),
    "empty folder": (lambda r: shutil.rmtree(r / "info"), "train_name.txt: missing"),
    "bad .mat": (lambda r: (r / "info/query_IDX.mat").write_bytes(b""), "not a readable .mat file"),
    "from 0": (lambda r: write_rows(r, "train", [[0, 2, 1, 1]]), "row 1 asks for names 0 to 2"),
    "past the end": (lambda r: write_rows(r, "train", [[1, 3, 1, 1], [4, 99, 1, 2]]), "row 2 asks for names 4 to 99"),
    "three columns": (lambda r: write_rows(r, "train", [[1, 3, 1]]), "expected rows of start, end, identity, camera"),
    "two cameras": (
        lambda r: write_rows(r, "train", [[1, 5, 1, 1]]),
        "row 1 is identity 1 at camera 1, but holds 0001C2",
    ),
    "twice": (lambda r: write_rows(r, "train", [[1, 3, 1, 1]] * 2), "rows 1 and 2 both begin with 0001C1T0001F001"),
    "query from 0": (lambda r: savemat(r / "info/query_IDX.mat", {"query_IDX": [[0, 5]]}), "rows 0 to 5 asked for"),
    "no queries": (lambda r: savemat(r / "info/query_IDX.mat", {"query_IDX": np.zeros((1, 0))}), "no rows asked for"),
}


@pytest.mark.parametrize("what", MARS_DAMAGE)
def test_damaged_mars_is_named(tmp_path: Path, what: str) -> None:
    damage, words = MARS_DAMAGE[what]
    mars.load(make_mars(tmp_path))
    damage(tmp_path)
    with pytest.raises(CsipError, match=words):
        mars.load(tmp_path)


# ---- LS-VID ----------------------------------------------------------------------------------------------------------

LSVID_TRAIN = [("0000", "0000", 7, 97), ("0000", "0001", 12, 95), ("0003", "0000", 1, 144), ("0003", "0002", 1, 5)]
LSVID_TEST = [("0842", "0000", 2, 3), ("0842", "0001", 15, 2), ("0900", "0000", 3, 2), ("0900", "0001", 4, 2)]


def make_lsvid(root: Path) -> Path:
    (root / "list_sequence").mkdir(parents=True)
    for part, tracklets in (("train", LSVID_TRAIN), ("test", LSVID_TEST)):
        lines = []
        for person, number, camera, frames in tracklets:
            beginning = f"tracklet_{part}/{person}/{person}_{number}_{camera:02d}"
            lines.append(f"{beginning} {int(person)}")
            for i in range(frames):
                frame(root / f"{beginning}_{i:06d}.jpg")
        (root / f"list_sequence/list_seq_{part}.txt").write_text("\n".join(lines) + "\n")
    (root / "tracklet_train/0000/.DS_Store").touch()
    write_queries(root, [1, 3])
    return root


def write_queries(root: Path, rows: list[int], name: str = "query") -> None:
    path = root / "test/data/info_test.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    # As MATLAB's save -v7.3 writes it: HDF5 behind 512 bytes of its own; a (N, 1) variable is (1, N) there.
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = np.array([rows], dtype=np.float64)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(128))


def test_lsvid_reads_lists_pieces_and_queries(tmp_path: Path) -> None:
    dataset = lsvid.load(make_lsvid(tmp_path))
    assert [(t.name.rpartition("train/")[2], t.pid, t.camera, len(t.frames)) for t in dataset.train] == [
        ("0000/0000_0000_07/1", 1, 7, 48),
        ("0000/0000_0000_07/2", 1, 7, 49),
        ("0000/0000_0001_12", 1, 12, 95),
        ("0003/0003_0000_01/1", 4, 1, 48),
        ("0003/0003_0000_01/2", 4, 1, 48),
        ("0003/0003_0000_01/3", 4, 1, 48),
        ("0003/0003_0002_01", 4, 1, 5),
    ]
    assert dataset.train[1].frames[0] == "tracklet_train/0000/0000_0000_07_000048.jpg"
    assert [(t.pid, t.camera) for t in dataset.query] == [(843, 2), (901, 3)]
    assert len(dataset.gallery) == 4 and valid_queries(dataset) == 2
    assert len(lsvid.load(tmp_path, gallery="without_queries").gallery) == 2
    assert [len(t.frames) for t in lsvid.load(tmp_path, piece_frames=None).train] == [97, 95, 144, 5]
    settings = DatasetSettings(name="lsvid", layout="lsvid", root=tmp_path, piece_frames=100)
    assert [len(t.frames) for t in load_dataset(settings).train] == [97, 95, 144, 5]


def test_lsvid_tracklets_whose_names_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    make_lsvid(tmp_path)
    frame(tmp_path / "tracklet_test/0842/0842_0000_021_000000.jpg")
    assert len(lsvid.load(tmp_path).query[0].frames) == 3


def first_line(root: Path, line: str) -> None:
    path = root / "list_sequence/list_seq_test.txt"
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]))


LSVID_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no list": (
        lambda r: (r / "list_sequence/list_seq_train.txt").unlink(),
        "list_seq_train.txt: missing; expected LS-VID's",
    ),
    "no queries": (lambda r: (r / "test/data/info_test.mat").unlink(), "info_test.mat: missing"),
    "bad .mat": (lambda r: (r / "test/data/info_test.mat").write_bytes(b"MATLAB 7.3 MAT-file"), "not a readable .mat"),
    "other variable": (lambda r: write_queries(r, [1], "track"), "no variable query; found track"),
    "from 0": (lambda r: write_queries(r, [0, 3]), "1 to 4, found 0 to 3"),
    "past the end": (lambda r: write_queries(r, [1, 5]), "1 to 4, found 1 to 5"),
    "halves": (lambda r: write_queries(r, [1.5]), "should hold whole numbers"),  # type: ignore[list-item]
    "no frames": (
        lambda r: shutil.rmtree(r / "tracklet_train/0003"),
        "line 3 is tracklet_train/0003/0003_0000_01, but",
    ),
    "two cameras": (lambda r: first_line(r, "tracklet_test/0842/0842 842"), "has frames of the cameras 02, 15"),
    "twice": (lambda r: first_line(r, "tracklet_test/0842/0842_0001_15 842"), "lines 1 and 2 are both"),
    "no identity": (
        lambda r: first_line(r, "tracklet_test/0842/0842_0001_15"),
        "line 1 is .*expected a path and an identity",
    ),
    "empty list": (lambda r: (r / "list_sequence/list_seq_test.txt").write_text("\n"), "no tracklets in it"),
    "no lines": (lambda r: (r / "list_sequence/list_seq_test.txt").write_text(""), "no tracklets in it"),
}


@pytest.mark.parametrize("what", LSVID_DAMAGE)
def test_damaged_lsvid_is_named(tmp_path: Path, what: str) -> None:
    damage, words = LSVID_DAMAGE[what]
    lsvid.load(make_lsvid(tmp_path))
    damage(tmp_path)
    with pytest.raises(CsipError, match=words):
        lsvid.load(tmp_path)


def test_lsvid_frames_without_a_camera_are_named(tmp_path: Path) -> None:
    make_lsvid(tmp_path)
    frame(tmp_path / "tracklet_test/0842/a_b.jpg")
    first_line(tmp_path, "tracklet_test/0842/a 842")
    with pytest.raises(CsipError, match="third field of a frame's name should be the camera"):
        lsvid.load(tmp_path)


# ---- iLIDS-VID -------------------------------------------------------------------------------------------------------

ILIDS_PEOPLE = [1, 2, 5, 9, 12, 319]


def make_ilidsvid(root: Path) -> Path:
    for camera in ("cam1", "cam2"):
        for person in ILIDS_PEOPLE:
            for i in (317, 318):
                title = f"person{person:03d}"
                frame(root / f"i-LIDS-VID/sequences/{camera}/{title}/{camera}_{title}_{i:05d}.png")
    rng = np.random.default_rng(0)
    write_splits(root, np.stack([rng.permutation(6) + 1 for _ in range(10)]))
    return root


def write_splits(root: Path, splits: np.ndarray, name: str = "ls_set") -> None:
    path = root / "train-test people splits/train_test_splits_ilidsvid.mat"
    path.parent.mkdir(exist_ok=True)
    savemat(path, {name: splits.astype(np.uint16)})


def test_ilidsvid_reads_each_division(tmp_path: Path) -> None:
    make_ilidsvid(tmp_path)
    write_splits(tmp_path, np.array([[6, 2, 4, 1, 3, 5], [1, 2, 3, 4, 5, 6]]))
    dataset = ilidsvid.load(tmp_path)
    assert [(t.name, t.pid, t.camera) for t in dataset.train] == [
        ("cam1/person002", 2, 1), ("cam2/person002", 2, 2), ("cam1/person009", 4, 1),
        ("cam2/person009", 4, 2), ("cam1/person319", 6, 1), ("cam2/person319", 6, 2),
    ]  # fmt: skip
    assert [(t.pid, t.camera) for t in dataset.query] == [(1, 1), (3, 1), (5, 1)]
    assert [(t.pid, t.camera) for t in dataset.gallery] == [(1, 2), (3, 2), (5, 2)]
    assert dataset.query[1].frames[0] == "i-LIDS-VID/sequences/cam1/person005/cam1_person005_00317.png"
    assert valid_queries(dataset) == 3
    settings = DatasetSettings(name="ilidsvid", layout="ilidsvid", root=tmp_path, split=1)
    assert [t.pid for t in load_dataset(settings).query] == [4, 5, 6]


ILIDS = "i-LIDS-VID/sequences"
ILIDS_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no splits": (lambda r: shutil.rmtree(r / "train-test people splits"), "train_test_splits_ilidsvid.mat: missing"),
    "bad .mat": (
        lambda r: next((r / "train-test people splits").iterdir()).write_bytes(b"junk"),
        "not a readable .mat",
    ),
    "other variable": (lambda r: write_splits(r, np.eye(2), "splits"), "no variable ls_set; found splits"),
    "from 0": (lambda r: write_splits(r, np.arange(6)[None]), "each of 1 to 6 once, found 0 to 5"),
    "twice": (lambda r: write_splits(r, np.array([[1, 2, 3, 3, 4, 5]])), "1 to 5, 5 different"),
    "other people": (lambda r: write_splits(r, np.arange(1, 9)[None]), r"shape \(1, 8\), expected .* 6 people"),
    "no camera": (lambda r: shutil.rmtree(r / ILIDS / "cam2"), "cam2: no person folders"),
    "one camera": (
        lambda r: shutil.rmtree(r / ILIDS / "cam1/person009"),
        "1 people are in one camera only, e.g. person009",
    ),
    "empty": (lambda r: [f.unlink() for f in (r / ILIDS / "cam2/person009").iterdir()], "cam2/person009: no frames"),
    "two cameras": (
        lambda r: frame(r / ILIDS / "cam1/person009/cam2_person009_00001.png"),
        "expected a frame of person009 at",
    ),
}


@pytest.mark.parametrize("what", ILIDS_DAMAGE)
def test_damaged_ilidsvid_is_named(tmp_path: Path, what: str) -> None:
    damage, words = ILIDS_DAMAGE[what]
    make_ilidsvid(tmp_path)
    for split in range(10):
        assert len(ilidsvid.load(tmp_path, split).query) == 3
    damage(tmp_path)
    with pytest.raises(CsipError, match=words):
        ilidsvid.load(tmp_path)


def test_ilidsvid_names_the_divisions_it_has(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"dataset.split is 10, but .* splits 0 to 9"):
        ilidsvid.load(make_ilidsvid(tmp_path), split=10)


# ---- PRID2011 --------------------------------------------------------------------------------------------------------


def make_prid(root: Path) -> Path:
    """People 1 to 4 count; 5 is too short at camera b, 6 at camera a alone, 201 is not the same person in both."""
    lengths = {
        "cam_a": {1: 22, 2: 30, 3: 22, 4: 25, 5: 30, 6: 30, 201: 30},
        "cam_b": {1: 22, 2: 22, 3: 22, 4: 22, 5: 21, 201: 30},
    }
    for camera, people in lengths.items():
        for person, frames in people.items():
            for i in range(1, frames + 1):
                frame(root / f"prid_2011/multi_shot/{camera}/person_{person:04d}/{i:04d}.png")
    return root


def test_prid2011_counts_people_long_enough_in_both_cameras(tmp_path: Path) -> None:
    make_prid(tmp_path)
    tested = []
    for split in range(10):
        dataset = prid2011.load(tmp_path, split)
        assert len(dataset.train) == 4 and len(dataset.query) == len(dataset.gallery) == 2
        assert {t.camera for t in dataset.query} == {1} and {t.camera for t in dataset.gallery} == {2}
        train, test = {t.pid for t in dataset.train}, {t.pid for t in dataset.query}
        assert train | test == {1, 2, 3, 4} and not train & test
        assert prid2011.load(tmp_path, split) == dataset
        tested.append(frozenset(test))
    assert len(set(tested)) > 2
    assert dataset.train[0].frames[0].endswith("/0001.png")


def test_prid2011_takes_the_usual_divisions_where_they_are(tmp_path: Path) -> None:
    prid2011.load(make_prid(tmp_path))
    people = [f"person_{i:04d}" for i in (1, 2, 3, 4)]
    (tmp_path / "splits_prid2011.json").write_text(json.dumps([{"train": people[2:], "test": people[:2]}]))
    assert [t.pid for t in prid2011.load(tmp_path).query] == [1, 2]


def write_division(root: Path, content: object) -> None:
    (root / "splits_prid2011.json").write_text(json.dumps(content))


PRID = "prid_2011/multi_shot"
PRID_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no camera": (lambda r: shutil.rmtree(r / PRID / "cam_b"), "cam_b: no person folders"),
    "empty": (lambda r: [f.unlink() for f in (r / PRID / "cam_a/person_0002").iterdir()], "person_0002: no frames"),
    "strange": (lambda r: (r / PRID / "cam_a/ann").mkdir(), "cam_a/ann: expected a folder person_NNNN"),
    "too few": (
        lambda r: [shutil.rmtree(r / PRID / f"cam_a/person_000{i}") for i in (1, 2, 3)],
        "1 people have more than 21",
    ),
    "no JSON": (lambda r: (r / "splits_prid2011.json").write_text("x"), "expected a JSON list"),
    "no test": (lambda r: write_division(r, [{"train": []}]), "expected a JSON list"),
    "unknown": (
        lambda r: write_division(r, [{"train": ["person_0005"], "test": ["person_0001"]}]),
        "names person_0005",
    ),
    "both": (
        lambda r: write_division(r, [{"train": ["person_0001"], "test": ["person_0001"]}]),
        "person_0001 in both train and test",
    ),
    "none": (lambda r: write_division(r, []), "has splits 0 to -1"),
}


@pytest.mark.parametrize("what", PRID_DAMAGE)
def test_damaged_prid2011_is_named(tmp_path: Path, what: str) -> None:
    damage, words = PRID_DAMAGE[what]
    prid2011.load(make_prid(tmp_path))
    damage(tmp_path)
    with pytest.raises(CsipError, match=words):
        prid2011.load(tmp_path)


# ---- a table ---------------------------------------------------------------------------------------------------------

TABLE = """tracklet,person,camera,frame
a1,ann,left,video/7.jpg
a1,ann,left,video/5.jpg
a2,ann,right,video/9.jpg
b1,bob,left,other/1.jpg
b2,bob,right,other/2.jpg
"""


def test_a_table_is_read_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "tracklets.csv").write_text(TABLE)
    dataset = folder.load(tmp_path)
    everything = {t.name: t for t in (*dataset.train, *dataset.query)}
    assert set(everything) == {"a1", "a2", "b1", "b2"} and dataset.query == dataset.gallery
    assert everything["a1"].frames == ("video/7.jpg", "video/5.jpg")
    assert (everything["a1"].pid, everything["a1"].camera) == (1, 1)
    assert (everything["b2"].pid, everything["b2"].camera) == (2, 2)
    assert len({t.pid for t in dataset.train}) == len({t.pid for t in dataset.query}) == 1


def test_a_table_may_say_who_trains_and_what_is_asked(tmp_path: Path) -> None:
    parts = ["part", "train", "train", "train", "query", "gallery"]
    lines = [f"{line},{part}" for line, part in zip(TABLE.splitlines(), parts, strict=True)]
    (tmp_path / "tracklets.csv").write_text("\ufeff" + "\r\n".join(lines))  # as spreadsheets write it
    dataset = folder.load(tmp_path)
    names = [[t.name for t in part] for part in (dataset.train, dataset.query, dataset.gallery)]
    assert names == [["a1", "a2"], ["b1"], ["b2"]]


TABLE_DAMAGE = {
    "no column": (TABLE.replace("camera", "cam", 1), "no column camera; found tracklet, person, cam, frame"),
    "empty": ("", "no column tracklet, person, camera, frame; found nothing"),
    "no lines": (TABLE.splitlines()[0], "no lines below the head"),
    "no person trains": (
        TABLE.replace("frame\n", "frame,part\n", 1).replace("jpg", "jpg,train").replace("a2,ann", "a2,"),
        "line 4 has no person, but part train",
    ),
    "two cameras": (TABLE.replace("ann,left,video/5", "ann,right,video/5"), "line 3 has tracklet a1 .* before it was ann, left"),
    "two people": (TABLE.replace("a2,ann", "a1,bob"), "line 4 has tracklet a1"),
    "twice": (TABLE.replace("video/5", "video/7"), "lines 2 and 3 are both frame video/7.jpg"),
    "outside": (TABLE.replace("video/9", "../video/9"), r"line 4 has frame \.\./video/9.jpg"),
    "absolute": (TABLE.replace("video/9", "/video/9"), "expected a path below"),
    "one person": ("\n".join(TABLE.splitlines()[:3]), "tracklets.csv names one person alone, ann; at least one"),
    "unknown part": (
        TABLE.replace("frame\n", "frame,part\n", 1).replace("jpg", "jpg,validation"), "has part 'validation'; expected train"
    ),
    "all train": (TABLE.replace("frame\n", "frame,part\n", 1).replace("jpg", "jpg,train"), "no query tracklets"),
    "trained and tested": (
        TABLE.replace("frame\n", "frame,part\n", 1).replace(".jpg", ".jpg,train").replace("9.jpg,train", "9.jpg,test"),
        "person ann is both",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLE_DAMAGE)
def test_damaged_table_is_named(tmp_path: Path, what: str) -> None:
    text, words = TABLE_DAMAGE[what]
    (tmp_path / "tracklets.csv").write_text(text)
    with pytest.raises(CsipError, match=words):
        folder.load(tmp_path)
    (tmp_path / "tracklets.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CsipError, match="not UTF-8"):
        folder.load(tmp_path)


def test_two_tracklets_of_one_name_are_refused() -> None:
    from csip.data.dataset import Tracklet

    twice = (Tracklet("a", 1, 1, ("x.jpg",)), Tracklet("a", 1, 2, ("y.jpg",)))
    with pytest.raises(CsipError, match=r"1 training tracklet names appear twice, e\.g\. a"):
        Dataset("x", Path("x"), twice, (), ())
