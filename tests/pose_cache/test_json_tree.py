"""The authors' trees of JSON files: importing them in each data set's layout, exporting, and back."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monitors import Told

from pose_cache import interchange
from pose_cache.errors import PoseCacheError
from pose_cache.interchange import export_json, import_json
from pose_cache.json_tree import JsonFolder, JsonTree, find_json_folders, write_points
from pose_cache.plan import FrameSequence
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, verify_store, write_store


def mars() -> list[FrameSequence]:
    """Several tracklets of a person in one folder."""
    return [
        FrameSequence(
            f"{part}/{pid}C{camera}T0001",
            tuple(f"bbox_{part}/{pid}/{pid}C{camera}T0001F{i:03d}.jpg" for i in range(1, 4 + camera)),
        )
        for part, pid in (("train", "0001"), ("train", "0003"), ("test", "0002"))
        for camera in (1, 2)
    ]


def lsvid() -> list[FrameSequence]:
    return [
        FrameSequence(
            f"tracklet_{part}/{pid}/{pid}_c{camera:02d}_000{pid[-1]}",
            tuple(
                f"tracklet_{part}/{pid}/{pid}_c{camera:02d}_000{pid[-1]}/{pid}_c{camera:02d}_{i:05d}.jpg"
                for i in range(5)
            ),
        )
        for part, pid in (("train", "0000"), ("train", "0001"), ("test", "0842"))
        for camera in (3, 11)
    ]


def ilidsvid() -> list[FrameSequence]:
    return [
        FrameSequence(
            f"cam{camera}/person{pid:03d}",
            tuple(
                f"i-LIDS-VID/sequences/cam{camera}/person{pid:03d}/cam{camera}_person{pid:03d}_{i:05d}.png"
                for i in range(4)
            ),
        )
        for camera in (1, 2)
        for pid in (1, 2, 5)
    ]


def write_tree(folder: Path, sequences: list[FrameSequence], dropped: int) -> dict[str, np.ndarray]:
    """Write each frame's joints, with the first folders left out; return them."""
    rng = np.random.default_rng(0)
    truth = {}
    for one in sequences:
        for frame in one.frames:
            truth[frame] = rng.normal(size=(17, 3)).astype(np.float32)
            path = folder.joinpath(*Path(frame).with_suffix(".json").parts[dropped:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"keypoints": truth[frame].tolist()}))
    return truth


@pytest.mark.parametrize(
    ("layout", "place", "dropped"),
    [
        (mars, "skeleton_3d_hmr2.0", 0),
        (mars, "skeleton_3d", 1),
        (lsvid, "skeleton_3d_hmr2.0", 0),
        (lsvid, "skeleton_3d", 1),
        (lsvid, "skeleton_3d", 2),
        (ilidsvid, "skeleton_3d_hmr2.0", 0),
        (ilidsvid, "i-LIDS-VID/skeleton_3d_hmr2.0", 2),
        (ilidsvid, "i-LIDS-VID/sequences/skeleton_3d", 2),
        (ilidsvid, "skeleton_3d", 4),
    ],
)
def test_trees_beside_the_images_of_every_layout_are_found_and_paired(
    layout: Callable[[], list[FrameSequence]], place: str, dropped: int, tmp_path: Path
):
    sequences = layout()
    for one in sequences:
        (tmp_path / one.frames[0]).parent.mkdir(parents=True, exist_ok=True)
    truth = write_tree(tmp_path / place, sequences, dropped)
    folders = find_json_folders(tmp_path, (one.frames[0] for one in sequences))
    assert [folder.path for folder in folders] == [tmp_path / place]
    report = import_json(folders, sequences, tmp_path / "out.h5")
    assert (report.valid, report.problems, report.unused) == (len(truth), (), ())
    assert verify_store(tmp_path / "out.h5") == []
    with SkeletonStore(tmp_path / "out.h5") as store:
        for one in sequences:
            assert store.read(one.name).frames == one.frames
            np.testing.assert_array_equal(store.joints(one.name), [truth[frame] for frame in one.frames])


def test_a_folder_of_skeletons_in_each_part_serves_that_part_alone(tmp_path: Path):
    sequences = mars()
    for part in ("train", "test"):
        write_tree(tmp_path / f"bbox_{part}/skeleton_3d", [s for s in sequences if s.name.startswith(part)], 1)
    folders = find_json_folders(tmp_path, (one.frames[0] for one in sequences))
    assert [folder.under for folder in folders] == ["bbox_test", "bbox_train"]
    assert import_json(folders, sequences, tmp_path / "out.h5").problems == ()
    # The same names in the other part are no skeletons of this one.
    missing = "0001/0001C1T0001F001.json"
    (tmp_path / "bbox_test/skeleton_3d/0001").mkdir()
    (tmp_path / "bbox_train/skeleton_3d" / missing).rename(tmp_path / "bbox_test/skeleton_3d" / missing)
    report = import_json(folders, sequences, tmp_path / "out.h5")
    assert [line.partition(":")[0] for line in report.problems] == ["bbox_train/0001/0001C1T0001F001.jpg"]
    assert report.unused == ("0001/: 1 files, in a folder of none of the tracklets",)


def test_no_folder_and_two_rivals_are_refused(tmp_path: Path):
    frames = [one.frames[0] for one in mars()]
    with pytest.raises(PoseCacheError, match=r"no folder skeleton_3d\* of JSON skeletons"):
        find_json_folders(tmp_path, frames)
    (tmp_path / "skeleton_3d").mkdir()
    (tmp_path / "bbox_train/skeleton_3d_hmr2.0").mkdir(parents=True)
    with pytest.raises(PoseCacheError, match=r"both .*skeleton_3d and .*skeleton_3d_hmr2.0 may hold"):
        find_json_folders(tmp_path, frames)


def test_a_file_that_two_frames_could_have_is_nobodys(tmp_path: Path):
    sequences = [FrameSequence(name, tuple(f"{name}/{i}.jpg" for i in range(3))) for name in ("a", "b")]
    write_tree(tmp_path / "json", sequences[:1], 1)
    (tmp_path / "json/2.json").rename(tmp_path / "json/x.json")
    (tmp_path / "json/b").mkdir()
    write_tree(tmp_path / "json/b", [FrameSequence("b", ("2.jpg",))], 0)
    sequences.append(FrameSequence("c", ("c/0.jpg", "c/x.jpg")))
    report = import_json([JsonFolder(tmp_path / "json")], sequences, tmp_path / "out.h5")
    # "b" has a folder of its own, so its frames are looked for there alone; "a" and "c" share the files at the top.
    assert [line.partition(":")[0] for line in report.problems] == [
        "a/0.jpg",
        "a/2.jpg",
        "b/0.jpg",
        "b/1.jpg",
        "c/0.jpg",
    ]
    assert "could be its skeleton as well as that of c/0.jpg" in report.problems[0]
    assert "no JSON file for it" in report.problems[1] and report.problems[1].endswith("json/2.json")
    with SkeletonStore(tmp_path / "out.h5") as store:
        assert store.valid("a").tolist() == [False, True, False]
        assert store.valid("b").tolist() == [False, False, True]
        assert store.valid("c").tolist() == [False, True]


def some_store(path: Path, sequences: list[FrameSequence], seed: int = 0) -> SkeletonStore:
    rng = np.random.default_rng(seed)
    made = []
    for one in sequences:
        count = len(one.frames)
        valid = rng.random(count) < 0.7
        joints = (rng.normal(size=(count, 17, 3)) * 10.0 ** rng.integers(-8, 8, (count, 1, 1))).astype(np.float32)
        made.append(TrackletSkeletons(one.name, one.frames, joints, np.zeros((count, 17, 3), np.float32), valid))
    write_store(path, made, Provenance("human3d", "h36m17", "m"))
    return SkeletonStore(path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("layout", [mars, lsvid, ilidsvid])
def test_export_and_import_give_the_same_skeletons(layout, workers: int, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(interchange, "_CHUNK", 7)  # several chunks, of whole tracklets
    monkeypatch.chdir(tmp_path)  # workers that are left from another test started in another folder
    sequences = layout()
    store = some_store(tmp_path / "in.h5", sequences)
    seen: list[tuple[int, int]] = []
    exported = export_json(store, Path("json"), workers=workers, monitor=Told(lambda *x: seen.append(x)))
    left_out = [f for one in sequences for f, ok in zip(one.frames, store.valid(one.name), strict=True) if not ok]
    assert left_out and exported.invalid == tuple(left_out)
    assert (tmp_path / "json/invalid.txt").read_text().splitlines() == left_out
    assert exported.written == store.frame_count - len(left_out) == len(list((tmp_path / "json").rglob("*.json")))
    assert seen[-1] == (store.frame_count, store.frame_count)
    report = import_json([JsonFolder(Path("json"))], sequences, tmp_path / "back.h5", workers=workers)
    assert [line.partition(":")[0] for line in report.problems] == left_out and report.unused == ()
    back = SkeletonStore(tmp_path / "back.h5")
    assert back.names == store.names and back.provenance.unit == "m"
    for name in store.names:
        before, after = store.read(name), back.read(name)
        assert after.frames == before.frames
        np.testing.assert_array_equal(after.valid, before.valid)
        np.testing.assert_array_equal(after.joints, before.joints)


def test_an_export_that_was_stopped_goes_on_and_another_is_refused(tmp_path: Path, monkeypatch):
    sequences = mars()
    store = some_store(tmp_path / "in.h5", sequences)
    monkeypatch.setattr(interchange, "_CHUNK", 7)
    calls = []

    def stop_at_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_points(*arguments)

    monkeypatch.setattr(interchange, "write_points", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export_json(store, tmp_path / "json")
    monkeypatch.setattr(interchange, "write_points", write_points)
    made = sorted((tmp_path / "json").rglob("*.json"))
    assert made
    made[0].write_bytes(b"")  # as a crash of the machine can leave a file
    first = {path: path.stat().st_mtime_ns for path in made[1:]}
    report = export_json(store, tmp_path / "json")
    assert report.kept == len(made) - 1
    assert report.kept + report.written + len(report.invalid) == store.frame_count
    assert {path: path.stat().st_mtime_ns for path in made[1:]} == first
    assert len(json.loads(made[0].read_text())["keypoints"]) == 17
    assert not list((tmp_path / "json").rglob("*.partial"))
    other = some_store(tmp_path / "other.h5", sequences, seed=1)
    with pytest.raises(PoseCacheError, match="is an export of other skeletons"):
        export_json(other, tmp_path / "json")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with pytest.raises(PoseCacheError, match="is no export of a cache"):
        export_json(store, tmp_path / "full")


@pytest.mark.parametrize(
    ("frames", "words"),
    [(("a/1.jpg", "a/1.png"), r"would both have the file a/1\.json"), (("../1.jpg",), "is not a path relative")],
)
def test_what_cannot_be_mirrored_is_refused_before_anything_is_written(frames, words: str, tmp_path: Path):
    store = some_store(tmp_path / "in.h5", [FrameSequence("a", frames)])
    with pytest.raises(PoseCacheError, match=words):
        export_json(store, tmp_path / "json")
    assert not (tmp_path / "json").exists()


def test_links_in_circles_end_and_links_elsewhere_are_followed(tmp_path: Path) -> None:
    (tmp_path / "json/a").mkdir(parents=True)
    (tmp_path / "apart/b").mkdir(parents=True)
    for file in ("json/a/0.json", "apart/b/1.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "json/a/up").symlink_to(tmp_path / "json")
    (tmp_path / "json/there").symlink_to(tmp_path / "apart")
    (tmp_path / "apart/b/back").symlink_to(tmp_path / "json")
    tree = JsonTree([JsonFolder(tmp_path / "json")])
    assert sorted(tree._listings[0]._files) == ["a", "there/b"]
