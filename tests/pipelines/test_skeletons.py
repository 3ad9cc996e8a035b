import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from csip.data.dataset import Dataset, Tracklet
from csip.data.skeletons import SPLITS, frame_sequences
from csip.errors import CsipError
from csip.synthetic.accuracy import compare_with_truth
from csip.synthetic.world import SyntheticSpec, load_truth, render_mars
from pipelines import extract_skeletons as skeletons
from pose_cache.estimator import EstimatorSpec
from pose_cache.extract import ExtractOptions
from pose_cache.joints import H36M17
from pose_cache.shipped import CONFIGS
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store

pytestmark = pytest.mark.slow

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
    summary = skeletons.extract_skeletons(
        dataset, out, options=ExtractOptions(device="cpu"), splits=("train", "query", "gallery")
    )
    assert summary.tracklets == 3 and SkeletonStore(out).names == ("p1/a", "p2/b", "p3/c")
    record = json.loads((tmp_path / "skeletons.json").read_text())
    assert (record["frames"], record["invalid"], record["estimator"]) == (9, 0, "human3d") and record["seconds"] > 0
    printed = capsys.readouterr().out
    assert "3 tracklets, 9 frames" in printed and "frames/s" in printed
    assert skeletons.extract_skeletons(
        dataset, out, options=ExtractOptions(device="cpu"), splits=("train", "query", "gallery")
    ).up_to_date
    assert "up to date" in capsys.readouterr().out
    only = frame_sequences(dataset, ("train",))
    assert [one.name for one in only] == ["p1/a"]
    with pytest.raises(CsipError, match="unknown split 'test': expected some of train, query, gallery"):
        frame_sequences(dataset, ("test",))


def test_broken_frames_are_named_in_the_summary(dataset: Dataset, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(skeletons, "estimator_spec", lambda name: SMALL)
    (dataset.root / "p1/a/1.jpg").write_bytes(b"\xff\xd8 cut")
    (dataset.root / "p1/a/2.jpg").unlink()
    skeletons.extract_skeletons(dataset, tmp_path / "skeletons.h5", options=ExtractOptions(device="cpu"))
    printed = capsys.readouterr().out
    assert (
        re.search(r"not valid: 1 missing, 1 truncated", printed) and "p1/a/1.jpg" in printed and "p1/a/2.jpg" in printed
    )
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


def test_json_skeletons_beside_the_images_are_found_and_what_is_missing_is_listed_in_full(
    dataset: Dataset, tmp_path: Path, capsys
):
    text = json.dumps({"keypoints": np.ones((17, 3)).tolist()})
    for name in ("p1/a/0", "p1/a/1", "p2/b/0", "p1/a/other"):
        file = dataset.root / "skeleton_3d_hmr2.0" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    out = tmp_path / "out.h5"
    skeletons.import_json(dataset, None, out)
    printed = capsys.readouterr().out
    assert "skeleton_3d_hmr2.0" in printed and "2 of 3 frames" in printed
    assert SkeletonStore(out).valid("p1/a").tolist() == [True, True, False]
    listed = (tmp_path / "out.import.txt").read_text()
    assert "p1/a/2.jpg: no JSON file" in listed and "\np1/a/other.json\n" in listed and "p2/b/: 1 files" in listed
    skeletons.import_json(dataset, dataset.root / "skeleton_3d_hmr2.0", out, splits=SPLITS, unit="mm")
    listed = (tmp_path / "out.import.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in listed if ".jpg" in line] == [
        "p1/a/2.jpg", "p2/b/1.jpg", "p2/b/2.jpg", "p3/c/0.jpg", "p3/c/1.jpg", "p3/c/2.jpg",
    ]  # fmt: skip
    assert SkeletonStore(out).provenance.unit == "mm"


def test_an_import_replaces_an_extracted_cache_only_when_told_to(dataset: Dataset, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(skeletons, "estimator_spec", lambda name: SMALL)
    out = tmp_path / "skeletons.h5"
    skeletons.extract_skeletons(dataset, out, options=ExtractOptions(device="cpu"))
    (tmp_path / "json").mkdir()
    (tmp_path / "json/0.json").write_text(json.dumps({"keypoints": np.ones((17, 3)).tolist()}))
    with pytest.raises(CsipError, match=r"skeletons\.h5 already exists, made by small: replace it with --force"):
        skeletons.import_json(dataset, tmp_path / "json", out)
    assert SkeletonStore(out).provenance.estimator == "small" and (tmp_path / "skeletons.json").exists()
    skeletons.import_json(dataset, tmp_path / "json", out, force=True)
    assert SkeletonStore(out).provenance.estimator == "json"
    assert not (tmp_path / "skeletons.json").exists(), "the figures of the extraction are not those of the import"
    skeletons.import_json(dataset, tmp_path / "json", out)


def test_info_says_what_is_in_a_cache_to_people_and_programs(dataset: Dataset, tmp_path: Path, capsys):
    points = np.random.default_rng(1).normal(size=(3, 20, 3)).astype(np.float32)
    np.savez(tmp_path / "k.npz", p1_a=points, p2_b=points)
    out = tmp_path / "skeletons.h5"
    skeletons.import_kinect(dataset, tmp_path / "k.npz", out, mirrored=True)
    capsys.readouterr()
    skeletons.info(out)
    printed = capsys.readouterr().out
    for words in ("3, 1 without a pose", "9, 6 valid (66.67%)", "h36m17", "mirrored", SkeletonStore(out).digest):
        assert words in printed
    skeletons.info(out, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["valid"], found["estimator"]) == (9, 6, "kinect")
    assert found["details"] == {"source": "Kinect v1", "mirrored": True}


def test_an_exported_cache_can_be_imported(dataset: Dataset, tmp_path: Path, capsys):
    points = np.random.default_rng(1).normal(size=(3, 20, 3)).astype(np.float32)
    points[1] = np.nan
    np.savez(tmp_path / "k.npz", p1_a=points, p2_b=points, p3_c=points)
    skeletons.import_kinect(dataset, tmp_path / "k.npz", tmp_path / "k.h5", mirrored=False)
    capsys.readouterr()
    skeletons.export_json(tmp_path / "k.h5", tmp_path / "json")
    printed = capsys.readouterr().out
    assert "exported 6 frames" in printed and "3 not valid and left out" in printed and "p1/a/1.jpg" in printed
    report = skeletons.import_json(dataset, tmp_path / "json", tmp_path / "back.h5", splits=SPLITS)
    assert report.valid == 6 and report.unused == ()
    for name in ("p1/a", "p2/b", "p3/c"):
        before, after = (SkeletonStore(tmp_path / file).read(name) for file in ("k.h5", "back.h5"))
        np.testing.assert_array_equal(after.joints, before.joints)
        np.testing.assert_array_equal(after.valid, before.valid)


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
        figures = compare_with_truth(SkeletonStore(tmp_path / "s.h5"), root)
        assert figures["pck"] == 1.0
        errors.append(figures["pa_mpjpe_mm"])
    assert errors[0] < 0.1
    # The mean length of a normal vector of 30 mm an axis is 48 mm; aligning takes a little away.
    assert 38 < errors[1] < 48
    write_store(tmp_path / "s.h5", [], Provenance("x", H36M17.name, "m"))
    with pytest.raises(CsipError, match="none of the rendered tracklets"):
        compare_with_truth(SkeletonStore(tmp_path / "s.h5"), root)
