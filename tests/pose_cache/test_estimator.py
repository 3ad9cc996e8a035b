"""The batched estimator against MMPose's own inference functions, on the same weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pose_cache import images
from pose_cache.compat import guard_torchvision
from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator, View, estimator_spec, human3d, mmpose_config

pytestmark = pytest.mark.slow

RTMPOSE = mmpose_config("body_2d_keypoint/rtmpose/body8/rtmpose-t_8xb256-420e_body8-256x192.py")
HEATMAP = mmpose_config("body_2d_keypoint/topdown_heatmap/coco/td-hm_mobilenetv2_8xb64-210e_coco-256x192.py")
MOTIONBERT = mmpose_config("body_3d_keypoint/motionbert/h36m/motionbert_dstformer-ft-243frm_8xb32-120e_h36m.py")
VIDEOPOSE = mmpose_config("body_3d_keypoint/video_pose_lift/h36m/video-pose-lift_tcn-27frm-supv_8xb128-160e_h36m.py")
SIMPLE = mmpose_config("body_3d_keypoint/image_pose_lift/h36m/image-pose-lift_tcn_8xb64-200e_h36m.py")


def untrained(pose2d: Path = RTMPOSE, lifter: Path = SIMPLE) -> EstimatorSpec:
    return EstimatorSpec("untrained", pose2d, None, lifter, None)


def mmposes(config: Path, flip: bool = False) -> Any:
    """The model that an estimator without weights has, as MMPose itself makes it and nothing has changed it."""
    guard_torchvision()
    from mmengine.config import Config
    from mmpose.apis import init_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = init_model(Config.fromfile(config), None, "cpu")
    model.test_cfg["flip_test"] = flip
    return model


def small_motionbert(folder: Path) -> Path:
    path = folder / "motionbert.py"
    path.write_text(
        f"_base_ = [{str(MOTIONBERT)!r}]\n"
        "model = dict(backbone=dict(feat_size=32, depth=2, num_heads=2, seq_len=24),\n"
        "             head=dict(in_channels=32, embedding_size=32))\n"
        "test_dataloader = dict(dataset=dict(multiple_target=24))\n"
    )
    return path


def udp_heatmap(folder: Path) -> Path:
    path = folder / "udp.py"
    codec = "dict(type='UDPHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2)"
    path.write_text(
        f"_base_ = [{str(HEATMAP)!r}]\n"
        f"model = dict(head=dict(decoder=dict(_delete_=True, **{codec})))\n"
        "val_pipeline = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale', padding=1.1),\n"
        "                dict(type='TopdownAffine', input_size=(192, 256), use_udp=True), dict(type='PackPoseInputs')]\n"
        "test_dataloader = dict(dataset=dict(pipeline=val_pipeline))\n"
    )
    return path


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth coloured blobs of many sizes: unlike noise, their keypoints are not the same everywhere."""
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(count):
        height, width = rng.integers(20, 300, 2)
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][..., None]
        waves = np.sin(rng.uniform(2, 20, 3) * x + rng.uniform(2, 20, 3) * y + rng.uniform(0, 6, 3))
        crops.append(((waves + 1) * 127).astype(np.uint8))
    return crops


def people(count: int, seed: int = 0, width: float = 128, height: float = 256) -> np.ndarray:
    """(T, 17, 3) random COCO keypoints within a crop, with scores."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, 17, 3)) * [width, height, 1]).astype(np.float32)


def api_lift(lifter: Any, keypoints: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """MMPose's answer for the 2D sequence that surrounds one frame, whose keypoints are COCO's."""
    from mmengine.structures import InstanceData
    from mmpose.apis import convert_keypoint_definition, inference_pose_lifter_model
    from mmpose.structures import PoseDataSample

    samples = []
    for points in convert_keypoint_definition(keypoints, "coco", "h36m"):
        sample = PoseDataSample()
        sample.pred_instances = InstanceData(keypoints=points[None], bboxes=np.array([[0, 0, *size]]))
        sample.gt_instances = InstanceData()
        sample.track_id = 0
        samples.append([sample])
    result = inference_pose_lifter_model(lifter, samples, image_size=size)
    return np.asarray(result[0].pred_instances.keypoints).reshape(-1, 17, 3)


@pytest.mark.parametrize(
    ("kind", "flip"),
    [("rtmpose-t", False), ("rtmpose-t", True), ("rtmpose-m", False), ("heatmap", False), ("udp", True)],
)
def test_keypoints_equal_mmposes_topdown_inference(kind: str, flip: bool, tmp_path: Path):
    configs = {"rtmpose-t": RTMPOSE, "heatmap": HEATMAP, "rtmpose-m": human3d().pose2d_config}
    config = configs[kind] if kind in configs else udp_heatmap(tmp_path)
    estimator, reference = PoseEstimator(untrained(config), flip_test=flip), mmposes(config, flip)
    from mmpose.apis import inference_topdown

    crops = pictures(5)
    ours = estimator.detect(crops)
    assert ours.shape == (5, 17, 3) and ours.dtype == np.float32
    for crop, found in zip(crops, ours, strict=True):
        theirs = inference_topdown(reference, crop)[0].pred_instances
        np.testing.assert_allclose(found[:, :2], theirs.keypoints[0], atol=0.01)
        np.testing.assert_allclose(found[:, 2], theirs.keypoint_scores[0], atol=1e-3)
    assert np.ptp(ours[:, :, :2] / [[crop.shape[1::-1]] for crop in crops], axis=0).max() > 0.01


@pytest.mark.parametrize("lifter", [VIDEOPOSE, SIMPLE], ids=["videopose3d", "simplebaseline3d"])
def test_each_frame_equals_mmposes_lifter_on_the_window_around_it(lifter: Path):
    estimator, reference = PoseEstimator(untrained(lifter=lifter)), mmposes(lifter)
    from mmpose.apis import extract_pose_sequence

    keypoints, size = people(31), (128.0, 256.0)
    (ours,) = estimator.lift([(keypoints, np.tile(size, (31, 1)))])
    assert ours.shape == (31, 17, 3) and ours.dtype == np.float32
    length = 27 if lifter == VIDEOPOSE else 1
    for frame in (0, 3, 15, 30):
        window = np.stack(extract_pose_sequence(list(keypoints), frame, causal=False, seq_len=length))
        np.testing.assert_allclose(ours[frame], api_lift(reference, window, size)[0], atol=1e-4)
    assert np.ptp(ours, axis=0).max() > 0.01


@pytest.mark.parametrize("flip", [False, True])
def test_motionbert_of_one_frame_equals_mmposes_lifter(flip: bool):
    estimator, reference = PoseEstimator(untrained(lifter=MOTIONBERT), flip_test=flip), mmposes(MOTIONBERT, flip)
    keypoints, size = people(1), (100.0, 240.0)
    (ours,) = estimator.lift([(keypoints, np.array([size]))])
    np.testing.assert_allclose(ours, api_lift(reference, keypoints, size), atol=1e-4)
    assert np.abs(ours[0, 0]).max() == 0 and np.abs(ours).max() > 0.01


def test_motionbert_of_many_frames_equals_its_own_forward(tmp_path: Path):
    config = small_motionbert(tmp_path)
    estimator, reference = PoseEstimator(untrained(lifter=config)), mmposes(config)
    from mmpose.apis import convert_keypoint_definition

    sequences = [people(24, 1), people(5, 2), people(24, 3), people(11, 4)]
    width, height = 128.0, 256.0
    ours = estimator.lift([(one, np.tile([width, height], (len(one), 1))) for one in sequences])
    for keypoints, found in zip(sequences, ours, strict=True):
        points = convert_keypoint_definition(keypoints, "coco", "h36m")[..., :2]
        inputs = np.concatenate([points / width * 2 - [1, height / width], np.ones((len(points), 17, 1))], axis=2)
        with torch.no_grad():
            raw = reference(torch.tensor(inputs[None], dtype=torch.float32), None, mode="tensor")[0].numpy()
        raw[:, 0] = 0
        pixels = np.concatenate([(raw[..., :2] + [1, height / width]) * width / 2, raw[..., 2:] * width / 2], axis=2)
        # MMPose takes four millimetres a pixel where it does not know the camera.
        expected = (pixels - pixels[:, :1]) * 4 / 1000
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_sequence_longer_than_the_lifter_is_blended_of_windows_of_its_length(tmp_path: Path):
    estimator = PoseEstimator(untrained(lifter=small_motionbert(tmp_path)))
    size = np.tile([128.0, 256.0], (60, 1))
    keypoints = people(60)
    (ours,) = estimator.lift([(keypoints, size)])
    assert ours.shape == (60, 17, 3) and np.isfinite(ours).all()
    # 60 frames in windows of 24 with at least 6 in common: starts 0, 18, 36. Where one window is alone, it is the answer.
    for start, alone in ((0, slice(0, 18)), (18, slice(24, 36)), (36, slice(42, 60))):
        (window,) = estimator.lift([(keypoints[start : start + 24], size[:24])])
        np.testing.assert_allclose(ours[alone], window[alone.start - start : alone.stop - start], atol=1e-5)
    (first,), (second,) = (estimator.lift([(keypoints[s : s + 24], size[:24])]) for s in (0, 18))
    between = ours[18:24]
    low, high = np.minimum(first[18:], second[:6]), np.maximum(first[18:], second[:6])
    assert (between >= low - 1e-5).all() and (between <= high + 1e-5).all()


def test_what_is_batched_together_does_not_change_a_sequence(tmp_path: Path):
    estimator = PoseEstimator(untrained(lifter=small_motionbert(tmp_path)))
    sequences = [(people(count, count), np.tile([64.0, 128.0], (count, 1))) for count in (3, 24, 3, 40)]
    together = estimator.lift(sequences)
    for sequence, found in zip(sequences, together, strict=True):
        np.testing.assert_allclose(estimator.lift([sequence])[0], found, atol=1e-5)
    crops = pictures(4)
    np.testing.assert_allclose(
        np.concatenate([estimator.detect(crops[i : i + 1]) for i in range(4)]), estimator.detect(crops), atol=1e-3
    )


def test_in_a_view_the_crops_resolution_does_not_matter(tmp_path: Path):
    spec = replace(untrained(lifter=small_motionbert(tmp_path)), view=View(image=1000, crop=430))
    estimator = PoseEstimator(spec)
    keypoints = people(9)
    (small,) = estimator.lift([(keypoints, np.tile([128.0, 256.0], (9, 1)))])
    (large,) = estimator.lift([(keypoints * [3, 3, 1], np.tile([384.0, 768.0], (9, 1)))])
    np.testing.assert_allclose(small, large, atol=1e-5)
    # The view is MMPose's image: the same points given to MMPose in that image give the same joints.
    seen = (keypoints[:1, :, :2] - [64, 128]) * (430 / 256) + 500
    (one,) = estimator.lift([(keypoints[:1], np.array([[128.0, 256.0]]))])
    np.testing.assert_allclose(
        one, api_lift(mmposes(spec.lifter_config), seen.astype(np.float32), (1000, 1000)), atol=1e-4
    )


def test_crops_of_changing_size_are_laid_centre_on_centre(tmp_path: Path):
    estimator = PoseEstimator(untrained(lifter=small_motionbert(tmp_path)))
    keypoints, sizes = people(6), np.tile([128.0, 256.0], (6, 1))
    (expected,) = estimator.lift([(keypoints, sizes)])
    margin = np.array([[0, 0], [3, 5], [10, 2], [4, 4], [0, 30], [1, 1]], float)
    cropped = keypoints.copy()
    cropped[..., :2] -= margin[:, None]
    (found,) = estimator.lift([(cropped, sizes - 2 * margin)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_processor_takes_large_batches_in_parts_with_the_same_result():
    estimator = PoseEstimator(untrained())
    crops = pictures(19)
    parts = [estimator.detect(crops[:7]), estimator.detect(crops[7:])]
    np.testing.assert_allclose(estimator.detect(crops), np.concatenate(parts), atol=1e-3)


def test_bf16_stays_near_float32(tmp_path: Path):
    spec, crops = untrained(lifter=small_motionbert(tmp_path)), pictures(3)
    exact, rough = (PoseEstimator(spec, precision=kind) for kind in ("32", "bf16"))
    expected, found = exact.detect(crops), rough.detect(crops)
    assert np.isfinite(found).all() and (found != expected).any()
    np.testing.assert_allclose(found[..., 2], expected[..., 2], atol=0.1)
    sequence = [(people(24), np.tile([128.0, 256.0], (24, 1)))]
    (expected,), (found,) = exact.lift(sequence), rough.lift(sequence)
    assert (found != expected).any()
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


def test_the_models_that_ship_with_the_project_find_the_same_in_bf16():
    """Trained weights: where random ones answer with noise, these are sure."""
    exact, rough = (PoseEstimator(estimator_spec("demo"), precision=kind) for kind in ("32", "bf16"))
    figures = []
    for shift in range(4):
        figure = np.full((256, 128, 3), 90, np.uint8)
        figure[30:60, 50 + shift : 75] = (120, 150, 200)
        figure[60:150, 40:85] = (60, 60, 160)
        figure[150:245, 45:60] = figure[150:245, 66:81] = (140, 80, 40)
        figures.append(figure)
    expected, found = exact.detect(figures), rough.detect(figures)
    assert np.abs(expected - found)[..., :2].mean() < 0.5
    sizes = np.tile([128, 256], (4, 1))
    (expected,), (found,) = exact.lift([(expected, sizes)]), rough.lift([(expected, sizes)])
    assert np.linalg.norm(expected - found, axis=-1).mean() < 0.01 * 1.72


def test_the_digest_depends_on_configs_weights_options_and_decoding(tmp_path: Path, monkeypatch):
    spec = untrained(lifter=small_motionbert(tmp_path))
    digests = [
        PoseEstimator(spec).digest,
        PoseEstimator(spec, flip_test=True).digest,
        PoseEstimator(replace(spec, min_score=0.5)).digest,
        PoseEstimator(replace(spec, lifter_config=SIMPLE)).digest,
        PoseEstimator(replace(spec, pose2d_config=HEATMAP)).digest,
    ]
    assert len(set(digests)) == 5
    assert PoseEstimator(spec).digest == digests[0]
    monkeypatch.setattr(images, "DECODING", images.DECODING + 1)
    assert PoseEstimator(spec).digest not in digests


def test_no_crops_give_no_keypoints_and_wrong_crops_are_refused():
    estimator = PoseEstimator(untrained())
    assert estimator.detect([]).shape == (0, 17, 3)
    with pytest.raises(PoseCacheError, match="uint8"):
        estimator.detect([np.zeros((8, 8, 3), np.float32)])
    with pytest.raises(PoseCacheError, match=r"\(8, 8\)"):
        estimator.detect([np.zeros((8, 8), np.uint8)])


def test_wrong_specs_say_what_is_wrong(tmp_path: Path):
    with pytest.raises(PoseCacheError, match="human3d, demo"):
        estimator_spec("human4d")
    with pytest.raises(PoseCacheError, match=r"no pose config at .*gone\.py"):
        PoseEstimator(untrained(pose2d=tmp_path / "gone.py"))
    with pytest.raises(PoseCacheError, match="expected the test pipeline of a top-down model"):
        PoseEstimator(untrained(pose2d=SIMPLE))
    with pytest.raises(PoseCacheError, match='"16" needs a GPU'):
        PoseEstimator(untrained(), precision="16")
    if not torch.cuda.is_available():
        with pytest.raises(PoseCacheError, match="CUDA"):
            PoseEstimator(untrained(), device="cuda")


def test_human3d_is_what_mmposes_index_says():
    """Addresses and configs, against the model index in the mmpose package."""
    import yaml

    spec = human3d()
    for config, weights in ((spec.pose2d_config, spec.pose2d_weights), (spec.lifter_config, spec.lifter_weights)):
        assert config.is_file() and weights is not None
        listed = [
            model
            for index in config.parent.glob("*.yml")
            for model in yaml.safe_load(index.read_text())["Models"]
            if Path(model["Config"]).name == config.name
        ]
        assert [model["Weights"] for model in listed] == [weights.source]
        assert f"-{weights.sha256}_" in weights.source
