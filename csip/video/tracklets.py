"""Rules that turn tracks into tracklets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.signal import savgol_filter

from csip.video.tracking import Track

_AROUND: Final = 1.0  # seconds


@dataclass(frozen=True)
class TrackletRules:
    """What a track has to be like.

    Attributes
    ----------
    min_frames
        Crops that a tracklet needs.
    min_height, min_width
        Pixels that a box needs; smaller ones are left out.
    max_gap
        Seconds that a person may be out of sight; where longer, what follows is another tracklet.
    max_overlap
        Share of a box that the boxes of people nearer to the camera may cover; such crops are left out beyond it.
    min_change
        Share of the box that has to differ from the background of the video at least once. What never does is furniture.
    min_score
        Mean score that a track needs.
    max_jump
        How many times as high, or as low, as around it a box may be; others are a part of the person, and interpolated.
    smooth
        Seconds over which boxes are smoothed by straight lines; 0 leaves them as they are.
    """

    min_frames: int = 10
    min_height: int = 48
    min_width: int = 16
    max_gap: float = 1.0
    max_overlap: float = 0.5
    min_change: float = 0.2
    min_score: float = 0.0
    max_jump: float = 1.5
    smooth: float = 0.5


@dataclass(frozen=True)
class Timeline:
    """The frames of a video that could be read: numbers, rising, and times in seconds, both (n,)."""

    numbers: np.ndarray
    times: np.ndarray

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the times of frames by their numbers."""
        return self.times[np.searchsorted(self.numbers, numbers)]


def make_tracklets(
    tracks: Sequence[Track], timeline: Timeline, rules: TrackletRules
) -> tuple[list[Track], Counter[str]]:
    """Apply the rules to the tracks of one video.

    Between two frames in which a person was found, the box is interpolated, by time.

    Parameters
    ----------
    tracks : sequence of Track
        As the tracker found them, in some of the video's frames.
    timeline : Timeline
        All of its frames.
    rules : TrackletRules
        What to keep.

    Returns
    -------
    tracklets : list of Track
        In the order of their first frames.
    dropped : Counter
        How many pieces of tracks, and how many crops, were left out by which rule.
    """
    dropped: Counter[str] = Counter()
    pieces = []
    for track in tracks:
        if track.change < rules.min_change:
            dropped["tracks: nothing moves"] += 1
            continue
        for piece in split_at_gaps(track, timeline, rules.max_gap):
            if piece.scores.mean() < rules.min_score:
                dropped["tracks: score"] += 1
            else:
                whole = interpolate(steady(piece, timeline, rules.max_jump), timeline)
                pieces.append(smooth(whole, timeline, rules.smooth))
    tracklets = []
    for piece, covered in zip(pieces, coverage(pieces), strict=True):
        sides = piece.boxes[:, 2:] - piece.boxes[:, :2]
        large = (sides >= [rules.min_width, rules.min_height]).all(axis=1)
        clear = covered <= rules.max_overlap
        dropped["crops: size"] += int((~large).sum())
        dropped["crops: overlap"] += int((large & ~clear).sum())
        # Who comes out from behind somebody after long may be another.
        for part in split_at_gaps(_select(piece, large & clear), timeline, rules.max_gap):
            if len(part.frames) < rules.min_frames:
                dropped["tracks: length"] += 1
            else:
                tracklets.append(part)
    tracklets.sort(key=lambda track: (track.frames[0], *track.boxes[0]))
    return tracklets, +dropped


def split_at_gaps(track: Track, timeline: Timeline, max_gap: float) -> list[Track]:
    """Cut a track wherever more than ``max_gap`` seconds lie between two of its frames."""
    if not len(track.frames):
        return []
    cuts = np.flatnonzero(np.diff(timeline.of(track.frames)) > max_gap) + 1
    return [_select(track, part) for part in np.split(np.arange(len(track.frames)), cuts)]


def steady(track: Track, timeline: Timeline, max_jump: float) -> Track:
    """Leave out boxes that are ``max_jump`` times as high, or as low, as the median of the two seconds around them."""
    times = timeline.of(track.frames)
    heights = np.log(track.boxes[:, 3] - track.boxes[:, 1])
    first, last = np.searchsorted(times, times - _AROUND), np.searchsorted(times, times + _AROUND, side="right")
    usual = np.array([np.median(heights[start:end]) for start, end in zip(first, last, strict=True)])
    return _select(track, np.abs(heights - usual) <= np.log(max_jump))


def interpolate(track: Track, timeline: Timeline) -> Track:
    """Fill in the frames between those in which a person was found, linearly in time."""
    first, last = np.searchsorted(timeline.numbers, track.frames[[0, -1]])
    numbers, times = timeline.numbers[first : last + 1], timeline.times[first : last + 1]
    known = timeline.of(track.frames)
    boxes = np.stack([np.interp(times, known, column) for column in track.boxes.T], axis=1)
    return Track(numbers, boxes, np.interp(times, known, track.scores))


def smooth(track: Track, timeline: Timeline, seconds: float) -> Track:
    """Replace each box by the straight line through those of ``seconds`` around it."""
    steps = np.diff(timeline.of(track.frames))
    if seconds <= 0 or len(steps) < 2:
        return track
    window = 2 * round(seconds / max(float(np.median(steps)), 1e-3) / 2) + 1
    window = min(window, len(track.frames) - 1 + len(track.frames) % 2)  # odd, and no longer than the track
    if window < 3:
        return track
    return replace(track, boxes=savgol_filter(track.boxes, window, polyorder=1, axis=0, mode="interp"))


def coverage(tracks: Sequence[Track]) -> list[np.ndarray]:
    """Return for each track and frame the largest share of its box that somebody nearer to the camera covers.

    Of two people on one floor, the one whose box ends lower in the picture is the nearer one.
    """
    covered = [np.zeros(len(track.frames)) for track in tracks]
    if len(tracks) < 2:
        return covered
    frames = np.concatenate([track.frames for track in tracks])
    boxes = np.concatenate([track.boxes for track in tracks])
    shares = np.zeros(len(frames))
    order = np.argsort(frames, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(frames[order])) + 1):
        if len(group) > 1:
            shares[group] = _covered(boxes[group])
    return np.split(shares, np.cumsum([len(track.frames) for track in tracks])[:-1])


def _covered(boxes: np.ndarray) -> np.ndarray:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.prod((high - low).clip(0), axis=2)
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    nearer = boxes[None, :, 3] > boxes[:, None, 3]
    return (np.where(nearer, common, 0) / np.maximum(own, 1e-9)[:, None]).max(axis=1)


def _select(track: Track, rows: np.ndarray) -> Track:
    return replace(track, frames=track.frames[rows], boxes=track.boxes[rows], scores=track.scores[rows])
