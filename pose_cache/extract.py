"""From frames on the disk to a skeleton cache: plan, decode ahead, estimate, write shards, resume, merge.

The sequences are cut into shards of consecutive tracklets, a pure function of the sequences and `shard_frames`. Each
shard is estimated on its own and written whole into the folder OUT.shards. A run that was killed loses the shard it was
in; the next one keeps every finished shard that is healthy, of the same frames and of the same estimator, and does the
rest. As no batch reaches over the end of a shard, the finished file is the same either way, to the bit with the same
batch size on the same device with as many threads.

Frames that are missing, or that no image can be decoded from (a JPEG cut short included), are not valid: their joints and
keypoints are zeros. Frames on which the keypoints score too low are not valid either, but their keypoints are kept. For
lifting, gaps are filled along time, so that they do not disturb their neighbours.
"""

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator, Precision
from pose_cache.images import read_frame
from pose_cache.joints import COCO17, H36M17
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, merge_stores, verify_store, write_store

Progress = Callable[[int, int], None]
_EXAMPLES = 5


@dataclass(frozen=True)
class FrameSequence:
    """The frames of one tracklet, in order of time.

    Attributes
    ----------
    name : str
        Unique in the dataset.
    frames : tuple of str
        Frame paths relative to the dataset's root, "/" between folders.
    """

    name: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class ExtractSummary:
    """What a call of `extract` found and did.

    Attributes
    ----------
    out : Path
        The cache file.
    up_to_date : bool
        It was there already, of the same frames and the same estimator; nothing was done.
    tracklets, frames : int
        In the file.
    kept_frames : int
        Frames of shards that an earlier run had finished.
    missing, unreadable : int
        Frames without a file, and files that no image can be decoded from.
    without_pose : int
        Frames that were read, but whose keypoints scored too low.
    examples : tuple of str
        The first few missing or unreadable frames.
    seconds : float
        Time this call took.
    """

    out: Path
    up_to_date: bool
    tracklets: int
    frames: int
    kept_frames: int
    missing: int
    unreadable: int
    without_pose: int
    examples: tuple[str, ...]
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Frames estimated by this call a second of it."""
        return (self.frames - self.kept_frames) / self.seconds if self.seconds > 0 else 0.0


def extract(
    sequences: Sequence[FrameSequence],
    root: Path,
    spec: EstimatorSpec,
    out: Path,
    *,
    device: str = "cpu",
    batch_size: int = 16,
    shard_frames: int = 4096,
    flip_test: bool = False,
    precision: Precision = "32",
    workers: int = 2,
    force: bool = False,
    progress: Progress | None = None,
) -> ExtractSummary:
    """Estimate the skeletons of all sequences and write them into one cache file.

    Parameters
    ----------
    sequences : sequence of FrameSequence
        What to do; the file keeps their order.
    root : Path
        Folder that the frames' paths are relative to.
    spec : EstimatorSpec
        The estimator.
    out : Path
        The file to make.
    device : str
        A torch device, or "auto".
    batch_size : int
        Crops estimated at once.
    shard_frames : int
        A shard is closed when it has this many frames: what a killed run can lose at most.
    flip_test, precision
        See `PoseEstimator`.
    workers : int
        Threads that decode frames ahead of the estimator.
    force : bool
        Replace an `out` that another estimator made, or that is damaged.
    progress : callable, optional
        Called with the frames done, those of finished shards included, and all frames.

    Returns
    -------
    ExtractSummary

    Raises
    ------
    PoseCacheError
        If there is nothing to do, all frames are missing, or `out` is of another estimator and not `force`.
    """
    started = time.monotonic()
    _check(sequences, root)
    estimator = PoseEstimator(spec, device, flip_test, precision)
    if _is_finished(out, sequences, estimator, force):
        return _summary(out, root, True, sum(len(one.frames) for one in sequences), started)

    shards = plan_shards(sequences, shard_frames)
    folder = out.with_name(out.name + ".shards")
    done, kept, total = 0, 0, sum(len(one.frames) for one in sequences)
    paths = []
    for number, shard in enumerate(shards):
        path = folder / f"{number:05d}.h5"
        frames = sum(len(one.frames) for one in shard)
        provenance = _provenance(estimator, shard)
        if _is_shard(path, provenance):
            kept += frames
        else:
            report = None if progress is None else _shifted(progress, done, total)
            write_store(path, _estimate(estimator, shard, root, batch_size, workers, report), provenance)
        done += frames
        paths.append(path)
        if progress is not None:
            progress(done, total)
    merge_stores(paths, out, _provenance(estimator, sequences))
    shutil.rmtree(folder)
    return _summary(out, root, False, kept, started)


def plan_shards(sequences: Sequence[FrameSequence], shard_frames: int) -> list[tuple[FrameSequence, ...]]:
    """Cut the sequences into shards: consecutive tracklets until there are `shard_frames` frames."""
    shards: list[tuple[FrameSequence, ...]] = []
    current: list[FrameSequence] = []
    count = 0
    for sequence in sequences:
        current.append(sequence)
        count += len(sequence.frames)
        if count >= shard_frames:
            shards.append(tuple(current))
            current, count = [], 0
    return [*shards, tuple(current)] if current else shards


def fingerprint(sequences: Iterable[FrameSequence]) -> str:
    """Return the SHA-256 over the names of the sequences and their frames, in order."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update("\0".join((sequence.name, *sequence.frames)).encode() + b"\n")
    return digest.hexdigest()


def _check(sequences: Sequence[FrameSequence], root: Path) -> None:
    if not sequences:
        raise PoseCacheError(f"no tracklets to extract skeletons of in {root}")
    if empty := [one.name for one in sequences if not one.frames]:
        raise PoseCacheError(f"tracklet {empty[0]!r} has no frames")
    names = [one.name for one in sequences]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PoseCacheError(f"the tracklet {twice!r} comes twice; names must be unique in a dataset")
    if not any((root / frame).is_file() for one in sequences for frame in one.frames):
        raise PoseCacheError(
            f"none of the {sum(len(one.frames) for one in sequences)} frames is there: the first would be "
            f"{root / sequences[0].frames[0]}. Is the dataset's root right?"
        )


def _is_finished(out: Path, sequences: Sequence[FrameSequence], estimator: PoseEstimator, force: bool) -> bool:
    """Tell whether `out` is what would be made; refuse to replace what another estimator made."""
    if not out.exists():
        return False
    try:
        with SkeletonStore(out) as store:
            made = store.provenance
    except PoseCacheError:
        if force:
            return False
        raise
    wanted = _provenance(estimator, sequences)
    if made.details.get("digest") == estimator.digest:
        return made.dataset == wanted.dataset
    if not force:
        raise PoseCacheError(
            f"{out} was made by the estimator {made.estimator!r} with other configs, weights or options than "
            f"{estimator.spec.name!r} has now: replace it with --force, or write to another file"
        )
    return False


def _is_shard(path: Path, provenance: Provenance) -> bool:
    """Tell whether an earlier run has finished this shard."""
    if not path.is_file():
        return False
    try:
        with SkeletonStore(path) as store:
            found = store.provenance
    except PoseCacheError:
        return False
    same = (found.dataset, found.details.get("digest")) == (provenance.dataset, provenance.details["digest"])
    return same and not verify_store(path)


def _provenance(estimator: PoseEstimator, sequences: Sequence[FrameSequence]) -> Provenance:
    spec = estimator.spec
    return Provenance(spec.name, H36M17.name, spec.unit, estimator.details, fingerprint(sequences))


def _estimate(
    estimator: PoseEstimator,
    sequences: Sequence[FrameSequence],
    root: Path,
    batch_size: int,
    workers: int,
    progress: Callable[[int], None] | None,
) -> list[TrackletSkeletons]:
    """Estimate one shard: 2D over all its frames in full batches, then every tracklet lifted whole."""
    paths = [root / frame for sequence in sequences for frame in sequence.frames]
    keypoints = np.zeros((len(paths), COCO17.size, 3), np.float32)
    sizes = np.zeros((len(paths), 2), np.int64)
    batch: list[tuple[int, np.ndarray]] = []

    def flush() -> None:
        rows = [row for row, _ in batch]
        keypoints[rows] = estimator.detect_prepared(np.stack([crop for _, crop in batch]), sizes[rows])
        batch.clear()

    for row, frame in enumerate(_decoded(estimator, paths, workers, 2 * batch_size + workers)):
        if frame is not None:
            prepared, sizes[row] = frame
            batch.append((row, prepared))
        if len(batch) == batch_size:
            flush()
        if progress is not None and (row + 1) % batch_size == 0:
            progress(row + 1)
    if batch:
        flush()
    finite = np.isfinite(keypoints).all(axis=(1, 2))
    keypoints[~finite] = 0
    valid = (sizes[:, 0] > 0) & finite & (keypoints[..., 2].mean(axis=1) >= estimator.spec.min_score)
    return _lifted(estimator, sequences, keypoints, sizes, valid)


def _lifted(
    estimator: PoseEstimator,
    sequences: Sequence[FrameSequence],
    keypoints: np.ndarray,
    sizes: np.ndarray,
    valid: np.ndarray,
) -> list[TrackletSkeletons]:
    """Lift the tracklets that have a valid frame, and cut the flat arrays into tracklets."""
    ends = np.cumsum([len(one.frames) for one in sequences])
    rows = [slice(int(end) - len(one.frames), int(end)) for one, end in zip(sequences, ends, strict=True)]
    seen = [number for number, span in enumerate(rows) if valid[span].any()]
    lifted = estimator.lift([_filled(keypoints[rows[n]], sizes[rows[n]], valid[rows[n]]) for n in seen])
    joints = np.zeros((len(keypoints), H36M17.size, 3), np.float32)
    for number, found in zip(seen, lifted, strict=True):
        joints[rows[number]] = found
    valid = valid & np.isfinite(joints).all(axis=(1, 2))
    joints[~valid] = 0
    return [
        TrackletSkeletons(one.name, one.frames, joints[span], keypoints[span], valid[span])
        for one, span in zip(sequences, rows, strict=True)
    ]


def _filled(keypoints: np.ndarray, sizes: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill frames that are not valid: linearly between their valid neighbours, constant beyond the ends."""
    if valid.all():
        return keypoints, sizes
    time_, known = np.arange(len(valid)), np.flatnonzero(valid)
    flat = np.concatenate([keypoints.reshape(len(valid), -1), sizes], axis=1)
    filled = np.stack([np.interp(time_, known, column[known]) for column in flat.T], axis=1)
    return filled[:, :-2].reshape(keypoints.shape).astype(np.float32), filled[:, -2:]


def _decoded(
    estimator: PoseEstimator, paths: Sequence[Path], workers: int, ahead: int
) -> Iterator[tuple[np.ndarray, tuple[int, int]] | None]:
    """Decode and warp frames in threads, at most `ahead` of what is asked for; None for what cannot be read."""

    def load(path: Path) -> tuple[np.ndarray, tuple[int, int]] | None:
        frame = read_frame(path)
        return None if frame is None else (estimator.prepare(frame), (frame.shape[1], frame.shape[0]))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[tuple[np.ndarray, tuple[int, int]] | None]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(load, path))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _shifted(progress: Progress, done: int, total: int) -> Callable[[int], None]:
    return lambda frames: progress(done + frames, total)


def _summary(out: Path, root: Path, up_to_date: bool, kept: int, started: float) -> ExtractSummary:
    """Count what is in a finished file: the same whether this call made it or found it."""
    missing, unreadable, without_pose = 0, 0, 0
    examples: list[str] = []
    with SkeletonStore(out) as store:
        for name in store.names:
            valid = store.valid(name)
            if valid.all():
                continue
            tracklet = store.read(name)
            unread = ~valid & ~tracklet.keypoints2d.any(axis=(1, 2))
            without_pose += int((~valid & ~unread).sum())
            for row in np.flatnonzero(unread):
                frame = tracklet.frames[row]
                is_there = (root / frame).exists()
                missing, unreadable = missing + (not is_there), unreadable + is_there
                if len(examples) < _EXAMPLES:
                    examples.append(frame)
        return ExtractSummary(
            out, up_to_date, len(store), store.frame_count, kept, missing, unreadable, without_pose, tuple(examples),
            time.monotonic() - started,
        )  # fmt: skip
