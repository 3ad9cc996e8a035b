"""Extraction of shards: decode ahead, estimate, lift, write."""

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pose_cache.decode import decode_ahead
from pose_cache.hdf5 import Provenance
from pose_cache.joints import COCO17, H36M17
from pose_cache.plan import FrameSequence, fingerprint
from pose_cache.sequences import lift_sequences
from pose_cache.sources import SOURCE
from pose_cache.store import TrackletSkeletons, write_store

if TYPE_CHECKING:
    from pose_cache.estimator import PoseEstimator


@dataclass(frozen=True)
class ShardJob:
    """A shard to make: the file, and the tracklets that go into it."""

    path: Path
    sequences: tuple[FrameSequence, ...]

    @property
    def frame_count(self) -> int:
        """Frames of all tracklets."""
        return sum(len(one.frames) for one in self.sequences)


def make_shards(
    estimator: "PoseEstimator",
    jobs: Sequence[ShardJob],
    root: Path,
    batch_size: int,
    decoders: int,
    settings: dict[str, str],
    progress: Callable[[int], None],
) -> None:
    """Make shards, each written whole when it is finished; the next one is decoded meanwhile.

    Parameters
    ----------
    estimator : PoseEstimator
        Estimates.
    jobs : sequence of ShardJob
        What to make.
    root : Path
        Folder of the frames.
    batch_size, decoders : int
        Crops estimated at once, and threads that decode.
    settings : dict
        Goes into the files beside the versions of programs: what may change results by rounding.
    progress : callable
        Called with the frames estimated, of all jobs.
    """
    batches = decode_ahead(
        ([frame for one in job.sequences for frame in one.frames] for job in jobs),
        root, estimator.prepare, estimator.input_shape, batch_size, decoders,
    )  # fmt: skip
    begun, done = datetime.datetime.now(datetime.UTC), 0  # frames of later shards may be read from now on, too
    try:
        for job in jobs:
            count = job.frame_count
            keypoints = np.zeros((count, COCO17.size, 3), np.float32)
            sizes, sources = np.zeros((count, 2), np.int64), np.zeros(count, SOURCE)
            for start in range(0, count, batch_size):
                batch = next(batches)
                rows = slice(start, start + len(batch.sizes))
                sizes[rows], sources[rows] = batch.sizes, batch.sources
                if batch.sizes.any():
                    keypoints[rows] = _detected(estimator, batch.inputs, batch.sizes)
                progress(done + start + len(batch.sizes))
            tracklets = _lifted(estimator, job.sequences, keypoints, sizes, sources)
            provenance = provenance_of(estimator, job.sequences, settings)
            write_store(job.path, tracklets, provenance, begun)
            done += count
    finally:
        batches.close()


def provenance_of(
    estimator: "PoseEstimator", sequences: Sequence[FrameSequence], settings: dict[str, str]
) -> Provenance:
    """Return what a file of these sequences says of its making."""
    spec = estimator.spec
    details: dict[str, Any] = dict(estimator.details)
    details["software"] = {**details.get("software", {}), **settings}
    return Provenance(spec.name, H36M17.name, spec.unit, details, fingerprint(sequences))


def _detected(estimator: "PoseEstimator", inputs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Estimate a batch as a whole, whatever frames of it are of use: batches of one size take one path on a device."""
    usable = sizes[:, 0] > 0
    stand_in = np.where(usable[:, None], sizes, (inputs.shape[2], inputs.shape[1]))
    return np.where(usable[:, None, None], estimator.detect_prepared(inputs, stand_in), 0)


def _lifted(
    estimator: "PoseEstimator",
    sequences: Sequence[FrameSequence],
    keypoints: np.ndarray,
    sizes: np.ndarray,
    sources: np.ndarray,
) -> Iterator[TrackletSkeletons]:
    """Lift the tracklets that have a valid frame, and cut the flat arrays into tracklets."""
    ends = np.cumsum([len(one.frames) for one in sequences])
    rows = [slice(int(end) - len(one.frames), int(end)) for one, end in zip(sequences, ends, strict=True)]
    joints, valid = lift_sequences(estimator, keypoints, sizes, rows)
    for one, span in zip(sequences, rows, strict=True):
        yield TrackletSkeletons(one.name, one.frames, joints[span], keypoints[span], valid[span], sources[span])
