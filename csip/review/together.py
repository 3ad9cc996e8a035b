"""Tracklets that one camera saw at the same time, and which of them may be one person all the same.

A tracker that goes over to somebody else for some frames, or that finds one person twice, leaves two tracklets of one person that
overlap. A tracklet is one person's if most of its frames are, so an overlap may be such an error where it is but a small share
of one of the two, or lasts no longer than two people take to pass each other. It tells little then, and a person is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from csip.data.folder import Sighting

BRIEF = 0.2  # share of the longer tracklet up to which an overlap is short
PASSING = 1.0  # seconds up to which it is


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
    spans = np.full((len(names), 4), np.nan)
    for row, name in enumerate(names):
        seen = sightings.get(name)
        if seen is not None and seen.start is not None and seen.end is not None:
            spans[row] = seen.start, seen.end, seen.step, seen.second
    start, end, step, second = spans[pairs].transpose(2, 0, 1)
    common = end.min(axis=1) - start.max(axis=1) + step.min(axis=1)
    longer = (end - start + step).max(axis=1)
    passing = PASSING * np.fmin(second[:, 0], second[:, 1])  # nan, thus never, where neither is known
    return np.asarray(((common <= BRIEF * longer) | (common <= passing)) & (longer > 0))
