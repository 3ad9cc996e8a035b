"""The rules of tracklets, on tracks made by hand, and the tracker on boxes that move."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.registry import DefaultScope

from csip.video.motion import Changes
from csip.video.tracking import Detections, Thresholds, Track, Tracker
from csip.video.tracklets import (
    Timeline,
    TrackletRules,
    coverage,
    interpolate,
    make_tracklets,
    smooth,
    split_at_gaps,
    steady,
)

RULES = TrackletRules(min_frames=3, min_height=20, min_width=10, max_gap=0.55, smooth=0.0)


def timeline(count: int, step: float = 0.1) -> Timeline:
    return Timeline(np.arange(1, count + 1), np.arange(count) * step)


def track(
    frames: list[int], left: float = 0, top: float = 0, width: float = 40, height: float = 100, speed: float = 0
) -> Track:
    numbers = np.array(frames)
    x = left + speed * (numbers - numbers[0])
    boxes = np.stack([x, np.full(len(x), top), x + width, np.full(len(x), top + height)], axis=1)
    return Track(numbers, boxes.astype(float), np.full(len(x), 0.9))


def test_gaps_are_filled_or_split_by_time() -> None:
    whole = track([1, 2, 5, 6, 7, 20, 21, 22], speed=3)
    tracklets, dropped = make_tracklets([whole], timeline(30), RULES)
    assert [t.frames.tolist() for t in tracklets] == [[1, 2, 3, 4, 5, 6, 7], [20, 21, 22]]
    assert np.allclose(tracklets[0].boxes[:, 0], 3 * np.arange(7))
    assert not dropped
    slow = timeline(30, step=0.01)  # the same numbers in a tenth of the time
    assert [len(t.frames) for t in make_tracklets([whole], slow, RULES)[0]] == [22]
    assert [len(t.frames) for t in split_at_gaps(whole, timeline(30), 0.29)] == [2, 3, 3]


def test_interpolation_goes_by_time() -> None:
    times = Timeline(np.array([4, 5, 9]), np.array([0.0, 0.3, 0.4]))  # pictures may have gaps in their numbers, too
    filled = interpolate(
        Track(np.array([4, 9]), np.array([[0.0, 0, 10, 20], [40, 8, 50, 28]]), np.array([1, 0.5])), times
    )
    assert filled.frames.tolist() == [4, 5, 9]
    assert np.allclose(filled.boxes[1], [30, 6, 40, 26])
    assert filled.scores[1] == pytest.approx(0.625)


def test_short_small_and_doubtful_tracks_are_dropped() -> None:
    rules = TrackletRules(min_frames=5, min_height=50, min_width=10, max_gap=1, min_score=0.5, smooth=0)
    doubtful = track([1, 2, 3, 4, 5, 6], left=400, speed=20)
    tracks = [
        track([1, 2, 3, 4, 5], speed=20),
        track([1, 2, 3, 4], left=200, speed=20),
        track([1, 2, 3, 4, 5, 6], left=300, speed=20, height=49),
        Track(doubtful.frames, doubtful.boxes, np.full(6, 0.49)),
    ]
    tracklets, dropped = make_tracklets(tracks, timeline(10), rules)
    assert [t.boxes[0, 0] for t in tracklets] == [0]
    assert dropped == {"tracks: length": 1, "crops: size": 6, "tracks: score": 1}


def test_a_part_for_the_whole_is_interpolated_and_growth_is_not() -> None:
    walk = track(list(range(1, 31)), speed=2)
    walk.boxes[12:15, 3] = 45  # head and shoulders, for .3 s
    rules = TrackletRules(min_frames=3, min_height=20, max_gap=0.55, smooth=0)
    (tracklet,), _ = make_tracklets([walk], timeline(30), rules)
    assert np.allclose(tracklet.boxes[:, 3], 100)
    assert len(tracklet.frames) == 30
    coming = track(list(range(1, 31)))
    coming.boxes[:, 3] = 60 * 1.04 ** np.arange(30)  # comes near at 50 % a second
    assert np.array_equal(steady(coming, timeline(30), 1.5).boxes, coming.boxes)
    assert len(steady(walk, timeline(30), 1.5).frames) == 27


def test_what_differs_from_the_background() -> None:
    scene = np.random.default_rng(0).integers(60, 180, (90, 320, 3), np.uint8)
    changes = Changes()
    changes.look(scene)
    assert changes.share(np.array([0.0, 0, 320, 90])) == 0
    for _ in range(30):
        changes.look(scene)
    for left in range(0, 200, 10):
        image = scene.copy()
        image[20:80, left : left + 40] = (0, 0, 255)
        changes.look(image)
        assert changes.share(np.array([left, 20.0, left + 40, 80])) > 0.8
    assert changes.share(np.array([240.0, 20, 280, 80])) < 0.1
    assert changes.share(np.array([400.0, 20, 480, 80])) == 0


def test_who_is_hidden_behind_somebody_is_left_out() -> None:
    far = track([1, 2, 3, 4, 5, 6, 7, 8, 9], left=100)
    near = track([4, 5, 6], left=110, top=10)
    tracklets, dropped = make_tracklets([far, near], timeline(10), RULES)
    assert [t.frames.tolist() for t in tracklets] == [[1, 2, 3, 7, 8, 9], [4, 5, 6]]
    assert dropped == {"crops: overlap": 3}
    share = coverage([far, near])
    assert share[0].tolist() == pytest.approx([0] * 3 + [30 * 90 / 4000] * 3 + [0] * 3)
    assert not share[1].any()
    beside, _ = make_tracklets([far, track([4, 5, 6], left=125, top=10)], timeline(10), RULES)
    assert [len(t.frames) for t in beside] == [9, 3]


def test_who_was_hidden_for_long_comes_out_as_another_tracklet() -> None:
    far, near = track(list(range(1, 21)), left=100), track(list(range(5, 15)), left=110, top=10)
    tracklets, _ = make_tracklets([far, near], timeline(20), RULES)
    assert [t.frames[[0, -1]].tolist() for t in tracklets] == [[1, 4], [5, 14], [15, 20]]


def test_smoothing_takes_out_trembling_and_keeps_motion() -> None:
    straight = track(list(range(1, 41)), speed=5)
    assert np.allclose(smooth(straight, timeline(40), 0.7).boxes, straight.boxes)
    noise = np.random.default_rng(0).normal(0, 4, straight.boxes.shape)
    trembling = Track(straight.frames, straight.boxes + noise, straight.scores)
    left = smooth(trembling, timeline(40), 0.7).boxes - straight.boxes
    assert left.std() < 0.55 * noise.std()
    assert smooth(trembling, timeline(40), 0.0) is trembling
    short = track([1, 2], speed=5)
    assert np.array_equal(smooth(short, timeline(40), 0.7).boxes, short.boxes)


def follow(people: list[list[tuple[float, ...] | None]], patience: int = 10) -> list[Track]:
    tracker = Tracker(Thresholds(), patience)
    for number, boxes in enumerate(zip(*people, strict=True), start=1):
        seen = np.array([box for box in boxes if box is not None], float).reshape(-1, 4)
        tracker.look(number, Detections(seen, np.full(len(seen), 0.9)))
    return list(tracker.tracks().values())


def test_tracker_can_be_made_where_mmpose_was_used_before() -> None:
    way = [(10.0 + 5 * i, 50, 50 + 5 * i, 150) for i in range(5)]
    with DefaultScope.overwrite_default_scope("mmpose"):
        assert [len(t.frames) for t in follow([way])] == [5]


def test_tracker_keeps_two_people_apart_and_bridges_a_gap() -> None:
    right = [(10.0 + 5 * i, 50, 50 + 5 * i, 150) for i in range(40)]
    left = [(400.0 - 5 * i, 90, 440 - 5 * i, 200) for i in range(40)]
    hidden = [None if 15 <= i < 18 else box for i, box in enumerate(right)]
    tracks = [t for t in follow([hidden, left]) if len(t.frames) > 5]
    assert len(tracks) == 2
    by_side = sorted(tracks, key=lambda t: t.boxes[0, 0])
    assert np.allclose(by_side[0].boxes[:, 2], [box[2] for box in hidden if box])
    assert np.allclose(by_side[1].boxes[:, 0], [box[0] for box in left])


def test_tracker_ends_a_track_when_nobody_is_there_for_long() -> None:
    box = (10.0, 50, 50, 150)
    absent = [None if 10 <= i < 25 else box for i in range(40)]
    assert [len(t.frames) for t in follow([absent], patience=10) if len(t.frames) > 5] == [10, 15]
    assert [len(t.frames) for t in follow([absent], patience=20) if len(t.frames) > 5] == [25]
