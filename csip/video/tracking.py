"""Tracking: mmdet's ByteTrack with its Kalman filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from pose_cache.compat import guard_torchvision


class Detections(NamedTuple):
    """People in a picture: boxes (N, 4), left, top, right, bottom in pixels; scores (N,) between 0 and 1."""

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Thresholds:
    """Scores that a detector's boxes need: to begin a track, to go on with one first, and to go on where no better is."""

    start: float = 0.7
    high: float = 0.6
    low: float = 0.1


@dataclass(frozen=True)
class Track:
    """Where one person was found.

    Attributes
    ----------
    frames
        (n,) int64: numbers of the video's frames, rising.
    boxes
        (n, 4) float64: left, top, right, bottom in pixels of the upright picture.
    scores
        (n,) float64.
    change
        Largest share of its box that differed from the background.
    """

    frames: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    change: float = 1.0


class Tracker:
    """Follows people through one video.

    Parameters
    ----------
    thresholds : Thresholds
        Those of the detector.
    patience : int
        Looks at the video without a box after which a track has ended.
    """

    def __init__(self, thresholds: Thresholds, patience: int) -> None:
        guard_torchvision()
        from mmdet.models.trackers import ByteTracker

        self._tracker: Any = ByteTracker(
            motion={"type": "mmdet.KalmanFilter"},  # by its full name: MMPose may have been used before
            obj_score_thrs={"high": thresholds.high, "low": thresholds.low},
            init_track_thr=thresholds.start,
            num_frames_retain=max(patience, 1),
        )
        self._looks = 0
        self._found: dict[int, list[tuple[int, np.ndarray, float]]] = {}

    def look(self, frame: int, detections: Detections) -> list[tuple[int, np.ndarray]]:
        """Take the detections of the frame of this number; numbers must rise. Returns its tracks and their boxes (4,)."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        sample = DetDataSample(metainfo={"frame_id": self._looks})
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(detections.boxes.astype(np.float32).reshape(-1, 4)),
            scores=torch.from_numpy(detections.scores.astype(np.float32)),
            labels=torch.zeros(len(detections.scores), dtype=torch.long),
        )
        self._looks += 1
        result = self._tracker.track(sample)
        seen = []
        for number, box, score in zip(result.instances_id, result.bboxes, result.scores, strict=True):
            seen.append((int(number), box.double().numpy()))
            self._found.setdefault(int(number), []).append((frame, box.double().numpy(), float(score)))
        return seen

    def tracks(self) -> dict[int, Track]:
        """Return what was found so far by the tracks' numbers, in the order of the first frames."""
        return {
            number: Track(
                np.array([frame for frame, _, _ in found], np.int64),
                np.stack([box for _, box, _ in found]),
                np.array([score for _, _, score in found]),
            )
            for number, found in sorted(self._found.items())
        }
