"""The tree of joins that a proposal of identities is cut from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class MergeTree:
    """A binary tree over N tracklets; nodes 0 to N - 1 are the tracklets, and a parent's number is above its children's.

    Attributes
    ----------
    children
        (N - 1, 2) int64, of node N + row.
    heights
        (2 N - 1,) float64, the mean distance at which a node was joined; 0 of tracklets.
    parents
        (2 N - 1,) int64; -1 of the root.
    sizes
        (2 N - 1,) int64, tracklets below a node.
    leaves
        (N,) int64, the tracklets so that each node's are a slice.
    starts
        (2 N - 1,) int64, where that slice begins.
    roots
        (2 N - 1,) int64, the highest node above each node that is not above the threshold; itself for higher ones.
    """

    children: np.ndarray
    heights: np.ndarray
    parents: np.ndarray
    sizes: np.ndarray
    leaves: np.ndarray
    starts: np.ndarray
    roots: np.ndarray

    @staticmethod
    def of(steps: np.ndarray, threshold: float) -> MergeTree:
        """Make the tree of scipy's (N - 1, 4) steps, and cut it at a height."""
        count = len(steps) + 1
        children = steps[:, :2].astype(np.int64).reshape(-1, 2)
        heights = np.concatenate([np.zeros(count), steps[:, 2]])
        sizes = np.concatenate([np.ones(count, np.int64), steps[:, 3].astype(np.int64)])
        parents = np.full(2 * count - 1, -1, np.int64)
        parents[children[:, 0]] = parents[children[:, 1]] = np.arange(count, 2 * count - 1)
        starts = np.zeros(2 * count - 1, np.int64)
        roots = np.arange(2 * count - 1)
        for node in range(2 * count - 2, count - 1, -1):
            left, right = children[node - count]
            starts[left], starts[right] = starts[node], starts[node] + sizes[left]
            if heights[node] <= threshold:
                roots[left] = roots[right] = roots[node]
        leaves = np.empty(count, np.int64)
        leaves[starts[:count]] = np.arange(count)
        return MergeTree(children, heights, parents, sizes, leaves, starts, roots)

    @property
    def count(self) -> int:
        """Number of tracklets."""
        return len(self.leaves)

    def below(self, node: int) -> np.ndarray:
        """Return the tracklets below a node."""
        return self.leaves[self.starts[node] : self.starts[node] + self.sizes[node]]

    def halves(self, node: int) -> tuple[int, int]:
        """Return the two children of a node that is no tracklet."""
        left, right = self.children[node - self.count].tolist()
        return left, right

    def common(self, a: int, b: int) -> int:
        """Return the lowest node above two."""
        parents = self.parents
        while a != b:
            if a < b:
                a = int(parents[a])
            else:
                b = int(parents[b])
        return a
