"""The demo's pose models: trained by their command, and good enough as shipped."""

from pathlib import Path

import numpy as np
import pytest

from csip.synthetic.walks import render_walk
from pipelines.maintain.demo_pose import (
    FOLDER,
    HEIGHT,
    Recipe,
    _Walk,
    _WindowBatches,
    _Windows,
    demo_spec,
    measure_demo_pose,
    train_demo_pose,
)
from pose_cache.compat import guard_torchvision
from pose_cache.estimator import PoseEstimator

pytestmark = pytest.mark.slow


def test_training_makes_weights_that_load(tmp_path: Path) -> None:
    recipe = Recipe(detector_walks=3, detector_frames=4, long_walks=1, short_walks=2, iterations=2)
    tasks = []
    figures = train_demo_pose(tmp_path, recipe=recipe, report=lambda task, done, total, note: tasks.append(task))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figures.json",
        "lifter.safetensors",
        "pose2d.safetensors",
    ]
    assert 0 <= figures.pck_torso <= figures.pck_box <= 1
    assert {"training the 2D estimator", "training the lifter"} <= set(tasks)
    trained, shipped = PoseEstimator(demo_spec(tmp_path)), PoseEstimator(demo_spec())
    assert trained.digest != shipped.digest


def test_shipped_weights_find_rendered_people() -> None:
    assert sum((FOLDER / f"{name}.safetensors").stat().st_size for name in ("pose2d", "lifter")) < 6e6
    figures = measure_demo_pose(demo_spec(), walks=8, frames=12)
    assert figures.pck_box > 0.97
    assert figures.pck_torso > 0.85
    assert figures.pa_mpjpe_true_2d < figures.pa_mpjpe < 60


def test_windows_show_the_lifter_where_the_joints_are() -> None:
    """Depth aside, a window's target is its input: both count the same picture from the same corner."""
    guard_torchvision()
    from mmengine.config import Config
    from mmpose.apis.inference import dataset_meta_from_config

    config = Config.fromfile(FOLDER / "lifter.py")
    walk = render_walk(1, 1, 1, frames=24, height=HEIGHT, width=HEIGHT // 2, paint=False)
    windows = _Windows([_Walk(walk, walk.coco)], config, dataset_meta_from_config(config))
    limbs = [1, 2, 3, 4, 5, 6, 8, 11, 12, 13, 14, 15, 16]  # what COCO and Human3.6M both have
    for seed in range(6):
        item = windows[0, 10, seed]
        seen = item["inputs"].numpy().reshape(10, 17, 3)[..., :2]
        target = item["data_samples"].gt_instance_labels.lifting_target_label.numpy()
        assert target.shape == (10, 17, 3) and np.allclose(target[:, 0], 0)
        np.testing.assert_allclose(seen[:, limbs] - seen[:, :1], target[:, limbs, :2], atol=0.05)
        assert 0.5 < np.ptp(target[..., 1]) < 1.1


def test_batches_hold_windows_of_one_length() -> None:
    batches = iter(_WindowBatches([24, 81, 81], 81, 256, np.random.default_rng(0)))
    lengths = set()
    for _ in range(200):
        batch = next(batches)
        (length,) = {length for _, length, _ in batch}
        assert len(batch) == max(4, 256 // length)
        assert length <= 24 or all(walk > 0 for walk, _, _ in batch)
        lengths.add(length)
    assert min(lengths) == 2 and max(lengths) == 81


@pytest.mark.parametrize("frames", [1, 5, 100])
def test_tracklets_of_any_length_are_lifted(frames: int) -> None:
    walk = render_walk(1, 1, 1, frames=frames, height=HEIGHT, width=HEIGHT // 2, paint=False)
    sizes = np.tile([HEIGHT // 2, HEIGHT], (frames, 1))
    (joints,) = PoseEstimator(demo_spec()).lift([(walk.coco, sizes)])
    assert joints.shape == (frames, 17, 3)
    upright = joints[:, 3, 1] - joints[:, 10, 1]
    assert np.all((upright > 1.0) & (upright < 2.2))
