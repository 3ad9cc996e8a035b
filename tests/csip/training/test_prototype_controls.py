"""The controls of what skeletons are worth: prototypes of images alone, and skeletons of another identity."""

import numpy as np
import torch

from csip.config import Settings
from csip.data.skeletons import Skeletons
from csip.training.prototypes import skeleton_prototypes
from pose_cache.joints import H36M17

COUNT = 6


def made(prototypes: str, known: np.ndarray | None = None) -> torch.Tensor:
    settings = Settings.model_validate({"dataset": {"name": "x"}, "stage2": {"prototypes": prototypes}})
    features = np.eye(COUNT, dtype=np.float32)
    everyone = np.ones(COUNT, dtype=bool) if known is None else known
    return skeleton_prototypes(features, everyone, -torch.eye(COUNT), np.arange(COUNT), settings)


def test_prototypes_of_images_alone_know_no_skeleton() -> None:
    assert torch.equal(made("images"), -torch.eye(COUNT)) and torch.equal(made("fused"), torch.eye(COUNT))


def test_with_skeletons_of_others_everybody_has_one_and_nobody_their_own() -> None:
    labels = np.repeat(np.arange(COUNT), 2)
    lengths = 3 + np.arange(2 * COUNT)
    joints = [
        np.full((n, 2, 3), 100 * label + i, dtype=np.float32)
        for i, (n, label) in enumerate(zip(lengths, labels, strict=True))
    ]
    own = Skeletons(H36M17, joints, [np.arange(n) > 0 for n in lengths])
    for seed in range(20):
        others = own.of_others(labels, seed)
        shown = np.array([one[0, 0, 0] // 100 for one in others.joints]).reshape(COUNT, 2)
        assert (shown[:, 0] == shown[:, 1]).all() and sorted(shown[:, 0]) == list(range(COUNT))
        assert (shown[:, 0] != np.arange(COUNT)).all()
        for mine, theirs, valid in zip(own.joints, others.joints, others.valid, strict=True):
            source = int(theirs[0, 0, 0]) % 100
            assert theirs.shape == mine.shape and (theirs == theirs[0]).all()
            np.testing.assert_array_equal(valid, np.resize(own.valid[source], len(mine)))
    again = own.of_others(labels, 3)
    assert all(np.array_equal(a, b) for a, b in zip(again.joints, own.of_others(labels, 3).joints, strict=True))


def test_who_has_no_skeleton_has_the_image_prototype() -> None:
    known = np.arange(COUNT) != 2
    assert torch.equal(made("fused", known=known)[2], -torch.eye(COUNT)[2])
