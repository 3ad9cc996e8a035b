from pathlib import Path

import numpy as np
import pytest
import torch

from csip.models.vision import create_vision
from pipelines.maintain import pose_vision
from pose_cache.joints import H36M17

pytestmark = pytest.mark.slow
START = Path(__file__).parents[2] / "configs/vision/poses.safetensors"


def test_training_writes_an_encoder_that_loads(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    figures = pose_vision.train_pose_vision(
        START, tmp_path / "poses.safetensors", people=4, steps=2, workers=1,
        report=lambda task, done, total, note: seen.append((task, done, total)),
    )  # fmt: skip
    assert np.isfinite(figures["loss"])
    assert seen == [("rendering people", n, 8) for n in range(1, 9)] + [
        ("pretraining the image encoder", n, 2) for n in (1, 2)
    ]
    names = (str(tmp_path / "poses.safetensors"), str(START))
    one, two = (create_vision(pose_vision.MODEL, name, (128, 64)).eval() for name in names)
    with torch.inference_mode():
        images = torch.randn(2, 3, 128, 64)
        assert not torch.equal(one(images).tokens, two(images).tokens)


def test_what_is_drawn_shows_the_joints_where_they_are_said_to_be() -> None:
    """A white pixel is painted at each joint; shifted and mirrored it is still there."""
    rng = np.random.default_rng(0)
    shape = (6, pose_vision.WALKS, pose_vision.FRAMES)
    places = np.stack([rng.integers(10, 54, (*shape, 17)), rng.integers(10, 118, (*shape, 17))], axis=-1)
    images = np.zeros((*shape, 128, 64, 3), np.uint8)
    for walk in np.ndindex(shape):
        images[walk][places[walk][:, 1], places[walk][:, 0]] = 255
    joints = torch.from_numpy(rng.normal(size=(*shape, 17, 3))).float()
    crops = pose_vision.Crops(images, joints, torch.from_numpy(places).float())
    pixels, drawn, where, labels = pose_vision.draw_batch(crops, np.random.default_rng(1))
    assert len(pixels) == 2 * len(labels) == 6
    mirrored = 0
    for image, joint, place in zip(pixels, drawn, where, strict=True):
        x, y = place.round().long().T
        inside = (x >= 0) & (x < 64) & (y >= 0) & (y < 128)
        background = image.mean(dim=0).median()
        assert inside.float().mean() > 0.9 and (image.mean(dim=0)[y[inside], x[inside]] > background + 1).all()
        own = (joints - joint).abs().flatten(0, 2).amax(dim=(1, 2)).min() < 1e-6
        order = torch.from_numpy(H36M17.mirror_order)
        other = (joints[..., order, :] * torch.tensor([-1.0, 1, 1]) - joint).abs().flatten(0, 2).amax(dim=(1, 2)).min()
        assert own != (other < 1e-6)
        mirrored += int(not own)
    assert 0 < mirrored < 6


def test_a_distribution_is_right_when_it_is_the_target() -> None:
    place = torch.tensor([[3.0, 40.25]])
    bins = (torch.arange(128) + 0.5) / 2 - 0.5
    right = -(place[..., None] - bins).square() / (2 * pose_vision.SIGMA**2)
    least = pose_vision.distribution_loss(right, place)
    assert (pose_vision.distribution_loss(right.roll(2, dims=-1), place) > least).all()
    assert bins[right.argmax(dim=-1)][0].tolist() == pytest.approx([3.0, 40.25], abs=0.25)
