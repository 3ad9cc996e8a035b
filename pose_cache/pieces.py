"""The engine: work cut into pieces, done by this process, by others of this machine, or by a cluster.

Skeletons, tracklets of videos, descriptors, features of frames and the check of a data set's frames are all made this way.
A piece gives the same whoever does it. What a finished piece leaves, and who puts it together, is in `pose_cache.parts`.
"""

import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pose_cache.errors import PoseCacheError
from pose_cache.lock import held

_PARENT_SECONDS: Final = 1.0
# Until a dask cluster that was started just before has a scheduler, and a worker.
_DASK_SECONDS: Final = 30
# What a backend needs that is not installed with this project.
_PACKAGES: Final = {"dask": "dask[distributed]", "ray": "ray"}
_CLUSTERS: Final = tuple(_PACKAGES)
# A ray worker that was lost is started again, and its piece with it; a dask scheduler does that by itself.
_RAY: Final = {"max_restarts": 3, "max_task_retries": 3}

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Share:
    """The part of one job of several that do a work together: job `index` of `count`, from 1."""

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> "Share":
        """Read "2/8".

        Raises
        ------
        PoseCacheError
            If it is anything else, or the first number is not within 1 and the second.
        """
        parts = text.split("/")
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
            raise PoseCacheError(f'the share {text!r}: expected JOB/JOBS, for example "2/8"')
        index, count = int(parts[0]), int(parts[1])
        if not 1 <= index <= count:
            raise PoseCacheError(f"the share {text!r}: jobs count from 1 to {count}")
        return Share(index, count)

    def of(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return every `count`-th piece, beginning with the `index`-th."""
        return list(pieces[self.index - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Spread:
    """Who does the work.

    Attributes
    ----------
    workers : int
        Processes of this machine, a piece each.
    backend : str, optional
        "loky" if not given, or "threading", "dask", "ray", or another backend that is registered with joblib. A cluster has as
        many workers as it has, and all of its machines see the same folders.
    share : Share, optional
        The pieces that this job does; it joins nothing.
    merge : bool
        Do no piece, and join what the shares have done.

    Raises
    ------
    PoseCacheError
        If there are no workers, or a share is to merge.
    """

    workers: int = 1
    backend: str | None = None
    share: Share | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise PoseCacheError(f"workers: expected at least 1, found {self.workers}")
        if self.merge and self.share is not None:
            raise PoseCacheError(
                f"the share {self.share} and merging: expected one of them; merge when all shares are done",
                parameter="merge",
            )

    @property
    def alone(self) -> bool:
        """Whether this process does the work itself."""
        return self.workers == 1 and self.backend is None

    def mine(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return the pieces of the share; all of them without one."""
        return list(pieces) if self.share is None else self.share.of(pieces)

    def run(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
        """Do pieces in other processes, see `run_pieces`."""
        return run_pieces(work, pieces, self.workers, self.backend or "loky")


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

    parent = os.getpid() if backend == "loky" else None
    do = _here if backend == "threading" else functools.partial(_elsewhere, Path.cwd(), parent)
    with _backend(backend, workers) as count:
        if backend == "dask":
            yield from _on_dask(functools.partial(do, work), pieces)
            return
        try:
            parallel = Parallel(count, batch_size=1, return_as="generator_unordered")
        except ValueError:  # this backend tells of results only when it has all of them
            parallel = Parallel(count, batch_size=1)
        results: Any = parallel(delayed(do)(work, piece) for piece in pieces)
        try:
            yield from results
        finally:
            if not isinstance(results, list):
                results.close()


def _on_dask(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
    """Do pieces by the client that there is: joblib's backend would wait for ever for a piece that kills its workers."""
    from distributed import as_completed, get_client

    client = get_client()
    futures = [client.submit(work, piece, pure=False) for piece in pieces]
    try:
        for future in as_completed(futures):
            yield future.result()
            future.release()
    finally:
        client.cancel(futures)


def _elsewhere(folder: Path, parent: int | None, work: Callable[[Piece], Result], piece: Piece) -> Result:
    if parent is not None and parent != os.getpid():  # joblib does the pieces of a single worker right here
        _end_with(parent)
    with _working_folder.used(folder):
        return work(piece)


def _here(work: Callable[[Piece], Result], piece: Piece) -> Result:
    return work(piece)


class _WorkingFolder:
    """The folder that relative paths start from: the one in which the work was started, whatever the worker's own.

    A process has one: threads of a worker that have work of another folder wait until the others are done.
    """

    def __init__(self) -> None:
        self._changed, self._users = threading.Condition(), 0

    @contextmanager
    def used(self, folder: Path) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._users or Path.cwd() == folder)
            try:
                os.chdir(folder)
            except OSError as error:
                raise PoseCacheError(
                    f"{folder}: expected the folder that the work was started in, found none on {socket.gethostname()} "
                    f"({error.strerror}); all machines of a cluster have to see the same folders"
                ) from error
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()


_working_folder = _WorkingFolder()


_claims = threading.local()


def device_of_this_worker(devices: tuple[str, ...], locks: Path) -> tuple[int, str]:
    """Take a device that no other worker of this machine has; the same one on every call, for life.

    Who starts first takes the first, by locks in a folder, and what a dead worker had is free again.

    Parameters
    ----------
    devices : tuple of str
        Of this machine.
    locks : Path
        The folder.

    Returns
    -------
    tuple of int, str
        The place in `devices`, and the device.
    """
    key = (devices, str(locks))
    if getattr(_claims, "key", None) != key:
        getattr(_claims, "stack", ExitStack()).close()
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


def kept_by_worker(make: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate what makes something large that a worker needs for all its pieces: the last one made is kept.

    Threads wait for each other, so that it is made once, and nothing else draws random numbers meanwhile.
    """
    cached, lock = functools.lru_cache(maxsize=1)(make), threading.Lock()

    @functools.wraps(make)
    def kept(*arguments: Hashable) -> Result:
        with lock:
            return cached(*arguments)

    return kept


@contextmanager
def _backend(name: str, workers: int) -> Iterator[int]:
    """Choose a joblib backend; yields how many tasks it is to run at once."""
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    lost: list[type[Exception]] = [TerminatedWorkerError]
    with ExitStack() as stack:
        try:
            if name == "dask":
                from distributed import KilledWorker

                lost.append(KilledWorker)
                stack.enter_context(_dask_client())
            elif name == "ray":
                from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError
                from ray.util.joblib import register_ray

                lost += [OutOfMemoryError, RayActorError, WorkerCrashedError]
                register_ray()
            if name != "dask":
                options = {"ray_remote_args": _RAY} if name == "ray" else {}
                stack.enter_context(joblib.parallel_config(backend=name, **options))
        except ImportError as error:
            package = _PACKAGES.get(name, name)
            raise PoseCacheError(f"the backend {name!r} needs a package: pip install '{package}' ({error})") from error
        except ValueError as error:
            raise PoseCacheError(f"the backend {name!r} cannot be used: {error}") from error
        try:
            yield -1 if name in _CLUSTERS else workers
        except tuple(lost) as error:
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
            client = Client(address, timeout=_DASK_SECONDS, set_as_default=True)
        except OSError as error:
            raise PoseCacheError(f"no dask scheduler answers at {address}: {error}") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=_DASK_SECONDS)
            except TimeoutError as error:
                raise PoseCacheError(
                    f"the dask scheduler at {address} has no worker after {_DASK_SECONDS} s: start `dask worker {address}`"
                ) from error
            yield
    else:
        yield


@functools.cache
def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, or is gone already: a killed one cannot see to it itself."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()
