"""Valid matches of a query in the gallery: the count that checks and metrics share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from csip.data.dataset import JUNK
from csip.errors import CsipError


class Matching:
    """Identities and cameras of both sides, and which gallery entries an identity has.

    Parameters
    ----------
    query_ids, query_cameras, gallery_ids, gallery_cameras
        (Q,) and (G,) integers. An entry of identity `JUNK` matches nothing.
    queries, gallery
        How many there have to be, where that is known otherwise.

    Raises
    ------
    CsipError
        Lengths differ, or there are no queries.
    """

    def __init__(
        self,
        query_ids: ArrayLike,
        query_cameras: ArrayLike,
        gallery_ids: ArrayLike,
        gallery_cameras: ArrayLike,
        queries: int | None = None,
        gallery: int | None = None,
    ) -> None:
        self.q_ids, self.q_cameras = _as_labels("query", queries, query_ids, query_cameras)
        self.g_ids, self.g_cameras = _as_labels("gallery", gallery, gallery_ids, gallery_cameras)
        if not len(self.q_ids):
            raise CsipError("there are no queries: the data set's query part is empty, or everything was filtered out")
        self._order = np.argsort(self.g_ids, kind="stable")
        self._sorted = self.g_ids[self._order]

    def gallery_of(self, pid: int) -> np.ndarray:
        """Return the gallery entries of an identity, in ascending order."""
        first, end = np.searchsorted(self._sorted, [pid, pid + 1])
        return self._order[first:end]

    def matches(self, rows: slice, camera_filter: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return row (from 0 at the slice's start) and gallery entry of each match of these queries."""
        found = [self.gallery_of(pid) if pid != JUNK else np.empty(0, np.int64) for pid in self.q_ids[rows]]
        row = np.repeat(np.arange(len(found)), [len(entries) for entries in found])
        entry = np.concatenate(found)
        if camera_filter:
            kept = self.g_cameras[entry] != self.q_cameras[rows][row]
            row, entry = row[kept], entry[kept]
        return row, entry

    def valid(self, camera_filter: bool = True) -> np.ndarray:
        """Return (Q,) bool: which queries have a match, and so count in the scores."""
        found = np.zeros(len(self.q_ids), bool)
        found[self.matches(slice(None), camera_filter)[0]] = True
        return found


def _as_labels(side: str, length: int | None, ids: ArrayLike, cameras: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    id_array, camera_array = np.asarray(ids), np.asarray(cameras)
    length = len(id_array) if length is None else length
    for what, array in (("ids", id_array), ("cameras", camera_array)):
        if array.shape != (length,):
            raise CsipError(f"{side} {what}: expected {length} of them, one an entry, got shape {array.shape}")
    return id_array.astype(np.int64), camera_array.astype(np.int64)
