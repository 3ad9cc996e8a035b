"""Locks for one writer at a time, released by the system when their process ends."""

import datetime
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pose_cache.errors import PoseCacheError


@contextmanager
def held(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs; it is made if need be, its folder with it.

    Parameters
    ----------
    path : Path
        The lock file. It stays: only whether it is locked counts.
    what : str
        What is locked, for the message.
    shared : bool
        Others may hold it, too, if they share it.

    Raises
    ------
    PoseCacheError
        If somebody else holds it (the message says who), or the file system has no locks.
    """
    descriptor = _acquire(path, what, shared)
    try:
        yield
    finally:
        os.close(descriptor)


def holders(folder: Path, pattern: str) -> list[str]:
    """Say who holds the lock files of a folder that are held by one process each."""
    found = []
    for path in sorted(folder.glob(pattern)):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(_owner(descriptor))
        finally:
            os.close(descriptor)
    return found


def _acquire(path: Path, what: str, shared: bool) -> int:
    """Return the descriptor of the locked file; closing it gives the lock back."""
    while True:
        descriptor = _open(path)
        try:
            _flock(descriptor, path, shared)
            # The file may have been removed with its folder by the process that had it.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                # Those who share have no one name; what an earlier owner left would be a wrong one.
                os.ftruncate(descriptor, 0)
                if not shared:
                    os.pwrite(descriptor, _myself().encode(), 0)
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            message = f"{what} is being written by {_owner(descriptor)}: wait for it, or stop it first"
            os.close(descriptor)
            raise PoseCacheError(message) from None
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise PoseCacheError(f"cannot lock {path}: {error}") from error
            raise
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    return os.pread(descriptor, 500, 0).decode(errors="replace") or "other jobs"


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise PoseCacheError(f"cannot write into {path.parent}: {error}") from error


def _flock(descriptor: int, path: Path, shared: bool) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise PoseCacheError(
                f"the file system of {path.parent} has no locks ({error}): write to another one, and move the file"
            ) from error
        raise


def _myself() -> str:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"
