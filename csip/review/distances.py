"""Mean distances between groups of tracklets, each group's computed once."""

from __future__ import annotations

import numpy as np

_START = 256


class GroupDistances:
    """Mean distances, 1 - cosine, between groups; a group is known by its slot.

    The mean over all pairs of two groups is one minus the product of their mean descriptors, so that a group costs a vector
    and a row, however many tracklets are in it.

    Parameters
    ----------
    features
        (N, D), unit length.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = np.ascontiguousarray(features, dtype=np.float32)
        self._slots: dict[bytes, int] = {}
        self._means = np.empty((_START, self.features.shape[1]), np.float32)
        self._matrix = np.empty((_START, _START), np.float32)

    def slots(self, groups: list[np.ndarray]) -> np.ndarray:
        """Return the slots of groups of tracklets, each in rising order."""
        keys = [group.tobytes() for group in groups]
        new = [place for place, key in enumerate(keys) if key not in self._slots]
        if new:
            self._add([groups[place] for place in new], [keys[place] for place in new])
        return np.array([self._slots[key] for key in keys], dtype=np.int64)

    def between(self, slots: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return (slots, others) float32 distances."""
        return self._matrix[np.ix_(slots, others)]

    def means(self, slots: np.ndarray) -> np.ndarray:
        """Return the mean descriptors of groups, (slots, D)."""
        return self._means[slots]

    def keep(self, slots: np.ndarray) -> bool:
        """Forget all other groups once they are the most; return whether slots have changed by that."""
        if len(self._slots) < max(2 * len(slots), _START):
            return False
        kept = np.unique(slots)
        place = dict(zip(kept.tolist(), range(len(kept)), strict=True))
        self._slots = {key: place[slot] for key, slot in self._slots.items() if slot in place}
        size = max(_START, 2 * len(kept))
        means, matrix = np.empty((size, self._means.shape[1]), np.float32), np.empty((size, size), np.float32)
        means[: len(kept)], matrix[: len(kept), : len(kept)] = self._means[kept], self._matrix[np.ix_(kept, kept)]
        self._means, self._matrix = means, matrix
        return True

    def _add(self, groups: list[np.ndarray], keys: list[bytes]) -> None:
        start = len(self._slots)
        fresh = dict.fromkeys(keys)
        end = start + len(fresh)
        if end > len(self._means):
            self._grow(max(end, 2 * len(self._means)))
        by_key = dict(zip(keys, groups, strict=True))
        for slot, key in enumerate(fresh, start):
            self._slots[key] = slot
            self._means[slot] = self.features[by_key[key]].mean(axis=0)
        rows = 1 - self._means[start:end] @ self._means[:end].T
        self._matrix[start:end, :end] = rows
        self._matrix[:end, start:end] = rows.T

    def _grow(self, size: int) -> None:
        count = len(self._slots)
        means, matrix = np.empty((size, self._means.shape[1]), np.float32), np.empty((size, size), np.float32)
        means[:count], matrix[:count, :count] = self._means[:count], self._matrix[:count, :count]
        self._means, self._matrix = means, matrix
