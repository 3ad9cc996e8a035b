import json
import os
from pathlib import Path

import numpy as np
import pytest

from pose_cache.errors import PoseCacheError
from pose_cache.interchange import import_json, import_kinect
from pose_cache.joints import H36M17, KINECT20
from pose_cache.json_tree import JsonFolder
from pose_cache.plan import FrameSequence, fingerprint
from pose_cache.store import SkeletonStore, verify_store

SHARED = Path(os.environ.get("CSIP_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
KINECT = SHARED / "data" / "kinect-reid"


def sequence(name: str, count: int) -> FrameSequence:
    return FrameSequence(name, tuple(f"{name}/{index:03d}.jpg" for index in range(count)))


def standing_kinect() -> np.ndarray:
    """A person upright and facing the sensor, in Kinect's axes: y up, x to the right of the picture.

    Facing the sensor, the person's right is at the left of a picture that is not mirrored.
    """
    points = np.zeros((20, 3), np.float32)
    points[:, 2] = 2.0
    heights = {"head": 0.6, "shoulder": 0.4, "elbow": 0.2, "wrist": 0.0, "hand": -0.1, "hip": 0.0, "knee": -0.4}
    for index, name in enumerate(KINECT20.joints):
        side, _, part = name.rpartition("_")
        points[index, 1] = heights.get(part, heights.get(side, -0.8))
        points[index, 0] = {"left": 0.2, "right": -0.2}.get(side, 0.0)
    points[KINECT20.joints.index("hip_center"), 1] = 0.0
    points[KINECT20.joints.index("shoulder_center"), 1] = 0.45
    points[KINECT20.joints.index("head"), 1:] = 0.6, 1.9
    return points


def test_kinect_axes_become_camera_axes_and_mirroring_swaps_the_sides(tmp_path: Path):
    upright = np.repeat(standing_kinect()[None], 3, axis=0)
    np.savez(tmp_path / "k.npz", **{"p0/v0": upright, "p0_v1": upright[:, KINECT20.mirror_order]})
    sequences = [sequence("p0/v0", 3), sequence("train/p0/v1", 3)]
    names = H36M17.joints
    for mirrored, right in ((False, "p0/v0"), (True, "train/p0/v1")):
        report = import_kinect(tmp_path / "k.npz", sequences, tmp_path / "out.h5", mirrored=mirrored)
        assert (report.tracklets, report.frames, report.valid, report.problems, report.unused) == (2, 6, 6, (), ())
        with SkeletonStore(tmp_path / "out.h5") as store:
            assert store.provenance.unit == "m" and store.joint_set is H36M17
            joints = store.joints(right)[0]
        place = dict(zip(names, joints, strict=True))
        assert place["head"][1] < place["neck"][1] < place["thorax"][1] < place["spine"][1] < place["pelvis"][1]
        assert place["pelvis"][1] < place["left_knee"][1] < place["left_ankle"][1]
        assert place["right_wrist"][0] < 0 < place["left_wrist"][0]
        assert place["head"][2] == pytest.approx(1.9) and place["pelvis"][2] == 2.0


def test_kinect_arrays_that_do_not_fit_are_listed_and_their_frames_not_valid(tmp_path: Path):
    points = np.repeat(standing_kinect()[None], 4, axis=0)
    points[2, 5] = np.nan
    np.savez(tmp_path / "k.npz", a=points, b=points, c=points)
    sequences = [sequence("a", 4), sequence("b", 7), sequence("d", 2)]
    report = import_kinect(tmp_path / "k.npz", sequences, tmp_path / "out.h5")
    assert report.valid == 3 and report.unused == ("c",)
    assert [line.split(":")[0] for line in report.problems] == ["b", "d"]
    assert "(4, 20, 3), expected (7, 20, 3)" in report.problems[0] and "no array named d" in report.problems[1]
    with SkeletonStore(tmp_path / "out.h5") as store:
        assert store.valid("a").tolist() == [True, True, False, True]
        assert not store.valid("b").any() and not store.valid("d").any()
        assert store.provenance.dataset == fingerprint(sequences)
    with pytest.raises(
        PoseCacheError, match=r"no skeleton in it belongs to a frame of the 1 tracklets.*no array named zzz"
    ):
        import_kinect(tmp_path / "k.npz", [sequence("zzz", 4)], tmp_path / "none.h5")
    assert not (tmp_path / "none.h5").exists()
    (tmp_path / "bad.npz").write_bytes(b"rubbish")
    with pytest.raises(PoseCacheError, match=r"bad\.npz: not a readable"):
        import_kinect(tmp_path / "bad.npz", sequences, tmp_path / "out.h5")


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_json_files_are_paired_by_the_frames_names(tmp_path: Path, dropped: int):
    rng = np.random.default_rng(0)
    # Two tracklets in one folder, and names that sort differently from the order of the frames.
    sequences = [
        FrameSequence("x", tuple(f"bbox_train/0001/0001C1T0001F{i}.jpg" for i in (9, 10, 11))),
        FrameSequence("y", tuple(f"bbox_train/0001/0001C2T0001F{i}.jpg" for i in (1, 2))),
    ]
    truth = {}
    for one in sequences:
        for frame in one.frames:
            truth[frame] = rng.normal(size=(17, 3)).astype(np.float32)
            path = tmp_path.joinpath("skeleton_3d", *Path(frame).with_suffix(".json").parts[dropped:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"keypoints": truth[frame].tolist()}))
    report = import_json([JsonFolder(tmp_path / "skeleton_3d")], sequences, tmp_path / "out.h5")
    assert (report.valid, report.problems, report.unused) == (5, (), ())
    with SkeletonStore(tmp_path / "out.h5") as store:
        for one in sequences:
            np.testing.assert_array_equal(store.joints(one.name), [truth[frame] for frame in one.frames])
    assert verify_store(tmp_path / "out.h5") == []


def test_json_files_that_do_not_fit_are_listed(tmp_path: Path):
    folder = tmp_path / "skeleton_3d" / "a"
    folder.mkdir(parents=True)
    good = {"keypoints": np.ones((17, 3)).tolist()}
    contents = {
        "000": json.dumps(good),
        "001": json.dumps({"keypoints": np.ones((16, 3)).tolist()}),
        "002": "{",
        "003": json.dumps({"joints": []}),
        "004": json.dumps(good).replace("1.0", "NaN", 1),
        "extra": json.dumps(good),
    }
    for stem, text in contents.items():
        (folder / f"{stem}.json").write_text(text)
    report = import_json([JsonFolder(tmp_path / "skeleton_3d")], [sequence("a", 6)], tmp_path / "out.h5")
    assert report.valid == 1 and report.unused == ("a/extra.json",)
    assert [line.split(":")[0] for line in report.problems] == [f"a/{index:03d}.jpg" for index in range(1, 6)]
    assert "no JSON file" in report.problems[-1] and "(16, 3)" in report.problems[0]
    assert SkeletonStore(tmp_path / "out.h5").valid("a").tolist() == [True] + [False] * 5
    with pytest.raises(PoseCacheError, match="no such folder"):
        import_json([JsonFolder(tmp_path / "gone")], [sequence("a", 6)], tmp_path / "out.h5")


@pytest.mark.skipif(not KINECT.is_dir(), reason="the real Kinect recordings are not here (CSIP_SHARED)")
def test_real_kinect_recordings_stand_upright_and_wave_with_the_hand_that_waves(tmp_path: Path):
    tracklets = json.loads((KINECT / "tracklets.json").read_text())
    sequences = [sequence(one["name"], len(one["frames"])) for one in tracklets]
    report = import_kinect(KINECT / "skeletons_kinect20.npz", sequences, tmp_path / "k.h5", mirrored=True)
    assert (report.tracklets, report.valid, report.problems, report.unused) == (10, 320, (), ())
    with SkeletonStore(tmp_path / "k.h5") as store:
        joints = np.concatenate([store.joints(name) for name in store.names])
        waving = store.joints("p4_v1")[16]
    place = {name: joints[:, index] for index, name in enumerate(H36M17.joints)}
    assert (place["head"][:, 1] < place["pelvis"][:, 1]).all()
    # People face the sensor in most frames: their right is on the left.
    assert (place["right_shoulder"][:, 0] < place["left_shoulder"][:, 0]).mean() > 0.9
    height = np.linalg.norm(place["head"] - (place["left_ankle"] + place["right_ankle"]) / 2, axis=1)
    assert 1.3 < np.median(height) < 1.8
    # In this frame the person lifts the hand on the right of the picture, the left one.
    left, right = (waving[H36M17.joints.index(f"{side}_wrist"), 1] for side in ("left", "right"))
    assert left < right - 0.2
