import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import dask
import h5py
import numpy as np
import pytest
from monitors import Told

from pose_cache import images
from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator
from pose_cache.extract import ExtractOptions, FrameSequence, extract, fingerprint, plan_shards
from pose_cache.shipped import CONFIGS
from pose_cache.store import SkeletonStore, verify_store

pytestmark = pytest.mark.slow

SPEC = EstimatorSpec("small", CONFIGS / "pose/demo/pose2d.py", None, CONFIGS / "pose/demo/lifter.py", None)
LENGTHS = {"train/a": 7, "train/b": 1, "train/c": 12, "train/d": 5, "train/e": 9}
SHARD = 8  # shards of 8, 12, 14 frames

_KILLED = """
import os, signal, sys
from pathlib import Path
from pose_cache.extract import ExtractOptions, extract
from pose_cache.monitor import Silent
sys.path[:0] = [{here!r}, str(Path({here!r}).parent)]
from test_extract import SEQUENCES, SHARD, SPEC

class Kill(Silent):
    def progress(self, task, done, total, note=""):
        if done >= {at}:
            os.kill(os.getpid(), signal.SIGKILL)

options = ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1)
extract(SEQUENCES, Path({root!r}), SPEC, Path({out!r}), options, monitor=Kill())
"""


def frame_names(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"crops/{name}/{index:03d}.png" for index in range(count))


SEQUENCES = [FrameSequence(name, frame_names(name, count)) for name, count in LENGTHS.items()]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Small crops of different sizes, all different."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for sequence in SEQUENCES:
        for frame in sequence.frames:
            (root / frame).parent.mkdir(parents=True, exist_ok=True)
            coarse = rng.integers(0, 256, (6, 4, 3), dtype=np.uint8)
            size = (int(rng.integers(30, 70)), int(rng.integers(60, 130)))
            cv2.imwrite(str(root / frame), cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))
    return root


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory) -> Path:
    """An uninterrupted extraction."""
    out = tmp_path_factory.mktemp("out") / "whole.h5"
    extract(SEQUENCES, root, SPEC, out, ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1))
    return out


def path_of(shards: Path, name: str) -> Path:
    """The shard that a tracklet is in."""
    (path,) = [path for path in shards.glob("*.h5") if name in SkeletonStore(path)]
    return path


def contents(path: Path) -> dict[str, object]:
    with h5py.File(path) as file:
        found: dict[str, object] = {key: file[key][()].tobytes() + str(file[key].dtype).encode() for key in file}
        found["attributes"] = {key: value for key, value in file.attrs.items() if key not in ("created", "software")}
    return found


def test_the_file_holds_what_the_estimator_says_of_each_tracklet(root: Path, whole: Path):
    estimator = PoseEstimator(SPEC)
    with SkeletonStore(whole) as store:
        assert store.names == tuple(LENGTHS)
        assert store.provenance.estimator == "small" and store.provenance.dataset == fingerprint(SEQUENCES)
        assert store.provenance.details["digest"] == estimator.digest
        for sequence in SEQUENCES:
            tracklet = store.read(sequence.name)
            assert tracklet.frames == sequence.frames and tracklet.valid.all()
            crops = [cv2.imread(str(root / frame)) for frame in sequence.frames]
            keypoints = estimator.detect(crops)
            np.testing.assert_allclose(tracklet.keypoints2d, keypoints, atol=1e-3)
            (joints,) = estimator.lift([(keypoints, np.array([crop.shape[1::-1] for crop in crops]))])
            np.testing.assert_allclose(tracklet.joints, joints, atol=1e-4)
    assert verify_store(whole) == []
    assert [path.name for path in whole.parent.iterdir()] == ["whole.h5"]


def test_killed_and_run_again_gives_the_same_file_and_redoes_nothing(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "killed.h5"
    shards = tmp_path / "killed.h5.shards"
    code = _KILLED.format(here=str(Path(__file__).parent), root=str(root), out=str(out), at=24)
    result = subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not out.exists() and len(list(shards.glob("*.h5"))) == 2
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in shards.glob("*.h5")}
    calls: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        calls.append((done, total))
        if shards.exists():
            assert {name: ((s := (shards / name).stat()).st_mtime_ns, s.st_ino) for name in before} == before

    summary = extract(
        SEQUENCES, root, SPEC, out, ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1), monitor=Told(watch)
    )
    assert contents(out) == contents(whole)
    assert (summary.frames, summary.kept_frames, summary.up_to_date) == (34, 20, False)
    assert calls[0] == (20, 34) and calls == sorted(calls) and calls[-1] == (34, 34)
    assert not shards.exists()


def test_damaged_and_foreign_shards_are_redone(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out.h5"
    shards = tmp_path / "out.h5.shards"

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 30:
            raise Stop

    with pytest.raises(Stop):
        extract(
            SEQUENCES, root, SPEC, out, ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1), monitor=Told(stop)
        )
    first, second = (path_of(shards, name) for name in ("train/a", "train/c"))
    data = bytearray(first.read_bytes())
    with h5py.File(first) as file:
        data[file["joints"].id.get_offset() + 40] ^= 0x04
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-100])
    assert any("train/a" in problem and "checksum" in problem for problem in verify_store(first))
    summary = extract(SEQUENCES, root, SPEC, out, ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1))
    assert summary.kept_frames == 0
    assert contents(out) == contents(whole)


def test_a_finished_file_is_left_alone_unless_the_estimator_differs(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out.h5"
    out.write_bytes(whole.read_bytes())
    assert extract(SEQUENCES, root, SPEC, out).up_to_date
    assert out.read_bytes() == whole.read_bytes()
    other = replace(SPEC, name="other", min_score=0.01)
    with pytest.raises(PoseCacheError, match=r"out\.h5 was made by the estimator 'small'.*by force") as refused:
        extract(SEQUENCES, root, other, out)
    assert refused.value.parameter == "force"
    assert out.read_bytes() == whole.read_bytes()
    assert not extract(SEQUENCES, root, other, out, force=True).up_to_date
    assert SkeletonStore(out).provenance.estimator == "other"
    # The same estimator, fewer frames: nothing is estimated.
    fewer = extract(SEQUENCES[:2], root, other, out)
    assert (fewer.up_to_date, fewer.tracklets, fewer.frames, fewer.kept_frames) == (False, 2, 8, 8)
    out.write_bytes(b"rubbish")
    with pytest.raises(PoseCacheError, match=r"out\.h5 is not a readable HDF5 file"):
        extract(SEQUENCES, root, SPEC, out)
    assert extract(SEQUENCES[:1], root, SPEC, out, force=True).frames == 7


def test_skeletons_of_another_decoder_are_not_mixed_in(root: Path, whole: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "out.h5"
    out.write_bytes(whole.read_bytes())
    monkeypatch.setattr(images, "DECODING", images.DECODING + 1)
    with pytest.raises(PoseCacheError, match=r"than 'small' has now \(decoding 1 there, 2 here\): replace it by force"):
        extract(SEQUENCES, root, SPEC, out)
    assert extract(SEQUENCES[:1], root, SPEC, out, force=True).kept_frames == 0


def test_what_workers_leave_that_were_killed_while_they_wrote_is_removed(root: Path, tmp_path: Path, monkeypatch):
    def killed(jobs, *_):
        for job in jobs:
            job.path.with_name(f"{job.path.name}.0123abcd.partial").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pose_cache.extract.make_with_workers", killed)
    with pytest.raises(KeyboardInterrupt):
        extract(SEQUENCES, root, SPEC, tmp_path / "out.h5", ExtractOptions(device="cpu,cpu", shard_frames=SHARD))
    assert not list(tmp_path.rglob("*.partial"))


def test_two_workers_make_the_same_file(root: Path, whole: Path, tmp_path: Path):
    calls: list[tuple[int, int]] = []
    summary = extract(
        SEQUENCES, root, SPEC, tmp_path / "out.h5",
        ExtractOptions(device="cpu,cpu", batch_size=4, shard_frames=SHARD, threads=1),
        monitor=Told(lambda done, total: calls.append((done, total))),
    )  # fmt: skip
    assert contents(tmp_path / "out.h5") == contents(whole) and summary.kept_frames == 0
    assert calls[0] == (0, 34) and calls[-1] == (34, 34) and len(calls) == 4 and calls == sorted(calls)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_two_dask_workers_make_the_same_file(root: Path, whole: Path, tmp_path: Path, monkeypatch):
    from distributed import LocalCluster

    out = tmp_path / "out.h5"
    options = ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1, backend="dask")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(PoseCacheError, match=r"no dask cluster: .*DASK_SCHEDULER_ADDRESS"):
        extract(SEQUENCES, root, SPEC, out, options)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        dask.config.set({"scheduler-address": cluster.scheduler_address}),
    ):
        extract(SEQUENCES, root, SPEC, out, options)
    assert contents(out) == contents(whole)


def test_a_backend_that_is_not_there_is_named_with_its_remedy(root: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for backend, message in {"ray": r"pip install 'ray'", "snail": r"'snail' cannot be used"}.items():
        with pytest.raises(PoseCacheError, match=message):
            extract(SEQUENCES, root, SPEC, tmp_path / "out.h5", ExtractOptions(backend=backend))


def test_only_what_is_new_or_has_changed_is_estimated_again(root: Path, tmp_path: Path):
    copy, out, fresh = tmp_path / "copy", tmp_path / "out.h5", tmp_path / "fresh.h5"
    shutil.copytree(root, copy)
    lost = copy / SEQUENCES[4].frames[3]
    picture = lost.read_bytes()
    lost.unlink()
    extract(SEQUENCES[1:], copy, SPEC, out)
    before = {name: SkeletonStore(out).read(name) for name in SkeletonStore(out).names}

    # Grown by the first tracklet, one frame edited to another picture, one that was missing is there, one touched, one gone.
    lost.write_bytes(picture)
    (copy / SEQUENCES[2].frames[5]).write_bytes((copy / SEQUENCES[0].frames[0]).read_bytes())
    (copy / SEQUENCES[3].frames[0]).touch()
    (copy / SEQUENCES[1].frames[0]).unlink()
    summary = extract(SEQUENCES, copy, SPEC, out)
    changed = {"train/a", "train/c", "train/e"}
    assert summary.kept_frames == sum(n for name, n in LENGTHS.items() if name not in changed)
    after = SkeletonStore(out)
    assert after.names == tuple(LENGTHS) and verify_store(out) == []
    assert after.provenance.dataset == fingerprint(SEQUENCES)
    assert {name for name, one in before.items() if not np.array_equal(after.joints(name), one.joints)} <= changed
    assert extract(SEQUENCES, copy, SPEC, out).up_to_date
    (copy / SEQUENCES[1].frames[0]).write_bytes((root / SEQUENCES[1].frames[0]).read_bytes())
    extract(SEQUENCES, copy, SPEC, fresh)
    for name in LENGTHS:
        np.testing.assert_allclose(after.joints(name), SkeletonStore(fresh).joints(name), atol=1e-4)
        np.testing.assert_array_equal(after.valid(name), SkeletonStore(fresh).valid(name))


def test_a_damaged_tracklet_of_a_finished_cache_is_named_and_made_again_alone(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out.h5"
    data = bytearray(whole.read_bytes())
    with h5py.File(whole) as file:
        data[file["keypoints2d"].id.get_offset() + 204 * 10 + 7] ^= 0x20  # the third frame of train/c
    out.write_bytes(data)
    (problem,) = verify_store(out)
    assert "train/c" in problem and "checksum" in problem
    # As it is asked for, nothing is wrong with its names; a dataset that has changed makes it look closely.
    summary = extract(SEQUENCES[:4], root, SPEC, out, ExtractOptions(batch_size=4, shard_frames=SHARD, threads=1))
    assert (summary.kept_frames, summary.frames) == (13, 25) and verify_store(out) == []
    np.testing.assert_allclose(SkeletonStore(out).joints("train/c"), SkeletonStore(whole).joints("train/c"), atol=1e-4)


def test_frames_that_score_too_low_keep_their_keypoints_but_are_not_valid(root: Path, tmp_path: Path):
    summary = extract(SEQUENCES[:2], root, replace(SPEC, min_score=1e6), tmp_path / "out.h5")
    assert (summary.without_pose, summary.missing, summary.unreadable) == (8, 0, 0)
    tracklet = SkeletonStore(tmp_path / "out.h5").read("train/a")
    assert tracklet.keypoints2d.any() and not tracklet.joints.any() and not tracklet.valid.any()


def test_the_plan_covers_all_tracklets_once_in_order():
    plan = plan_shards(SEQUENCES, SHARD)
    assert [sum(len(one.frames) for one in shard) for shard in plan] == [8, 12, 14]
    assert [one for shard in plan for one in shard] == SEQUENCES
    assert plan_shards(SEQUENCES, 10**6) == [tuple(SEQUENCES)]
    assert len(plan_shards(SEQUENCES, 1)) == len(SEQUENCES)
    assert fingerprint(SEQUENCES) != fingerprint(SEQUENCES[::-1])


def test_inputs_that_cannot_be_right_are_refused(root: Path, tmp_path: Path):
    cases = {
        "no tracklets": [],
        "'x' has no frames": [FrameSequence("x", ())],
        "'train/a' comes twice": [SEQUENCES[0], SEQUENCES[0]],
        r"none of the 1 frames is there: the first would be .*gone\.jpg": [FrameSequence("x", ("gone.jpg",))],
    }
    for message, sequences in cases.items():
        with pytest.raises(PoseCacheError, match=message):
            extract(sequences, root, SPEC, tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []
