"""From frames on the disk to a skeleton cache: plan, decode ahead, estimate, write shards, resume, merge.

The sequences are cut into shards of consecutive tracklets, a pure function of the sequences and `shard_frames`. Each
shard is estimated on its own, by whichever worker, and written whole into the folder OUT.shards. A run that was killed
loses the shards it was in; the next one keeps every finished tracklet and does the rest. As no batch reaches over the end
of a shard, the finished file is the same either way, to the bit with the same batch size and shards on the same kind of
device with as many threads.

What is kept: a tracklet of a healthy shard or of an existing `out`, by the same estimator, of the same frames in the same
order, whose data match their checksum, and none of whose files has changed since. A file has changed if its size differs, or if
it was modified after the extraction began and its CRC-32 differs; what was missing and is there now has changed, too. A
file that is gone has not: one may delete images and keep their skeletons. All others, new ones included, are estimated
again, alone: other tracklets of their shard are not, and the file may then differ from one made at once in the last
bits of floating-point sums.

Frames without a usable picture (`pose_cache.images` says which) are not valid: their joints and keypoints are zeros.
Frames on which the keypoints score too low are not valid either, but their keypoints are kept. For lifting, gaps are
filled along time, so that they do not disturb their neighbours.

One run at a time writes an `out`; jobs that each do their own share of it may run at once, on any machines that share
the folder.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator, Precision, resolve_device
from pose_cache.files import PARTIAL
from pose_cache.merge import Piece, merge_pieces
from pose_cache.monitor import Monitor, Silent
from pose_cache.outcome import ExtractSummary, summarize
from pose_cache.parts import PartsFolder
from pose_cache.pieces import Share
from pose_cache.plan import (
    Finished,
    FrameSequence,
    changed_tracklets,
    check_sequences,
    find_finished,
    fingerprint,
    pieces_of,
    plan_shards,
)
from pose_cache.shard import ShardJob
from pose_cache.store import SkeletonStore
from pose_cache.workers import Recipe, make_here, make_with_workers

__all__ = [
    "ExtractOptions",
    "ExtractSummary",
    "FrameSequence",
    "Share",
    "extract",
    "fingerprint",
    "merge_shards",
    "plan_shards",
]

_NAMED: Final = 3


@dataclass(frozen=True, kw_only=True)
class ExtractOptions:
    """How skeletons are extracted: where, how fast, and how precisely.

    Attributes
    ----------
    device : str
        A torch device, or "auto"; or several with commas between them, and a worker process for each.
    batch_size : int, optional
        Crops estimated at once; by default 256 on a GPU and 16 on a CPU.
    shard_frames : int
        A shard is closed when it has this many frames: what a killed worker can lose at most.
    flip_test, precision
        See `PoseEstimator`.
    workers : int
        Threads that decode frames ahead of the estimator, for each device.
    threads : int, optional
        Threads of torch on a CPU, for each device; torch's own number if not given.
    backend : str, optional
        The joblib backend that runs the workers: "loky" (the default for several devices), "threading", "dask", "ray" or
        another that is registered. On a cluster all machines see the same folders, and its workers take `device`.

    Raises
    ------
    PoseCacheError
        If a number is below 1.
    """

    device: str = "cpu"
    batch_size: int | None = None
    shard_frames: int = 4096
    flip_test: bool = False
    precision: Precision = "32"
    workers: int = 2
    threads: int | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        numbers = (self.batch_size, self.shard_frames, self.threads)
        if any(number is not None and number < 1 for number in numbers):
            raise PoseCacheError("the batch size, the frames of a shard and the threads have to be at least 1")

    def devices(self) -> list[str]:
        """Return the devices by name."""
        names = [name.strip() for name in self.device.split(",")]
        # On a cluster "auto" is for its machines to find out.
        return names if self.backend is not None else [resolve_device(name) for name in names]

    def recipe(self, spec: EstimatorSpec, digest: str, root: Path) -> Recipe:
        """Return what is the same for every worker."""
        default = 256 if self.devices()[0].startswith("cuda") else 16
        batch_size = default if self.batch_size is None else self.batch_size
        return Recipe(spec, self.flip_test, self.precision, digest, root, batch_size, self.workers, self.threads)


def extract(
    sequences: Sequence[FrameSequence],
    root: Path,
    spec: EstimatorSpec,
    out: Path,
    options: ExtractOptions = ExtractOptions(),
    *,
    share: Share | None = None,
    force: bool = False,
    monitor: Monitor = Silent(),
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
    options : ExtractOptions
        Devices, batches, workers and precision.
    share : Share, optional
        Do only this part of the shards and do not merge; `merge_shards` does when all parts are done.
    force : bool
        Replace an `out` or shards that another estimator made, or an `out` that is damaged.
    monitor : Monitor, optional
        Hears how many frames are done, those of finished shards included.

    Raises
    ------
    PoseCacheError
        If there is nothing to do, all frames are missing, somebody else is writing `out`, the disk refuses, or `out` or
        its shards are of another estimator and not `force`.
    """
    started = time.monotonic()
    check_sequences(sequences, root)
    devices = options.devices()
    alone = options.backend is None and len(devices) == 1
    # Where workers estimate, this process only needs the estimator's digest.
    estimator = PoseEstimator(spec, devices[0] if alone else "cpu", options.flip_test, options.precision)
    recipe = options.recipe(spec, estimator.digest, root)
    folder = _parts(out).path
    if not folder.exists() and _is_up_to_date(out, sequences, recipe, force, estimator.details):
        return summarize(out, None, True, [_whole(out)], None, started)

    with _writing(out, share):
        if _is_up_to_date(out, sequences, recipe, force, estimator.details):
            if share is None:
                _parts(out).remove()
            return summarize(out, None, True, [_whole(out)], None, started)
        _refuse_foreign(folder, recipe, force)
        shards = plan_shards(sequences, options.shard_frames)
        shards = shards if share is None else share.of(shards)
        mine = [one for shard in shards for one in shard]
        finished = find_finished(_shard_files(folder), _existing(out), mine, recipe.digest, root)
        jobs = _jobs(shards, finished, folder, recipe.digest)
        total, left = sum(len(one.frames) for one in mine), sum(job.frame_count for job in jobs)

        def report(frames: int) -> None:
            monitor.progress("estimating skeletons", total - left + frames, total)

        report(0)
        if alone:
            make_here(estimator, jobs, recipe, devices[0], report)
        elif jobs:
            del estimator
            with _without_remains(jobs):
                make_with_workers(jobs, recipe, devices, options.backend or "loky", folder, report)
        for job in jobs:
            finished |= {one.name: Finished(job.path, row) for row, one in enumerate(job.sequences)}
        if share is not None:
            _parts(out).finish(share)
            return summarize(out, share, False, pieces_of(mine, finished), total - left, started)
        _finish(sequences, finished, out)
    return summarize(out, None, False, [_whole(out)], total - left, started)


def merge_shards(sequences: Sequence[FrameSequence], root: Path, out: Path, *, force: bool = False) -> ExtractSummary:
    """Join the shards that several jobs have made into the cache file, and remove them.

    Parameters
    ----------
    sequences, root, out
        As the jobs were given them.
    force : bool
        Replace an `out` that another estimator made.

    Returns
    -------
    ExtractSummary

    Raises
    ------
    PoseCacheError
        If a job is still at work, tracklets are missing (the message says which jobs have not finished), or `out` or some
        shards are of another estimator.
    """
    started = time.monotonic()
    check_sequences(sequences, root)
    folder = _parts(out).path
    digests = {digest: path for path in _shard_files(folder) if (digest := _digest(path)) is not None}
    if not digests:
        raise PoseCacheError(f"nothing to merge: no shards in {folder}; extract the shares first", parameter="share")
    if len(digests) > 1:
        one, other, *_ = digests.values()
        raise PoseCacheError(f"{one} and {other} are of different estimators: delete {folder}, and extract again")
    (digest,) = digests
    with _writing(out, None):
        if not force:
            _refuse_other(out, digest, "the shards")
        finished = find_finished(_shard_files(folder), _existing(out), sequences, digest, root)
        if missing := [one.name for one in sequences if one.name not in finished]:
            raise _missing(missing, len(sequences), out)
        _finish(sequences, finished, out)
    return summarize(out, None, False, [_whole(out)], sum(len(one.frames) for one in sequences), started)


def _parts(out: Path) -> PartsFolder:
    return PartsFolder(out.with_name(out.name + ".shards"), out)


def _shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.h5"))


def _existing(out: Path) -> Path | None:
    return out if out.exists() else None


def _whole(out: Path) -> Piece:
    return Piece(out, 0, len(SkeletonStore(out)))


def _digest(path: Path) -> str | None:
    """Return the estimator's digest of a cache file; None if it cannot be read."""
    try:
        return SkeletonStore(path).provenance.details.get("digest")
    except PoseCacheError:
        return None


def _jobs(
    shards: Sequence[tuple[FrameSequence, ...]], finished: Mapping[str, Finished], folder: Path, digest: str
) -> list[ShardJob]:
    """Return what is left of the shards. A file's name tells its content, so that no finished one is written over."""
    jobs = []
    for shard in shards:
        if left := tuple(one for one in shard if one.name not in finished):
            name = hashlib.sha256(f"{digest}{fingerprint(left)}".encode()).hexdigest()[:16]
            jobs.append(ShardJob(folder / f"{name}.h5", left))
            jobs[-1].path.unlink(missing_ok=True)  # damaged, or of frames that have changed
    return jobs


@contextmanager
def _writing(out: Path, share: Share | None) -> Iterator[None]:
    """Be the one who writes `out`, or one of those who each do a share."""
    with _parts(out).held(share):
        if share is None:
            for partial in out.parent.glob(f"{out.name}.*{PARTIAL}"):
                partial.unlink(missing_ok=True)  # of runs that were killed
        yield


@contextmanager
def _without_remains(jobs: Sequence[ShardJob]) -> Iterator[None]:
    """Remove what workers leave that an interruption has killed while they wrote."""
    try:
        yield
    except BaseException:
        for job in jobs:
            for partial in job.path.parent.glob(f"{job.path.name}.*{PARTIAL}"):
                partial.unlink(missing_ok=True)
        raise


def _is_up_to_date(
    out: Path, sequences: Sequence[FrameSequence], recipe: Recipe, force: bool, details: Mapping[str, Any]
) -> bool:
    """Tell whether `out` is what would be made; refuse to replace what another estimator made."""
    if not out.exists():
        return False
    if force:
        if _digest(out) != recipe.digest:
            return False
    else:
        _refuse_other(out, recipe.digest, f"{recipe.spec.name!r}", details)
    store = SkeletonStore(out)
    if store.provenance.dataset != fingerprint(sequences):
        return False
    return not changed_tracklets(store, store.names, recipe.root)


def _refuse_other(out: Path, digest: str, ours: str, details: Mapping[str, Any] | None = None) -> None:
    """Refuse a cache of another estimator than the one of this digest; `details` are that one's, where they are known."""
    if out.exists() and (made := SkeletonStore(out).provenance).details.get("digest") != digest:
        changed = "" if details is None else _differences(made.details, details)
        raise PoseCacheError(
            f"{out} was made by the estimator {made.estimator!r} with other configs, weights or options than {ours} has "
            f"now{changed}: replace it by force, or write to another file",
            parameter="force",
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say in brackets which details of two estimators differ; nothing where only what they stand for does."""
    assumed = {"decoding": 1, **there}  # caches of before it was noted
    changed = [key for key in here if key not in ("digest", "software") and assumed.get(key) != here[key]]
    said = "; ".join(f"{key} {json.dumps(assumed.get(key))} there, {json.dumps(here[key])} here" for key in changed)
    return f" ({said})" if said else ""


def _refuse_foreign(folder: Path, recipe: Recipe, force: bool) -> None:
    """Refuse to mix in what another estimator has begun; with force, remove it."""
    for path in _shard_files(folder):
        if (digest := _digest(path)) is None or digest == recipe.digest:
            continue
        if not force:
            raise PoseCacheError(
                f"{folder} holds shards that an estimator with other configs, weights or options than "
                f"{recipe.spec.name!r} has now did not finish: drop them by force, or write to another file",
                parameter="force",
            )
        path.unlink(missing_ok=True)


def _finish(sequences: Sequence[FrameSequence], finished: Mapping[str, Finished], out: Path) -> None:
    """Put the file together, and then remove the shards."""
    pieces = pieces_of(sequences, finished)
    provenance = SkeletonStore(pieces[0].path).provenance
    merge_pieces(pieces, out, replace(provenance, dataset=fingerprint(sequences)))
    _parts(out).remove()


def _missing(names: Sequence[str], count: int, out: Path) -> PoseCacheError:
    """Return the error that says which tracklets, and which jobs, are missing."""
    named = ", ".join(repr(name) for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    parts = _parts(out)
    what = f"{parts.path}: {len(names)} of {count} tracklets are not finished ({named})"
    return parts.unfinished(what, "extract", "share")
