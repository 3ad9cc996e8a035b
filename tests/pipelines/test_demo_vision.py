from pathlib import Path

import numpy as np
import pytest
import torch

from csip.models.vision import create_vision
from pipelines.maintain import demo_vision

pytestmark = pytest.mark.slow


def test_pretraining_writes_a_tower_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_vision, "PAIRS", 4)  # an eighth of the work
    seen: list[tuple[str, int, int]] = []
    figures = demo_vision.train_demo_vision(
        tmp_path / "tower.safetensors", people=2 * demo_vision.PAIRS, walks=2, steps=2, workers=1,
        report=lambda task, done, total, note: seen.append((task, done, total)),
    )  # fmt: skip
    assert np.isfinite(figures["loss"])
    assert ("rendering people", 4 * demo_vision.PAIRS, 4 * demo_vision.PAIRS) in seen
    one = create_vision("vision/demo.json", str(tmp_path / "tower.safetensors"), (128, 64)).eval()
    two = create_vision("vision/demo.json", None, (128, 64)).eval()
    with torch.inference_mode():
        images = torch.randn(2, 3, 128, 64)
        assert not torch.allclose(one(images).projected, two(images).projected)


def test_a_batch_pairs_walks_of_one_person_and_keeps_neighbours_together() -> None:
    people, walks = 2 * demo_vision.PAIRS + 6, 3
    crops = np.zeros((people, walks, demo_vision.FRAMES, 128, 64, 3), np.uint8)
    crops += np.arange(people, dtype=np.uint8)[:, None, None, None, None, None]
    plain = demo_vision.CLIPS.model_copy(update={"erase": 0.0, "pad": 0})
    demo_vision_clips, demo_vision.CLIPS = demo_vision.CLIPS, plain
    try:
        first, second, labels = demo_vision.draw_batch(crops, np.random.default_rng(0))
    finally:
        demo_vision.CLIPS = demo_vision_clips
    assert torch.equal(first, second), "both views are of the same person"
    shade = (first[:, 0, 0, 0] * plain.std[0] + plain.mean[0]) * 255
    assert torch.equal(shade.round().long(), labels)
    pairs = {int(label) // 2 for label in labels}
    assert len(pairs) == demo_vision.PAIRS and len(set(labels.tolist())) == 2 * demo_vision.PAIRS


def test_walks_of_a_person_pass_different_cameras() -> None:
    for person in (0, 7, 59, 133):
        cameras = [demo_vision._camera(person, walk, 6) for walk in range(6)]
        assert len(set(cameras)) == 6
        assert cameras == [demo_vision._camera(person ^ 1, walk, 6) for walk in range(6)], "the twin's are the same"
