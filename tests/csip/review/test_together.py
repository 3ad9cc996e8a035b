"""Overlaps that an error of the tracker explains."""

from __future__ import annotations

import numpy as np
import pytest

from csip.data.folder import Sighting
from csip.review.together import brief


@pytest.mark.parametrize(
    ("first", "second", "step", "short"),
    [
        ((1, 20), (20, 24), 1, True),  # 1 of 20 frames
        ((1, 20), (17, 24), 1, True),  # 4
        ((1, 20), (16, 24), 1, False),
        ((0.0, 1.9), (1.6, 2.3), 0.1, True),  # the same in seconds
        ((0.0, 1.9), (1.5, 2.3), 0.1, False),
        ((1, 100), (50, 52), 1, True),  # all of the shorter one
        ((1, 20), (2, 22), 1, False),
        ((5, 5), (5, 5), 0, False),
    ],
)
def test_a_short_overlap(first: tuple[float, float], second: tuple[float, float], step: float, short: bool) -> None:
    names, source = ("a", "b"), ("c", "v")
    seen = {name: Sighting("c", source, *span, step) for name, span in zip(names, (first, second), strict=True)}
    for pair in ([0, 1], [1, 0]):
        assert brief(np.array([pair]), names, seen).tolist() == [short]


@pytest.mark.parametrize("end", [20, 26])
def test_an_overlap_of_a_second(end: float) -> None:
    seen = {"a": Sighting("c", ("c", "v"), 1, 20, 1, 8.0), "b": Sighting("c", ("c", "v"), 13, end, 1)}
    pair = np.array([[0, 1]])
    assert brief(pair, ("a", "b"), seen).tolist() == [True], "8 frames at 8 frames per second"
    seen["b"] = Sighting("c", ("c", "v"), 12, end, 1)
    assert brief(pair, ("a", "b"), seen).tolist() == [False]


def test_nobody_was_in_sight_together() -> None:
    assert brief(np.empty((0, 2), np.int64), ("a",), {}).shape == (0,)
