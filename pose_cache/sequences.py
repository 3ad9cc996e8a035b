"""From 2D keypoints of whole sequences to 3D joints, frames without a pose among them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pose_cache.joints import H36M17


class SequenceLifter(Protocol):
    """What lifts sequences: a `pose_cache.estimator.PoseEstimator`."""

    spec: Any

    def lift(self, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """See `pose_cache.estimator.PoseEstimator.lift`."""
        ...


def lift_sequences(
    estimator: SequenceLifter, keypoints: np.ndarray, sizes: np.ndarray, rows: Sequence[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Lift the sequences that have a frame with a pose.

    Parameters
    ----------
    keypoints : np.ndarray
        (N, 17, 3) of the frames of all sequences; what is not finite becomes 0, in place.
    sizes : np.ndarray
        (N, 2), width and height of each frame's crop; 0 where it could not be read.
    rows : sequence of slice
        The frames of each sequence.

    Returns
    -------
    joints : np.ndarray
        (N, 17, 3) float32, zeros where not valid.
    valid : np.ndarray
        (N,) bool, which frames have a pose: it was read, its keypoints score at least `min_score`, and all is finite.
    """
    finite = np.isfinite(keypoints).all(axis=(1, 2))
    keypoints[~finite] = 0
    valid = (sizes[:, 0] > 0) & finite & (keypoints[..., 2].mean(axis=1) >= estimator.spec.min_score)
    seen = [span for span in rows if valid[span].any()]
    lifted = estimator.lift([_filled(keypoints[span], sizes[span], valid[span]) for span in seen])
    joints = np.zeros((len(keypoints), H36M17.size, 3), np.float32)
    for span, found in zip(seen, lifted, strict=True):
        joints[span] = found
    valid &= np.isfinite(joints).all(axis=(1, 2))
    joints[~valid] = 0
    return joints, valid


def _filled(keypoints: np.ndarray, sizes: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill frames that are not valid: linearly between their valid neighbours, constant beyond the ends."""
    if valid.all():
        return keypoints, sizes
    time, known = np.arange(len(valid)), np.flatnonzero(valid)
    flat = np.concatenate([keypoints.reshape(len(valid), -1), sizes], axis=1)
    filled = np.stack([np.interp(time, known, column[known]) for column in flat.T], axis=1)
    return filled[:, :-2].reshape(keypoints.shape).astype(np.float32), filled[:, -2:]
