"""Summary of a skeleton cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pose_cache.hdf5 import Layout, lasting_details, open_file, read_provenance
from pose_cache.store import SkeletonStore


@dataclass(frozen=True)
class CacheSummary:
    """What a cache holds and where that comes from.

    Attributes
    ----------
    path : str
        The file.
    bytes : int
        Its size.
    version : int
        Of the format.
    created : str
        ISO 8601, UTC.
    tracklets, frames, valid : int
        How many; `valid` counts the frames that have a pose.
    without_pose : int
        Tracklets that have no valid frame.
    lengths : Mapping of str to float
        Frames a tracklet: "shortest", "median", "mean", "longest"; empty without tracklets.
    gaps, longest_gap : int
        Runs of frames that are not valid between two that are: how many, and the frames of the longest.
    joint_set, unit, estimator : str
        As in `Provenance`.
    joints, keypoints2d : int
        3D joints and 2D keypoints a frame.
    digest : str
        Equal where the skeletons are equal.
    dataset : str
        Fingerprint of the frames' names.
    details, software : Mapping
        Configs, digests of weights and options; versions of the programs.
    """

    path: str
    bytes: int
    version: int
    created: str
    tracklets: int
    frames: int
    valid: int
    without_pose: int
    lengths: Mapping[str, float]
    gaps: int
    longest_gap: int
    joint_set: str
    joints: int
    keypoints2d: int
    unit: str
    estimator: str
    digest: str
    dataset: str
    details: Mapping[str, Any]
    software: Mapping[str, str]


def summarize_store(path: Path) -> CacheSummary:
    """Read what a cache holds, without reading its skeletons.

    Raises
    ------
    PoseCacheError
        If the file is missing, damaged, or of another format version.
    """
    with open_file(path) as file:
        made, layout = read_provenance(file), Layout.of(file)
        version, created = int(file.attrs["version"]), str(file.attrs.get("created", "unknown"))
        lengths, valid = file["tracklets"][()]["length"], file["valid"][()]
    store = SkeletonStore(path)
    gaps = _inner_gaps(valid, lengths)
    spread = {
        "shortest": int(lengths.min()), "median": float(np.median(lengths)), "mean": float(lengths.mean()),
        "longest": int(lengths.max()),
    } if len(lengths) else {}  # fmt: skip
    poses = np.add.reduceat(valid, np.cumsum(lengths) - lengths, dtype=np.int64) if len(lengths) else lengths
    return CacheSummary(
        path=str(path),
        bytes=path.stat().st_size,
        version=version,
        created=created,
        tracklets=len(lengths),
        frames=len(valid),
        valid=int(valid.sum()),
        without_pose=int((poses == 0).sum()),
        lengths=spread,
        gaps=len(gaps),
        longest_gap=int(gaps.max(initial=0)),
        joint_set=made.joint_set,
        joints=layout.joints,
        keypoints2d=layout.keypoints,
        unit=made.unit,
        estimator=made.estimator,
        digest=store.digest,
        dataset=made.dataset,
        details=lasting_details(made.details),
        software=made.details["software"],
    )


def _inner_gaps(valid: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the lengths of the gaps between neighbouring valid frames of one tracklet."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    known = np.flatnonzero(valid)
    missing = np.diff(known) - 1
    return missing[(missing > 0) & (np.diff(owner[known]) == 0)]
