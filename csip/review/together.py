"""Tracklets that one camera saw at the same time, and which of them may be one person all the same.

A tracker that goes over to somebody else for some frames, or that finds one person twice, leaves two tracklets of one person that
overlap. A tracklet is one person's if most of its frames are, so an overlap may be such an error where it is but a small share
of one of the two. It tells little then, and a person is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from csip.data.folder import Sighting

BRIEF = 0.2  # share of the longer tracklet up to which an overlap is short


def brief(pairs: np.ndarray, names: Sequence[str], sightings: Mapping[str, Sighting]) -> np.ndarray:
    """Tell which overlaps are short.

    Parameters
    ----------
    pairs
        (pairs, 2) rows in `names`, see `csip.retrieval.clustering.in_sight_together`.

    Returns
    -------
    ndarray, shape (pairs,), bool
    """
    spans = np.full((len(names), 3), np.nan)
    for row, name in enumerate(names):
        seen = sightings.get(name)
        if seen is not None and seen.start is not None and seen.end is not None:
            spans[row] = seen.start, seen.end, seen.step
    start, end, step = spans[pairs].transpose(2, 0, 1)
    common = end.min(axis=1) - start.max(axis=1) + step.min(axis=1)
    longer = (end - start + step).max(axis=1)
    return np.asarray((common <= BRIEF * longer) & (longer > 0))
