"""Accuracy of estimated skeletons against the true joints of rendered people."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csip.errors import CsipError
from csip.synthetic.world import load_truth
from pose_cache.joints import COCO17
from pose_cache.store import SkeletonStore


def has_truth(root: Path) -> bool:
    """Whether the people of a data set were rendered, so that their true joints are known."""
    return (root / "truth.npz").exists()


def compare_with_truth(store: SkeletonStore, root: Path) -> dict[str, float]:
    """Measure estimated skeletons of rendered people against the joints that were rendered.

    Returns
    -------
    dict
        ``pa_mpjpe_mm``: mean distance of 3D joints after the best rotation, translation and scale a frame (Procrustes).
        ``pck``: share of 2D keypoints nearer to the truth than 5 % of the crop's height, among those inside the crop.

    Raises
    ------
    CsipError
        No true joints are beside the data set, or none of its tracklets is in the cache.
    """
    from pose_cache.compat import guard_torchvision

    guard_torchvision()
    import cv2
    from mmpose.evaluation.functional import keypoint_mpjpe

    distances, near = [], []
    for truth in load_truth(root):
        if truth.name not in store:
            continue
        found = store.read(truth.name)
        valid = found.valid
        if found.frames != tuple(truth.frames) or not valid.any():
            continue
        everywhere = np.ones((int(valid.sum()), truth.joints3d.shape[1]), bool)
        error = keypoint_mpjpe(
            found.joints[valid].astype(float), truth.joints3d[valid].astype(float), everywhere, alignment="procrustes"
        )
        distances.append((float(error), len(everywhere)))
        if found.keypoints2d.shape[1] == COCO17.size:
            height, width = cv2.imread(str(root / found.frames[0])).shape[:2]
            true = truth.coco[valid]
            inside = ((true >= 0) & (true < [width, height])).all(axis=2)
            off = np.linalg.norm(found.keypoints2d[valid][..., :2] - true, axis=2)
            near.append((off < 0.05 * height)[inside])
    if not distances:
        raise CsipError(f"{root}: none of the rendered tracklets is in {store.path}")
    errors, weights = np.array(distances).T
    figures = {"pa_mpjpe_mm": 1000 * float(np.average(errors, weights=weights))}
    return {**figures, "pck": float(np.concatenate(near).mean())} if near else figures
