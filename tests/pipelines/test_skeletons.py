import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import CONFIGS
from csip.data.synthetic import SyntheticSpec, load_truth, render_mars
from csip.data.tracklets import Dataset, Tracklet
from csip.errors import CsipError
from pipelines import skeletons
from pose_cache.estimator import EstimatorSpec
from pose_cache.joints import H36M17
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store

SMALL = EstimatorSpec("small", CONFIGS / "pose/demo/pose2d.py", None, CONFIGS / "pose/demo/lifter.py", None)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    tracklets = []
    for name in ("p1/a", "p2/b", "p3/c"):
        frames = tuple(f"{name}/{index}.jpg" for index in range(3))
        (tmp_path / "data" / name).mkdir(parents=True)
        for frame in frames:
            cv2.imwrite(str(tmp_path / "data" / frame), rng.integers(0, 256, (64, 32, 3), dtype=np.uint8))
        tracklets.append(Tracklet(name, int(name[1]), 1, frames))
    return Dataset("x", tmp_path / "data", tuple(tracklets[:1]), tuple(tracklets[1:2]), tuple(tracklets[1:]))


def test_the_chosen_splits_are_extracted_once_each_and_reported(dataset: Dataset, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(skeletons, "estimator_spec", lambda name: SMALL)
    out = tmp_path / "skeletons.h5"
    summary = skeletons.extract_skeletons(dataset, out, device="cpu", splits=("train", "query", "gallery"))
    assert summary.tracklets == 3 and SkeletonStore(out).names == ("p1/a", "p2/b", "p3/c")
    record = json.loads((tmp_path / "skeletons.json").read_text())
    assert (record["frames"], record["invalid"], record["estimator"]) == (9, 0, "human3d") and record["seconds"] > 0
    printed = capsys.readouterr().out
    assert "3 tracklets, 9 frames" in printed and "frames/s" in printed
    assert skeletons.extract_skeletons(dataset, out, device="cpu", splits=("train", "query", "gallery")).up_to_date
    assert "up to date" in capsys.readouterr().out
    only = skeletons.frame_sequences(dataset, ("train",))
    assert [one.name for one in only] == ["p1/a"]
    with pytest.raises(CsipError, match="unknown split 'test': expected some of train, query, gallery"):
        skeletons.frame_sequences(dataset, ("test",))


def test_broken_frames_are_named_in_the_summary(dataset: Dataset, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(skeletons, "estimator_spec", lambda name: SMALL)
    (dataset.root / "p1/a/1.jpg").write_bytes(b"\xff\xd8 cut")
    (dataset.root / "p1/a/2.jpg").unlink()
    skeletons.extract_skeletons(dataset, tmp_path / "skeletons.h5", device="cpu")
    printed = capsys.readouterr().out
    assert re.search(r"1 missing, 1 unreadable", printed) and "p1/a/1.jpg" in printed and "p1/a/2.jpg" in printed
    assert json.loads((tmp_path / "skeletons.json").read_text())["invalid"] == 2


def test_imports_previews_and_checks_say_what_they_did(dataset: Dataset, tmp_path: Path, capsys):
    points = np.random.default_rng(1).normal(size=(3, 20, 3)).astype(np.float32)
    np.savez(tmp_path / "k.npz", p1_a=points, p2_b=points, other=points)
    out = tmp_path / "skeletons.h5"
    report = skeletons.import_kinect(dataset, tmp_path / "k.npz", out, mirrored=False)
    printed = capsys.readouterr().out
    assert report.valid == 6 and "6 of 9 frames" in printed and "p3/c: no array" in printed and "other" in printed
    skeletons.preview(out, dataset.root, tmp_path / "sheet.png", tracklets=2)
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    assert skeletons.verify(out)
    assert "every checksum is right" in capsys.readouterr().out
    data = bytearray(out.read_bytes())
    position = data.index(points[0, 0, 2].tobytes())
    data[position] ^= 1
    out.write_bytes(data)
    assert not skeletons.verify(out)
    assert "p1/a" in capsys.readouterr().out


def test_json_skeletons_are_imported_for_the_training_tracklets(dataset: Dataset, tmp_path: Path, capsys):
    (tmp_path / "json" / "p1" / "a").mkdir(parents=True)
    for index in range(2):
        text = json.dumps({"keypoints": np.ones((17, 3)).tolist()})
        (tmp_path / "json" / "p1" / "a" / f"{index}.json").write_text(text)
    skeletons.import_json(dataset, tmp_path / "json", tmp_path / "out.h5")
    assert "2 of 3 frames" in capsys.readouterr().out
    assert SkeletonStore(tmp_path / "out.h5").valid("p1/a").tolist() == [True, True, False]


def test_errors_against_the_truth_ignore_rotation_and_scale_and_grow_with_noise(tmp_path: Path):
    root = tmp_path / "world"
    render_mars(root, SyntheticSpec(train_ids=2, test_ids=2, cameras=2, tracklets_per_camera=1, frames=3), 1)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    errors = []
    for noise in (0.0, 0.03):
        made = []
        for truth in load_truth(root):
            count = len(truth.frames)
            joints = (truth.joints3d + rng.normal(size=truth.joints3d.shape) * noise) @ turn * 2.5 + 7
            keypoints = np.concatenate([truth.coco + 1.0, np.ones((count, 17, 1))], axis=2)
            valid = np.ones(count, bool)
            made.append(TrackletSkeletons(truth.name, truth.frames, joints.astype("f4"), keypoints.astype("f4"), valid))
        write_store(tmp_path / "s.h5", made, Provenance("x", H36M17.name, "m"))
        figures = skeletons.compare_with_truth(SkeletonStore(tmp_path / "s.h5"), root)
        assert figures["pck"] == 1.0
        errors.append(figures["pa_mpjpe_mm"])
    assert errors[0] < 0.1
    # The mean length of a normal vector of 30 mm an axis is 48 mm; aligning takes a little away.
    assert 38 < errors[1] < 48
    write_store(tmp_path / "s.h5", [], Provenance("x", H36M17.name, "m"))
    with pytest.raises(CsipError, match="none of the rendered tracklets"):
        skeletons.compare_with_truth(SkeletonStore(tmp_path / "s.h5"), root)
