"""Shards made by one process or by many: on several devices of this machine, or wherever joblib's backends reach.

Every worker process keeps one estimator on one device.
"""

import functools
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator, Precision
from pose_cache.pieces import device_of_this_worker, run_pieces
from pose_cache.shard import ShardJob, make_shards


@dataclass(frozen=True)
class Recipe:
    """How shards are made: all that is the same for every worker.

    Attributes
    ----------
    spec, flip_test, precision
        See `PoseEstimator`.
    digest : str
        What the estimator's digest has to be.
    root : Path
        Folder of the frames.
    batch_size : int
        Crops estimated at once.
    decoders : int
        Threads that decode, of each worker.
    threads : int or None
        Threads of torch on a CPU, of each worker; None leaves torch's own number.
    """

    spec: EstimatorSpec
    flip_test: bool
    precision: Precision
    digest: str
    root: Path
    batch_size: int
    decoders: int
    threads: int | None


def make_here(
    estimator: PoseEstimator, jobs: Sequence[ShardJob], recipe: Recipe, device: str, progress: Callable[[int], None]
) -> None:
    """Make shards in this process; progress is called with the frames estimated so far."""
    with _torch_threads(recipe.threads):
        make_shards(
            estimator, jobs, recipe.root, recipe.batch_size, recipe.decoders, _settings(recipe, device), progress
        )


def make_with_workers(
    jobs: Sequence[ShardJob],
    recipe: Recipe,
    devices: Sequence[str],
    backend: str,
    locks: Path,
    progress: Callable[[int], None],
) -> None:
    """Make shards with a joblib backend, one shard a task; progress is called with the frames of finished shards.

    Parameters
    ----------
    jobs : sequence of ShardJob
        What to make.
    recipe : Recipe
        How.
    devices : sequence of str
        Of one machine; local backends start a worker for each, clusters have as many workers as they have.
    backend : str
        "loky", "threading", "multiprocessing", "dask", "ray", or another one that is registered with joblib.
    locks : Path
        Folder where workers of one machine share out the devices.
    progress : callable
        Called after each shard.

    Raises
    ------
    PoseCacheError
        If the backend is not there, a worker dies, or what a worker raised.
    """
    done = 0
    make = functools.partial(_make_one, recipe=recipe, devices=tuple(devices), locks=locks)
    for frames in run_pieces(make, jobs, len(devices), backend):
        done += frames
        progress(done)


def _make_one(job: ShardJob, recipe: Recipe, devices: tuple[str, ...], locks: Path) -> int:
    """Make one shard in a worker; returns its frames."""
    if not job.path.exists():  # a cluster may run a task again whose worker was lost after it had written
        slot, device = device_of_this_worker(devices, locks)
        estimator = _estimator(recipe.spec, device, recipe.flip_test, recipe.precision, slot)
        if estimator.digest != recipe.digest:
            raise PoseCacheError(
                f"on {socket.gethostname()} the estimator {recipe.spec.name!r} has other configs or weights than where "
                "the extraction was started: install the same version and the same weights on every machine"
            )
        if recipe.threads is not None:  # for good: other threads of a worker may be estimating, too
            torch.set_num_threads(recipe.threads)
        settings = _settings(recipe, device)
        make_shards(estimator, [job], recipe.root, recipe.batch_size, recipe.decoders, settings, lambda frames: None)
    return job.frame_count


def _settings(recipe: Recipe, device: str) -> dict[str, str]:
    """Return what may change results by rounding, for the file's record of software."""
    return {"device": device, "threads": str(torch.get_num_threads()), "batch_size": str(recipe.batch_size)}


@functools.lru_cache(maxsize=16)
def _estimator(spec: EstimatorSpec, device: str, flip_test: bool, precision: Precision, slot: int) -> PoseEstimator:
    """Build a worker's estimator once; `slot` gives threads that share a device one each."""
    return PoseEstimator(spec, device, flip_test, precision)


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use that many threads; another number may change results by rounding."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)
