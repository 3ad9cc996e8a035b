"""Shards made by one process or by many: on several devices of this machine, or wherever joblib's backends reach.

Every worker process keeps one estimator on one device. Workers of a machine take the devices of a list one each, by
locks in the folder of the shards: who starts first takes the first, and what a dead worker had is free again.
"""

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator, Precision
from pose_cache.lock import held
from pose_cache.shard import ShardJob, make_shards

_PARENT_SECONDS: Final = 1.0
# What a backend needs that is not installed with this project.
_PACKAGES: Final = {"dask": "dask[distributed]", "ray": "ray"}
_CLUSTERS: Final = tuple(_PACKAGES)

Piece = TypeVar("Piece")
Result = TypeVar("Result")


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


def run_pieces(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], workers: int, backend: str
) -> Iterator[Result]:
    """Do many pieces of work in other processes, one piece a task; yields what comes back, in the order in which it comes.

    Parameters
    ----------
    work : callable
        What to do with a piece; it and the pieces can be pickled. A cluster may run a piece again whose worker was lost.
    pieces : sequence
        What to do it with.
    workers : int
        Processes on this machine; clusters have as many workers as they have.
    backend : str
        "loky", "threading", "multiprocessing", "dask", "ray", or another one that is registered with joblib.

    Raises
    ------
    PoseCacheError
        If the backend is not there, a worker dies, or what a worker raised.
    """
    from joblib import Parallel, delayed

    with _backend(backend, workers) as count:
        try:
            parallel = Parallel(count, batch_size=1, return_as="generator_unordered")
        except ValueError:  # this backend tells of results only when it has all of them
            parallel = Parallel(count, batch_size=1)
        # A worker of loky lives longer than a call, and remembers the working directory in which it was started.
        do = delayed(functools.partial(_watched, Path.cwd()) if backend == "loky" else _unwatched)
        results: Any = parallel(do(work, piece) for piece in pieces)
        try:
            yield from results
        finally:
            if not isinstance(results, list):
                results.close()


def _watched(folder: Path, work: Callable[[Piece], Result], piece: Piece) -> Result:
    _end_with_parent()
    os.chdir(folder)
    return work(piece)


def _unwatched(work: Callable[[Piece], Result], piece: Piece) -> Result:
    return work(piece)


def _make_one(job: ShardJob, recipe: Recipe, devices: tuple[str, ...], locks: Path) -> int:
    """Make one shard in a worker; returns its frames."""
    if not job.path.exists():  # a cluster may run a task again whose worker was lost after it had written
        slot, device = _device_of_this_worker(devices, locks)
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


_claims = threading.local()


def _device_of_this_worker(devices: tuple[str, ...], locks: Path) -> tuple[int, str]:
    """Take a device that no other worker of this machine has; the same one on every call, for life."""
    key = (devices, str(locks))
    if getattr(_claims, "key", None) != key:
        _claims.key, _claims.stack = key, ExitStack()
        # More workers than devices: they share.
        _claims.slot = os.getpid() % len(devices)
        for slot in range(len(devices)):
            try:
                _claims.stack.enter_context(held(locks / f"device{slot}-{socket.gethostname()}.lock", devices[slot]))
            except PoseCacheError:
                continue
            _claims.slot = slot
            break
    return _claims.slot, devices[_claims.slot]


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


@contextmanager
def _backend(name: str, devices: int) -> Iterator[int]:
    """Choose a joblib backend; yields how many tasks it is to run at once."""
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with ExitStack() as stack:
        try:
            if name == "dask":
                stack.enter_context(_dask_client())
            elif name == "ray":
                from ray.util.joblib import register_ray

                register_ray()
            stack.enter_context(joblib.parallel_config(backend=name))
        except ImportError as error:
            package = _PACKAGES.get(name, name)
            raise PoseCacheError(f"the backend {name!r} needs a package: pip install '{package}' ({error})") from error
        except ValueError as error:
            raise PoseCacheError(f"the backend {name!r} cannot be used: {error}") from error
        try:
            yield -1 if name in _CLUSTERS else devices
        except TerminatedWorkerError as error:
            raise PoseCacheError(
                "a worker process was killed, perhaps for want of memory: what is finished is kept; start again, with a "
                "smaller batch, or fewer devices or workers"
            ) from error
        finally:
            if name == "loky":
                get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


@contextmanager
def _dask_client() -> Iterator[None]:
    """Use the dask client of this process, or connect to the scheduler that dask's settings name."""
    import dask
    from distributed import Client, get_client

    try:
        get_client()
    except ValueError:
        address = dask.config.get("scheduler-address", None)
        if address is None:
            raise PoseCacheError(
                "no dask cluster: start one (`dask scheduler`, and `dask worker` on each machine) and set "
                "DASK_SCHEDULER_ADDRESS, e.g. to tcp://HOST:8786"
            ) from None
        try:
            client = Client(address, timeout=10, set_as_default=True)
        except OSError as error:
            raise PoseCacheError(f"no dask scheduler answers at {address}: {error}") from error
        with client:
            yield
    else:
        yield


@functools.cache
def _end_with_parent() -> None:
    """End this process when the one that started it is gone, which a killed one cannot see to itself."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()
