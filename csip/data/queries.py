"""Checks of a data set's list of queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csip.data.dataset import Tracklet
from csip.errors import CsipError


def check_queries(where: Path, test: Sequence[Tracklet], rows: np.ndarray) -> None:
    """Refuse a list of queries that counts from 0, or that asks for nobody.

    A list that counts from 0 points at the neighbours of its tracklets: it is recognised where it then asks for nobody or twice
    for a person at one camera, and does neither when it is read from 0.

    Parameters
    ----------
    where
        The list, for messages.
    test
        All test tracklets, those of nobody included.
    rows
        (Q,) places in `test` from 1, all of them within it.

    Raises
    ------
    CsipError
        A query is junk or a distractor, or the list counts from 0.
    """
    nobody = [int(row) for row in rows if test[row - 1].pid <= 0]
    if (nobody or _repeated(test, rows - 1)) and rows.max() < len(test):
        from_zero = [test[row] for row in rows]
        if all(t.pid > 0 for t in from_zero) and not _repeated(test, rows):
            raise CsipError(
                f"{where}: its rows seem to count from 0, expected from 1: read from 1, "
                f"{len(nobody)} queries are of nobody and {_repeated(test, rows - 1)} ask again for a person at one camera; read "
                "from 0, none. Add 1 to each"
            )
    if nobody:
        raise CsipError(
            f"{where}: {len(nobody)} of {len(rows)} queries are of nobody (junk or distractors), e.g. row {nobody[0]}, "
            f"{test[nobody[0] - 1].name}; a query needs an identity that can be found. Take them out of the list"
        )


def _repeated(test: Sequence[Tracklet], places: np.ndarray) -> int:
    """Count the queries whose person was asked for at the same camera before."""
    return len(places) - len({(test[place].pid, test[place].camera) for place in places})
