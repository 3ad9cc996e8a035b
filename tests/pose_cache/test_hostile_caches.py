"""Skeleton caches that lead elsewhere, promise more than they hold, or are of other shapes: one clear error each."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pose_cache.errors import PoseCacheError
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, merge_stores, verify_store, write_store
from pose_cache.summary import summarize_store

Change = Callable[[h5py.File, Path], None]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "skeletons.h5"
    points = [rng.normal(size=(4, 17, 3)).astype(np.float32) for _ in range(4)]
    tracklets = [
        TrackletSkeletons(name, tuple(f"{name}/{i}.jpg" for i in range(4)), points[n], points[n + 2], np.ones(4, bool))
        for n, name in enumerate("ab")
    ]
    write_store(path, tracklets, Provenance("noise", "h36m17", "m"))
    return path


def external(key: str) -> Change:
    def change(file: h5py.File, folder: Path) -> None:
        with h5py.File(folder / "other.h5", "w") as other:
            other[key] = file[key][()]
        del file[key]
        file[key] = h5py.ExternalLink("other.h5", f"/{key}")

    return change


def broken_external(file: h5py.File, _: Path) -> None:
    del file["joints"]
    file["joints"] = h5py.ExternalLink("/nowhere/at/all.h5", "/joints")


def soft(file: h5py.File, _: Path) -> None:
    file.move("valid", "elsewhere")
    file["valid"] = h5py.SoftLink("/elsewhere")


def circle(file: h5py.File, _: Path) -> None:
    del file["frames"]
    file["frames"] = h5py.SoftLink("/frames")


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["joints"] = file["joints"][()]
    layout = h5py.VirtualLayout((8, 17, 3), "<f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "joints", (8, 17, 3))
    del file["joints"]
    file.create_virtual_dataset("joints", layout)


def raw_elsewhere(file: h5py.File, folder: Path) -> None:
    (folder / "raw").write_bytes(file["keypoints2d"][()].tobytes())
    del file["keypoints2d"]
    file.create_dataset("keypoints2d", (8, 17, 3), "<f4", external=[(os.fspath(folder / "raw"), 0, h5py.h5f.UNLIMITED)])


def billion(file: h5py.File, _: Path) -> None:
    for key, shape in (("joints", (10**9, 17, 3)), ("keypoints2d", (10**9, 17, 3)), ("valid", (10**9,))):
        dtype = file[key].dtype
        del file[key]
        file.create_dataset(key, shape, dtype)


def billion_compressed(file: h5py.File, _: Path) -> None:
    del file["valid"]
    file.create_dataset("valid", (10**9,), bool, chunks=(10**6,), compression="gzip")


def group(file: h5py.File, _: Path) -> None:
    del file["joints"]
    file.create_group("joints")


def no_shape(file: h5py.File, _: Path) -> None:
    del file["valid"]
    file["valid"] = h5py.Empty("?")


def of(key: str, make: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(file: h5py.File, _: Path) -> None:
        data = make(file[key][()])
        del file[key]
        file[key] = data

    return change


def table(field: str, row: int, value: int) -> Change:
    def change(file: h5py.File, _: Path) -> None:
        rows = file["tracklets"][()]
        rows[field][row] = value
        file["tracklets"][...] = rows

    return change


def attribute(name: str, value: object) -> Change:
    def change(file: h5py.File, _: Path) -> None:
        file.attrs[name] = value

    return change


def bad_name(file: h5py.File, _: Path) -> None:
    rows = file["tracklets"][()]
    rows["name"][0] = b"\xff"
    file["tracklets"][...] = rows


HOSTILE: dict[str, tuple[Change, str]] = {
    "external link": (external("joints"), r"/joints is an external link to other\.h5:/joints"),
    "external table": (external("tracklets"), r"/tracklets is an external link"),
    "broken external link": (broken_external, r"/joints is an external link to /nowhere/at/all\.h5"),
    "soft link": (soft, r"/valid is a soft link to /elsewhere"),
    "circle of links": (circle, r"/frames is a soft link"),
    "virtual": (virtual, r"/joints takes its data from other files"),
    "raw file": (raw_elsewhere, r"/keypoints2d takes its data from other files"),
    "a billion rows": (billion, r"/joints says it has the shape \(1000000000, 17, 3\)"),
    "a billion compressed rows": (billion_compressed, r"/valid says it has the shape \(1000000000,\)|in chunks"),
    "group": (group, r"/joints is a Group, expected a dataset"),
    "no shape": (no_shape, r"/valid is empty"),
    "half floats": (of("joints", lambda a: a.astype("<f2")), r"/joints has the shape \(8, 17, 3\) of float16, expected"),
    "doubles": (of("keypoints2d", lambda a: a.astype("<f8")), r"/keypoints2d has .* float64, expected"),
    "flat": (of("joints", lambda a: a.reshape(8, 51)), r"/joints has the shape \(8, 51\)"),
    "two coordinates": (of("joints", lambda a: a[..., :2].copy()), r"/joints has the shape \(8, 17, 2\)"),
    "numbers for names": (of("frames", lambda a: np.arange(8)), r"/frames has the shape .* int64, expected"),
    "plain table": (of("tracklets", lambda a: a["start"].copy()), r"/tracklets has the shape"),
    "short valid": (of("valid", lambda a: a[:5]), r"differ in length"),
    "fewer joints": (of("joints", lambda a: a[:, :12].copy()), r"not those of h36m17"),
    "fewer checksums": (of("checksums", lambda a: a[:1]), r"/checksums has 1 entries for 2"),
    "start": (table("start", 1, 3), r"/tracklets does not cover the 8 frames"),
    "length": (table("length", 1, 10**12), r"/tracklets does not cover"),
    "negative": (table("length", 0, -4), r"/tracklets does not cover"),
    "name": (bad_name, r"no UTF-8 text"),
    "details": (attribute("details", "[1, 2]"), r"its attributes are damaged"),
    "software": (attribute("software", "{"), r"its attributes are damaged"),
    "created": (attribute("created", "yesterday"), r"its attributes are damaged"),
    "version": (attribute("version", "one"), r"format version one"),
    "format": (attribute("format", 7), r"not a skeleton cache"),
    "joint set": (attribute("joint_set", "octopus"), r"octopus"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_caches_are_refused_in_words(cache: Path, tmp_path: Path, kind: str) -> None:
    change, words = HOSTILE[kind]
    with h5py.File(cache, "r+") as file:
        change(file, cache.parent)
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for use in (SkeletonStore, summarize_store):
        with pytest.raises(PoseCacheError, match=words) as caught:
            use(cache)
        assert str(cache) in str(caught.value)
    assert verify_store(cache)
    if kind not in ("name", "fewer joints"):  # which a merge copies without a look
        with pytest.raises(PoseCacheError, match=words if kind != "short valid" else ""):
            merge_stores([cache], tmp_path / "merged.h5")
        assert not (tmp_path / "merged.h5").exists()
    assert time.process_time() - started < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000, "kilobytes"


def test_a_name_that_comes_twice_is_refused(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        rows = file["tracklets"][()]
        rows["name"][1] = rows["name"][0]
        file["tracklets"][...] = rows
    with pytest.raises(PoseCacheError, match="1 tracklet names occur more than once"):
        SkeletonStore(cache)
    assert any("occur more than once" in problem for problem in verify_store(cache))


def test_joints_that_are_not_finite_are_named(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        file["joints"][5, 3, 1] = np.nan
    problems = verify_store(cache)
    assert any("tracklet b: joints are not finite" in problem for problem in problems)


def test_a_frames_name_that_is_no_text_is_one_error(cache: Path) -> None:
    with h5py.File(cache, "r+") as file:
        file["frames"][0] = b"\xff\xfe"
    with pytest.raises(PoseCacheError, match=r"/frames holds .* no UTF-8 text"):
        SkeletonStore(cache).frames("a")
    assert verify_store(cache)


@pytest.mark.parametrize("size", [0, 2**64 - 16, 2**64 - 32, 2**40])
def test_a_heap_of_texts_without_an_end_is_refused(cache: Path, size: int) -> None:
    data = bytearray(cache.read_bytes())
    place = data.index(b"GCOL") + 16
    while not size and any(data[place : place + 2]):  # to the free space behind the texts
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    data[place + 8 : place + 16] = size.to_bytes(8, "little")
    cache.write_bytes(data)
    with pytest.raises(PoseCacheError, match=r"the heap of texts at byte \d+ has no end"):
        SkeletonStore(cache)
    assert verify_store(cache)
