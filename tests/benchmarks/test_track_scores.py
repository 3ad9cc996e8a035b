"""The scores of tracks on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("motmetrics")
pytest.importorskip("trackeval")

from track_scores import GreedyTracker, joined, score, track_rows, without_hidden

from csip.video.tracking import Detections


def person(frames: range, number: int, left: float = 0.0) -> np.ndarray:
    return np.array([[frame, number, left, 0, left + 10, 20] for frame in frames], dtype=np.float64)


def test_perfect_tracks_score_one() -> None:
    truth = np.concatenate([person(range(1, 11), 1), person(range(1, 11), 2, 50)])
    found = np.concatenate([person(range(1, 11), 7, 50), person(range(1, 11), 9)])
    assert score(truth, found) == {"idf1": 1, "switches": 0, "hota": 1, "deta": 1, "assa": 1}


def test_a_track_that_breaks_in_two() -> None:
    """Six frames of one id and four of another: IDF1 counts the longer piece, HOTA the geometric mean of both factors."""
    truth = person(range(1, 11), 1)
    found = np.concatenate([person(range(1, 7), 1), person(range(7, 11), 2)])
    figures = score(truth, found)
    assert figures["switches"] == 1
    assert figures["idf1"] == pytest.approx(2 * 6 / (2 * 6 + 4 + 4))
    # Each of the ten detections has its piece's share of the person's ten frames.
    assert figures["assa"] == pytest.approx((6 * 0.6 + 4 * 0.4) / 10)
    assert figures["deta"] == pytest.approx(1)
    assert figures["hota"] == pytest.approx(np.sqrt(0.52))


def test_two_who_swap_ids_at_a_crossing() -> None:
    truth = np.concatenate([person(range(1, 11), 1), person(range(1, 11), 2, 50)])
    found = np.concatenate([
        person(range(1, 6), 1), person(range(6, 11), 2), person(range(1, 6), 2, 50), person(range(6, 11), 1, 50),
    ])  # fmt: skip
    figures = score(truth, found)
    assert figures["switches"] == 2
    assert figures["idf1"] == pytest.approx(0.5)
    # 5 frames shared, of 10 + 10 - 5.
    assert figures["assa"] == pytest.approx(1 / 3)
    assert figures["hota"] == pytest.approx(np.sqrt(1 / 3))


def test_misses_and_false_boxes() -> None:
    truth = person(range(1, 11), 1)
    found = np.concatenate([person(range(1, 9), 1), person(range(1, 5), 2, 200)])
    figures = score(truth, found)
    assert figures["idf1"] == pytest.approx(2 * 8 / (10 + 12))
    assert figures["deta"] == pytest.approx(8 / (8 + 2 + 4))
    assert figures["assa"] == pytest.approx(0.8)


def test_boxes_that_overlap_by_half_count_up_to_there() -> None:
    """An overlap of 2 / 3 is a hit at thresholds 0.05 to 0.65, 13 of 19."""
    truth = person(range(1, 11), 1)
    figures = score(truth, truth + np.array([0, 0, 2, 0, 2, 0]))
    assert figures["idf1"] == 1
    assert figures["hota"] == pytest.approx(13 / 19)


def test_who_is_hidden_counts_neither_way() -> None:
    truth = np.concatenate([person(range(1, 11), 1), person(range(1, 11), 2, 50)])
    visibility = np.repeat([1.0, 0.1], 10)
    for found in (person(range(1, 11), 5), np.concatenate([person(range(1, 11), 5), person(range(1, 11), 6, 51)])):
        assert score(*without_hidden(truth, visibility, found))["hota"] == 1
    stray = np.concatenate([person(range(1, 11), 5), person(range(1, 11), 6, 90)])
    assert score(*without_hidden(truth, visibility, stray))["deta"] == pytest.approx(0.5)


def test_videos_do_not_share_ids() -> None:
    truth = joined([person(range(1, 11), 1), person(range(1, 11), 1)])
    assert score(truth, truth)["hota"] == 1
    same = truth.copy()
    same[:, 1] = 1
    assert score(truth, same)["assa"] == pytest.approx(0.5)


def test_greedy_tracker() -> None:
    """It follows who moves little, ends tracks that are out of sight too long, and takes the best overlap first."""
    tracker = GreedyTracker(least=0.3, patience=2)
    for frame in range(1, 6):
        boxes = np.array([[2.0 * frame, 0, 2.0 * frame + 10, 20], [100.0, 0, 110, 20]])
        tracker.look(frame, Detections(boxes[::-1] if frame % 2 else boxes, np.ones(2)))
    for frame in range(6, 9):
        tracker.look(frame, Detections(np.zeros((0, 4)), np.zeros(0)))
    tracker.look(9, Detections(np.array([[100.0, 0, 110, 20]]), np.ones(1)))
    rows = track_rows(tracker.tracks())
    assert [len(track.frames) for track in tracker.tracks()] == [5, 5, 1]
    assert len(np.unique(rows[rows[:, 2] == 100, 1])) == 2
