"""Skeletons: joint sets, the HDF5 cache, MMPose estimators and extraction. Knows nothing of re-identification.

    import pose_cache

    poses = pose_cache.PoseEstimator.load("human3d").estimate(["0.jpg", "1.jpg"])
    pose_cache.open("skeletons.h5")["train/0001C1T0001"].joints

Names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pose_cache.errors import PoseCacheError
    from pose_cache.estimator import PoseEstimator, Poses
    from pose_cache.store import SkeletonStore, TrackletSkeletons
    from pose_cache.store import SkeletonStore as open

# Where each name is defined, as above.
_HOME = {
    "PoseCacheError": ("pose_cache.errors", "PoseCacheError"),
    "PoseEstimator": ("pose_cache.estimator", "PoseEstimator"),
    "Poses": ("pose_cache.estimator", "Poses"),
    "SkeletonStore": ("pose_cache.store", "SkeletonStore"),
    "TrackletSkeletons": ("pose_cache.store", "TrackletSkeletons"),
    "open": ("pose_cache.store", "SkeletonStore"),
}

__all__ = ["PoseCacheError", "PoseEstimator", "Poses", "SkeletonStore", "TrackletSkeletons", "open"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pose_cache' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
