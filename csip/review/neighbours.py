"""The nearest tracklets of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 24  # nearest tracklets of each that are known
_BLOCK = 2048  # tracklets compared at once


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest tracklets of each, (N, K): their rows, and their distances, rising."""

    rows: np.ndarray
    distances: np.ndarray


def nearest(features: np.ndarray, count: int = NEIGHBOURS) -> Neighbours:
    """Find the nearest tracklets of each by comparing all; `features` are (N, D) float32 of unit length."""
    size = len(features)
    count = min(count, size - 1)
    rows, distances = np.empty((size, count), np.int64), np.empty((size, count), np.float32)
    for start in range(0, size, _BLOCK):
        part = 1 - features[start : start + _BLOCK] @ features.T
        here = np.arange(len(part))
        part[here, start + here] = np.inf
        found = np.argpartition(part, count - 1, axis=1)[:, :count] if count else np.empty((len(part), 0), np.int64)
        values = np.take_along_axis(part, found, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        rows[start : start + _BLOCK] = np.take_along_axis(found, order, axis=1)
        distances[start : start + _BLOCK] = np.take_along_axis(values, order, axis=1)
    return Neighbours(rows, distances)
