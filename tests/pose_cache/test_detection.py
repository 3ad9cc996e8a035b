"""Decoding of keypoints on the batch, against MMPose's function for one array."""

import numpy as np
import torch

from pose_cache.compat import guard_torchvision
from pose_cache.detection import simcc_maxima


def test_simcc_maxima_are_mmposes_to_the_bit():
    guard_torchvision()
    from mmpose.codecs.utils import get_simcc_maximum

    rng = np.random.default_rng(0)
    # Few different values: most maxima are shared, and the first must win.
    x, y = (rng.integers(-9, 4, (40, 17, bins)).astype(np.float32) / 7 for bins in (48, 64))
    x[:5] -= 1
    bins, scores = get_simcc_maximum(x.copy(), y.copy())
    found = simcc_maxima(torch.from_numpy(x), torch.from_numpy(y), 2.0).numpy()
    np.testing.assert_array_equal(found[..., :2], bins / 2)
    np.testing.assert_array_equal(found[..., 2], scores)
    assert (found[..., :2] == -0.5).all(axis=-1).any() and (found[..., 2] > 0).any()
