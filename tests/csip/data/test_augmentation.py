"""Clips are changed alike whoever changes them: the worker that decoded one, or the GPU a batch of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from csip.config import ClipSettings
from csip.data.clips import Changes, change_batch

HEIGHT, WIDTH, FRAMES = 24, 16, 3


@pytest.mark.parametrize(
    "settings",
    [
        ClipSettings(height=HEIGHT, width=WIDTH),
        ClipSettings(height=HEIGHT, width=WIDTH, flip=1, pad=0, erase=0),
        ClipSettings(height=HEIGHT, width=WIDTH, flip=0, pad=5, erase=0),
        ClipSettings(height=HEIGHT, width=WIDTH, flip=0, pad=0, erase=1),
        ClipSettings(height=HEIGHT, width=WIDTH, flip=1, pad=20, erase=1),
    ],
    ids=["all", "flip", "crop", "erase", "crops outside of the frame"],
)
def test_a_batch_is_changed_as_its_clips_are(settings: ClipSettings) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, FRAMES, 3, HEIGHT, WIDTH)).astype(np.uint8)
    changes = [Changes.draw(clip, settings, np.random.default_rng(seed)) for seed, clip in enumerate(images)]
    one_by_one = np.stack([change.images(clip, settings) for change, clip in zip(changes, images, strict=True)])
    batch = default_collate([change.tensors() for change in changes])
    at_once = change_batch(torch.from_numpy(images), batch, settings)
    assert at_once.dtype == torch.uint8
    np.testing.assert_array_equal(at_once.numpy(), one_by_one)
    assert not np.array_equal(at_once.numpy(), images)


def test_the_draws_are_those_of_a_clip_changed_in_place() -> None:
    """The order of the draws is part of every run's result."""
    settings = ClipSettings(height=HEIGHT, width=WIDTH, flip=0.5, pad=4, erase=0.7)
    for seed in range(30):
        rng, drawn = np.random.default_rng(seed), np.random.default_rng(seed)
        changes = Changes.draw(np.zeros((FRAMES, 3, HEIGHT, WIDTH), np.uint8), settings, drawn)
        assert changes.flip == (rng.random() < 0.5)
        assert changes.shift.tolist() == rng.integers(0, 9, size=2).tolist()
        for box in changes.boxes.tolist():
            if rng.random() >= 0.7:
                assert box == [0, 0, 0, 0]
                continue
            area, ratio = rng.uniform(0.02, 0.4) * HEIGHT * WIDTH, np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
            h, w = min(round(np.sqrt(area * ratio)), HEIGHT), min(round(np.sqrt(area / ratio)), WIDTH)
            assert box == [rng.integers(0, HEIGHT - h + 1), rng.integers(0, WIDTH - w + 1), h, w]
        assert rng.random() == drawn.random(), "as many draws"
