"""From videos to a data set by a detector: RTMDet, HOG where its weights are not here, and a real video."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from ingest_scenes import make_scene, write_video
from ingested import rows
from typer.testing import CliRunner

import csip.video.rtmdet
import pipelines.cli
from csip.video.ingest import DetectorOptions
from pipelines.ingest_videos import run
from pose_cache.errors import PoseCacheError
from pose_cache.weights import Weights

pytestmark = pytest.mark.slow

BOXES = DetectorOptions("boxes")
REAL = Path(__file__).parents[3] / "shared/data/video/one-by-one-person-detection.mp4"


# ---- RTMDet ----------------------------------------------------------------------------------------------------------

SMALL = """
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
    bbox_head=dict(in_channels=32, feat_channels=32, num_classes=1),
    test_cfg=dict(nms_pre=300, max_per_img=20))
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='Pad', size=(160, 160), pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
"""


@pytest.fixture(scope="module")
def small_rtmdet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small RTMDet with random weights that is sure of what it sees, as config and checkpoint."""
    from pose_cache.compat import guard_torchvision

    guard_torchvision()
    folder = tmp_path_factory.mktemp("rtmdet")
    (folder / "small.py").write_text(SMALL)
    model, _ = csip.video.rtmdet._build(folder / "small.py", torch.device("cpu"))
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4:
            # Scores that differ: builds of torch sort equal ones differently, and then other boxes are left.
            torch.nn.init.normal_(parameter, std=5.0 if "rtm_cls" in name else 0.1)
        if "rtm_" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 2.0)  # scores near .9, and boxes of four strides
    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, folder / "small.pth")
    return folder / "small.py", folder / "small.pth"


def test_rtmdet_detects_in_batches_what_mmdet_does_one_by_one(small_rtmdet: tuple[Path, Path]) -> None:
    from mmdet.apis import inference_detector, init_detector

    images = list(np.random.default_rng(0).integers(0, 255, (5, 90, 140, 3), np.uint8))
    images.append(np.zeros((120, 60, 3), np.uint8))
    detector = csip.video.rtmdet.RTMDetDetector(*small_rtmdet, device="cpu", batch=4)
    found = detector.detect(images)
    model = init_detector(str(small_rtmdet[0]), str(small_rtmdet[1]), device="cpu", palette="coco")
    assert len(found) == len(images)
    for image, detections in zip(images, found, strict=True):
        instances = inference_detector(model, image).pred_instances
        sure = instances.scores >= 0.05
        assert sure.any()
        assert np.allclose(detections.boxes, instances.bboxes[sure].numpy(), atol=1e-3)
        assert np.allclose(detections.scores, instances.scores[sure].numpy(), atol=1e-5)


def test_rtmdet_from_video_to_tracklets(small_rtmdet: tuple[Path, Path], tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4")
    config, checkpoint = small_rtmdet
    arguments = ["ingest", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--checkpoint", str(checkpoint),
                 "--detector-config", str(config), "--device", "cpu", "--min-height", "4", "--min-width", "4",
                 "--min-change", "0", "--max-overlap", "1", "--min-frames", "3"]  # fmt: skip
    result = CliRunner().invoke(pipelines.cli.app, arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    summary = json.loads((tmp_path / "out/ingest.json").read_text())
    assert summary["detector"] == "rtmdet"
    assert summary["crops"] == len(rows(tmp_path / "out")) > 0


def test_rtmdet_without_a_network_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_scene(tmp_path / "v/a.mp4")
    monkeypatch.setenv("CSIP_CACHE", str(tmp_path / "cache"))
    address = "http://127.0.0.1:9/rtmdet.pth"
    monkeypatch.setattr(csip.video.rtmdet, "WEIGHTS", Weights(address, "235e8209"))
    with pytest.raises(PoseCacheError, match=rf"cannot download {address}.*put it at {tmp_path}/cache/rtmdet\.pth"):
        run(tmp_path / "v", tmp_path / "out", DetectorOptions("rtmdet"))
    # Nothing is done yet, so that another detector may be tried.
    assert run(tmp_path / "v", tmp_path / "out", BOXES).tracklets == 2
    (tmp_path / "cache/rtmdet.pth").write_bytes(b"another file")
    with pytest.raises(PoseCacheError, match=r"not the file that is meant.*expected 235e8209"):
        run(tmp_path / "v", tmp_path / "other", DetectorOptions("rtmdet"))


def test_without_weights_the_detector_is_hog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_scene(tmp_path / "v/a.mp4")
    monkeypatch.setenv("CSIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(csip.video.rtmdet, "WEIGHTS", Weights("http://127.0.0.1:9/rtmdet.pth", "235e8209"))
    assert run(tmp_path / "v", tmp_path / "out").detector == "hog"
    assert "detector hog: RTMDet's weights are not here" in capsys.readouterr().out
    # What was begun goes on as it was begun, whatever can be downloaded by then.
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/rtmdet.pth").touch()
    assert run(tmp_path / "v", tmp_path / "out").detector == "hog"


# ---- a real video ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists(), reason="needs the real video beside the project")
def test_hog_keeps_two_real_people_apart(tmp_path: Path) -> None:
    """A stretch in which one person leaves (by frame 197 of the whole) and the next one comes (from frame 228 on)."""
    first, images = 100, []
    with av.open(str(REAL)) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            if number >= first + 200:
                break
            if number >= first:
                images.append(frame.to_ndarray(format="bgr24"))
    write_video(tmp_path / "v/real.mp4", images)
    summary = run(tmp_path / "v", tmp_path / "out", DetectorOptions("hog"))
    lengths = {"before": 0, "after": 0}
    for _, group in groupby(rows(tmp_path / "out"), lambda row: row["tracklet"]):
        numbers = [int(row["number"]) + first - 1 for row in group]
        assert numbers[-1] <= 197 or numbers[0] >= 228, "a tracklet of two people"
        side = "before" if numbers[-1] <= 197 else "after"
        lengths[side] = max(lengths[side], len(numbers))
    assert min(lengths.values()) >= 15
    assert summary.frames == 200
