"""Distances between queries and gallery entries, computed one block at a time."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_PAIRS = 4096  # pairs of features compared at once


class Distances(Protocol):
    """Distances between Q queries and G gallery entries; only their order and their ties matter.

    Attributes
    ----------
    device
        Where the blocks are.
    tolerance
        Distances closer than this are equal.
    """

    device: torch.device
    tolerance: float

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return (n,) float64, the distance of each query of `rows` to the entry of `columns` beside it."""
        ...

    def blocks(self, rows: slice, columns: Iterator[slice]) -> Iterator[tuple[slice, Tensor]]:
        """Yield, for each slice of the gallery, the slice and the distances of these queries to it, floats."""
        ...


class GivenDistances:
    """A matrix of distances, (Q, G)."""

    device = torch.device("cpu")
    tolerance = 0.0

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.matrix[rows, columns].astype(np.float64)

    def blocks(self, rows: slice, columns: Iterator[slice]) -> Iterator[tuple[slice, Tensor]]:
        for part in columns:
            yield part, torch.from_numpy(np.ascontiguousarray(self.matrix[rows, part]))


class FeatureDistances:
    """Squared Euclidean distances in float64, in which |q|^2 + |g|^2 - 2 <q, g> keeps small ones of large norm.

    Parameters
    ----------
    queries, gallery
        (Q, D) and (G, D).
    """

    def __init__(self, queries: np.ndarray, gallery: np.ndarray, device: torch.device) -> None:
        self.queries, self.gallery, self.device = queries, gallery, device
        largest = max(
            (float(np.square(x[part], dtype=np.float64).sum(axis=1).max())
             for x in (queries, gallery) for part in parts(len(x), _PAIRS)),
            default=0.0,
        )  # fmt: skip
        self.tolerance = 1e-12 * largest

    def pairs(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        result = np.empty(len(rows))
        for part in parts(len(rows), _PAIRS):
            difference = self.queries[rows[part]].astype(np.float64) - self.gallery[columns[part]]
            result[part] = np.square(difference).sum(axis=1)
        return result

    def blocks(self, rows: slice, columns: Iterator[slice]) -> Iterator[tuple[slice, Tensor]]:
        queries = self._tensor(self.queries[rows])
        own = queries.square().sum(dim=1)[:, None]
        for part in columns:
            gallery = self._tensor(self.gallery[part])
            yield part, torch.addmm(own + gallery.square().sum(dim=1), queries, gallery.T, alpha=-2)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self.device).double()


def parts(length: int, size: int) -> Iterator[slice]:
    """Cut ``range(length)`` into slices of `size`; the last may be shorter."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
