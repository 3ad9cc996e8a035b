"""The controls of the prototypes: images alone, and skeletons of another identity."""

import numpy as np
import torch

from csip.config import Settings
from csip.training.prototypes import skeleton_prototypes

COUNT = 6


def made(prototypes: str, seed: int = 0, known: np.ndarray | None = None) -> torch.Tensor:
    settings = Settings.model_validate(
        {"dataset": {"name": "x"}, "stage2": {"prototypes": prototypes}, "runtime": {"seed": seed}}
    )
    features = np.eye(COUNT, dtype=np.float32)
    everyone = np.ones(COUNT, dtype=bool) if known is None else known
    return skeleton_prototypes(features, everyone, -torch.eye(COUNT), np.arange(COUNT), settings)


def test_prototypes_of_images_alone_know_no_skeleton() -> None:
    assert torch.equal(made("images"), -torch.eye(COUNT))


def test_shuffled_prototypes_are_all_there_and_nobody_has_their_own() -> None:
    for seed in range(20):
        shuffled = made("shuffled", seed)
        assert (shuffled.diagonal() == 0).all() and torch.equal(shuffled.sum(dim=0), torch.ones(COUNT))
    assert torch.equal(made("shuffled", 3), made("shuffled", 3)) and torch.equal(made("fused"), torch.eye(COUNT))


def test_who_has_no_skeleton_has_the_image_prototype() -> None:
    known = np.arange(COUNT) != 2
    assert torch.equal(made("fused", known=known)[2], -torch.eye(COUNT)[2])
