"""Descriptors of nobody, with every kind of row."""

from __future__ import annotations

import numpy as np

from csip.data.dataset import JUNK
from csip.retrieval.descriptors import Descriptors


def random_descriptors(count: int = 80, people: int = 9, seed: int = 0) -> Descriptors:
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[1] = features[0]
    return Descriptors(
        features, tuple(f"t{i}" for i in range(count)), random.integers(JUNK, people, count), random.integers(1, 4, count),
        np.arange(count) % 3 == 0, np.arange(count) % 5 != 0, "random", "0" * 16,
    )  # fmt: skip
