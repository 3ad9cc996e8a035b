import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pose_cache import merge as merge_module
from pose_cache import store as store_module
from pose_cache.errors import PoseCacheError
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, merge_stores, verify_store, write_store

PROVENANCE = Provenance("test", "h36m17", "m", {"weights": "abc", "software": {"torch": "1"}}, "fingerprint")


def make(name: str, length: int, seed: int = 0) -> TrackletSkeletons:
    rng = np.random.default_rng((seed, length, len(name)))
    valid = rng.random(length) > 0.2
    joints = rng.normal(size=(length, 17, 3)).astype(np.float32)
    joints[~valid] = 0
    frames = tuple(f"{name}/Bild_ä{index:04d}.jpg" for index in range(length))
    return TrackletSkeletons(name, frames, joints, rng.normal(size=(length, 17, 3)).astype(np.float32), valid)


TRACKLETS = [make("train/a", 5), make("train/b", 1), make("test/ü", 9), make("test/long-name", 4)]


def contents(path: Path) -> dict[str, object]:
    """All datasets, and all attributes but those that may differ between runs."""
    with h5py.File(path) as file:
        found: dict[str, object] = {key: file[key][()].tobytes() + str(file[key].dtype).encode() for key in file}
        found["attributes"] = {key: value for key, value in file.attrs.items() if key not in ("created", "software")}
    return found


def same(one: TrackletSkeletons, other: TrackletSkeletons) -> bool:
    arrays = ("joints", "keypoints2d", "valid")
    return (one.name, one.frames) == (other.name, other.frames) and all(
        np.array_equal(getattr(one, key), getattr(other, key)) for key in arrays
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_store(tmp_path / "sub" / "skeletons.h5", iter(TRACKLETS), PROVENANCE)
    return tmp_path / "sub" / "skeletons.h5"


def test_what_was_written_is_read(path: Path):
    with SkeletonStore(path) as store:
        assert store.provenance == PROVENANCE
        assert store.joint_set.name == "h36m17"
        assert store.names == tuple(one.name for one in TRACKLETS)
        assert (len(store), store.frame_count) == (4, 19)
        assert "test/ü" in store and "nobody" not in store
        for tracklet in TRACKLETS:
            assert same(store.read(tracklet.name), tracklet)
        third = TRACKLETS[2]
        indices = [7, 0, 0, 8]
        np.testing.assert_array_equal(store.joints(third.name, indices), third.joints[indices])
        np.testing.assert_array_equal(store.keypoints2d(third.name, indices), third.keypoints2d[indices])
        np.testing.assert_array_equal(store.valid(third.name, indices), third.valid[indices])
        assert store.joints(third.name).dtype == np.float32 and store.valid(third.name).dtype == bool
    assert verify_store(path) == []
    assert [file.name for file in path.parent.iterdir()] == ["skeletons.h5"]


def test_the_documented_layout_is_what_other_programs_find(path: Path):
    with h5py.File(path) as file:
        table = file["tracklets"][()]
        assert table.dtype.names == ("name", "start", "length")
        start, length = table[2]["start"], table[2]["length"]
        np.testing.assert_array_equal(file["joints"][start : start + length], TRACKLETS[2].joints)
        assert file["frames"][start].decode() == TRACKLETS[2].frames[0]
        assert {file[key].shape[0] for key in ("joints", "keypoints2d", "valid", "frames")} == {19}
        assert file.attrs["unit"] == "m" and file.attrs["joint_set"] == "h36m17" and "created" in file.attrs


def test_files_made_in_pieces_merged_or_spilled_are_the_same(path: Path, tmp_path: Path, monkeypatch):
    parts = [tmp_path / "1.h5", tmp_path / "2.h5"]
    write_store(parts[0], TRACKLETS[:3], PROVENANCE)
    write_store(parts[1], TRACKLETS[3:], replace(PROVENANCE, details={"weights": "abc", "software": {"torch": "2"}}))
    merge_stores(parts, tmp_path / "merged.h5")
    assert contents(tmp_path / "merged.h5") == contents(path)
    # A block of 6 frames: writing spills into part files, and merging copies the 9 frames of one tracklet in two steps.
    monkeypatch.setattr(store_module, "_BLOCK", 6)
    monkeypatch.setattr(merge_module, "_BLOCK", 6)
    write_store(tmp_path / "spilled.h5", TRACKLETS, PROVENANCE)
    assert contents(tmp_path / "spilled.h5") == contents(path)
    assert not list(tmp_path.glob("*.part*"))
    assert verify_store(tmp_path / "spilled.h5") == []


def test_merging_refuses_what_does_not_belong_together(path: Path, tmp_path: Path):
    other = tmp_path / "other.h5"
    write_store(other, [make("x", 3)], replace(PROVENANCE, unit="mm"))
    with pytest.raises(PoseCacheError, match=r"other\.h5.*unit differ: 'mm' and 'm'"):
        merge_stores([path, other], tmp_path / "out.h5")
    write_store(other, [make("train/a", 3)], PROVENANCE)
    with pytest.raises(PoseCacheError, match=r"'train/a' is in both"):
        merge_stores([path, other], tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("key", ["joints", "keypoints2d", "valid", "frames"])
def test_a_flipped_bit_is_found_and_its_tracklet_named(path: Path, key: str):
    with h5py.File(path) as file:
        start = file["tracklets"][2]["start"]
        width = file[key].dtype.itemsize * int(np.prod(file[key].shape[1:]))
        offset = file[key].id.get_offset() + int(start) * width + 3 * width
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x01
    path.write_bytes(data)
    problems = verify_store(path)
    assert len(problems) == 1 and "test/ü" in problems[0] and "checksum" in problems[0]


def test_every_flipped_byte_of_the_tables_is_noticed(path: Path):
    healthy = path.read_bytes()
    with h5py.File(path) as file:
        spans = {
            key: (file[key].id.get_offset(), file[key].id.get_storage_size()) for key in ("tracklets", "checksums")
        }
    for offset, size in spans.values():
        for position in range(offset, offset + size):
            data = bytearray(healthy)
            data[position] ^= 0x10
            path.write_bytes(data)
            assert verify_store(path), position


def test_damaged_missing_and_foreign_files_are_named(path: Path, tmp_path: Path):
    with pytest.raises(PoseCacheError, match=r"no skeleton cache at .*gone\.h5"):
        SkeletonStore(tmp_path / "gone.h5")
    truncated = tmp_path / "truncated.h5"
    truncated.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(PoseCacheError, match=r"truncated\.h5.*delete it"):
        SkeletonStore(truncated)
    assert "truncated.h5" in verify_store(truncated)[0]
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["joints"] = np.zeros(3)
    with pytest.raises(PoseCacheError, match="not a skeleton cache"):
        SkeletonStore(tmp_path / "foreign.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(PoseCacheError, match="version 99"):
        SkeletonStore(path)


def test_bad_tracklets_are_refused_and_leave_nothing_behind(tmp_path: Path):
    good = make("a", 3)
    holed = good.joints.copy()
    holed[np.flatnonzero(good.valid)[0], 0, 0] = np.nan
    bad = {
        "not finite": [replace(good, joints=holed)],
        "comes twice": [good, good],
        r"expected joints \(3, 17, 3\)": [replace(good, joints=np.zeros((3, 20, 3), np.float32))],
        "at least one frame": [make("empty", 0)],
    }
    for message, tracklets in bad.items():
        with pytest.raises(PoseCacheError, match=message):
            write_store(tmp_path / "out.h5", tracklets, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_keeps_the_old_file(path: Path):
    before = path.read_bytes()

    def failing() -> Iterator[TrackletSkeletons]:
        yield TRACKLETS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(path, failing(), PROVENANCE)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["skeletons.h5"]


def test_what_is_not_valid_is_stored_as_zeros_even_if_it_was_nan(tmp_path: Path):
    tracklet = make("a", 6)
    valid = np.array([True, False] * 3)
    joints = np.where(valid[:, None, None], tracklet.joints, np.nan)
    write_store(tmp_path / "a.h5", [replace(tracklet, joints=joints, valid=valid)], PROVENANCE)
    stored = SkeletonStore(tmp_path / "a.h5").joints("a")
    assert (stored[~valid] == 0).all() and np.array_equal(stored[valid], joints[valid])


def _read_in_child(store: SkeletonStore, name: str, queue: "multiprocessing.Queue[np.ndarray]") -> None:
    queue.put(store.joints(name))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(path: Path, method: str):
    store = SkeletonStore(path)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_read_in_child, args=(store, "train/a", queue))
    process.start()
    received = queue.get(timeout=60)
    process.join(60)
    np.testing.assert_array_equal(received, TRACKLETS[0].joints)


def test_pickles_as_its_path(path: Path):
    store = SkeletonStore(path)
    data = pickle.dumps(store)
    assert len(data) < 500
    assert same(pickle.loads(data).read("train/b"), TRACKLETS[1])


def test_an_unknown_tracklet_is_named(path: Path):
    with pytest.raises(PoseCacheError, match=r"no skeletons of tracklet 'zzz'"):
        SkeletonStore(path).joints("zzz")


def test_an_empty_cache_can_be_written_and_read(tmp_path: Path):
    write_store(tmp_path / "empty.h5", [], PROVENANCE)
    assert len(SkeletonStore(tmp_path / "empty.h5")) == 0
    assert verify_store(tmp_path / "empty.h5") == []
