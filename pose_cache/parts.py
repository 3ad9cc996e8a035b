"""What finished pieces of work leave on the disk, until one writer has put it together.

OUT.shards/lock                  held by the one who writes OUT, or shared by the jobs that each do a share
OUT.shards/job-2-of-8.lock       held by a job while it does its share
OUT.shards/job-2-of-8.done       left by a job that has
OUT.shards/KEY.npy               rows of a finished piece: written whole, under a name that tells what they depend on

A run that was killed loses the pieces it was in. The next one keeps every finished one and does the rest.
"""

import io
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import h5py
import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.files import PARTIAL, atomic, own_temporary
from pose_cache.lock import held, holders
from pose_cache.monitor import Monitor
from pose_cache.pieces import Share, Spread

Piece = TypeVar("Piece")


class PartsFolder:
    """The folder of finished pieces, and who is at work in it.

    Parameters
    ----------
    path : Path
        The folder.
    out : Path
        What is put together of them, for messages.
    """

    def __init__(self, path: Path, out: Path) -> None:
        self.path, self.out = path, out

    @contextmanager
    def held(self, share: Share | None) -> Iterator[None]:
        """Be the one who writes, or one of those who each do a share.

        Raises
        ------
        PoseCacheError
            If somebody else is, or the file system has no locks.
        """
        lock = self.path / "lock"
        if share is not None:
            what = f"the share {share} of {self.out}"
            with held(lock, str(self.out), shared=True), held(self._job(share, "lock"), what):
                self._job(share, "done").unlink(missing_ok=True)
                yield
            return
        if jobs := holders(self.path, "job-*.lock"):
            raise PoseCacheError(
                f"{self.out} is being written by {len(jobs)} jobs: {'; '.join(jobs)}. Wait for them, or stop them"
            )
        with held(lock, str(self.out)):
            for left in self.path.glob(f"*{PARTIAL}"):
                left.unlink(missing_ok=True)
            yield

    def finish(self, share: Share) -> None:
        """Note that a share is done."""
        self._job(share, "done").touch()

    def unfinished(self, what: str, verb: str = "run", parameter: str = "shard") -> PoseCacheError:
        """Return the error that says which shares are missing.

        Parameters
        ----------
        what : str
            What is not finished, for the beginning of the message.
        verb, parameter : str
            What is to be done with the shares, and the caller's parameter that says which.
        """
        absent = self.absent()
        if absent is None:
            return PoseCacheError(f"{what}; {verb} the rest without shares")
        shares = ", ".join(map(str, absent)) or "of the jobs whose frames have changed"
        return PoseCacheError(f"{what}; {verb} the shares {shares}", parameter=parameter)

    def absent(self) -> list[Share] | None:
        """Return the shares that are not done; None where there are none at all, or of several divisions."""
        found = [re.fullmatch(r"job-(\d+)-of-(\d+)", path.stem) for path in self.path.glob("job-*.lock")]
        counts = {int(match.group(2)) for match in found if match}
        if len(counts) != 1:
            return None
        (count,) = counts
        shares = [Share(number, count) for number in range(1, count + 1)]
        return [share for share in shares if not self._job(share, "done").exists()]

    def forget_shares(self) -> None:
        """Remove what the jobs of shares have left, when the whole is written."""
        for path in self.path.glob("job-*"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder, the lock last: who waits for it finds the whole finished."""
        if not self.path.exists():
            return
        for path in self.path.iterdir():
            if path.name != "lock":
                path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _job(self, share: Share, ending: str) -> Path:
        return self.path / f"job-{share.index}-of-{share.count}.{ending}"


@dataclass(frozen=True)
class Part(Generic[Piece]):
    """A piece of work and the file of its rows.

    Attributes
    ----------
    path : Path
        The file. Its name tells all that the rows depend on: rows under one name are the same.
    piece
        What the rows are computed from; it can be pickled.
    rows : int
        How many there are.
    """

    path: Path
    piece: Piece
    rows: int

    def exists(self) -> bool:
        """Whether the file is there and whole."""
        return self._load("r") is not None

    def read(self) -> np.ndarray | None:
        """Return the rows; None where the file is missing, damaged, or has another number of them."""
        return self._load(None)

    def _load(self, mapped: Literal["r"] | None) -> np.ndarray | None:
        try:
            rows = np.load(self.path, mapped, allow_pickle=False)
        except Exception:  # NumPy raises whatever it stumbles over, of tokenize's errors, too
            return None
        return rows if isinstance(rows, np.ndarray) and rows.ndim and len(rows) == self.rows else None

    def write(self, rows: np.ndarray) -> None:
        """Write the file, whole or not at all; two who write it at once leave one of their files, which are equal."""
        data = io.BytesIO()  # written to a file, np.save hides that the disk is full
        np.save(data, rows)
        with atomic(self.path, own_temporary(self.path)) as place:
            place.write_bytes(data.getvalue())


@dataclass(frozen=True)
class Work(Generic[Piece]):
    """How rows are computed.

    Attributes
    ----------
    task, unit : str
        What it is called while it goes on, and what a row is of, e.g. "decoding frames" and "frames".
    here : callable
        Yields the rows of pieces in this process, one piece after the other, so that the next can be read meanwhile.
    there : callable
        Returns the rows of one piece in another process; it can be pickled.
    """

    task: str
    unit: str
    here: Callable[[Sequence[Piece]], Iterator[np.ndarray]]
    there: Callable[[Piece], np.ndarray]


@contextmanager
def joined_rows(
    folder: PartsFolder, parts: Sequence[Part[Piece]], spread: Spread, work: Work[Piece], monitor: Monitor
) -> Iterator[Iterator[np.ndarray] | None]:
    """Compute the parts that are missing, and yield the rows of each, to be written by the block; then remove the parts.

    Nobody else writes meanwhile. If the block raises, the parts stay.

    Parameters
    ----------
    folder : PartsFolder
        Where the parts are.
    parts : sequence of Part
        All of them, or those of the share.
    spread : Spread
        Who computes them; of a share, None is yielded and the parts stay.
    work : Work
        How.
    monitor : Monitor
        Hears of the progress, and of what is kept.

    Raises
    ------
    PoseCacheError
        If somebody else is at work on them, a worker dies, or parts that are to be merged are missing.
    """
    with folder.held(spread.share):
        todo = [part for part in parts if not part.exists()]
        total, left = sum(part.rows for part in parts), sum(part.rows for part in todo)
        if todo and spread.merge:
            raise folder.unfinished(f"{folder.path}: {left:,} of {total:,} {work.unit} are not done")
        if 0 < left < total:
            monitor.say(f"{total - left:,} of {total:,} {work.unit} are kept from before")
        _make(todo, spread, work, monitor)
        if spread.share is None:
            yield read_rows(parts)
            folder.remove()
        else:
            folder.finish(spread.share)
            yield None


def write_rows(file: h5py.File, key: str, count: int, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks of rows, (n, D) float32, as one dataset (`count`, D): one block is in memory at a time.

    Raises
    ------
    ValueError
        There are fewer rows than `count`, or more.
    """
    stored: h5py.Dataset | None = None
    start = 0
    for block in blocks:
        if stored is None:
            stored = file.create_dataset(key, (count, block.shape[1]), np.float32)
        if start + len(block) <= count:
            stored[start : start + len(block)] = block
        start += len(block)
    if stored is None or start != count:
        raise ValueError(f"{file.filename}: expected {count} rows of {key}, found {start}")


def read_rows(parts: Sequence[Part[Any]]) -> Iterator[np.ndarray]:
    """Read the rows of parts, which are finished, one part after the other."""
    return (np.load(part.path, allow_pickle=False) for part in parts)


def _make(parts: Sequence[Part[Piece]], spread: Spread, work: Work[Piece], monitor: Monitor) -> None:
    if not parts:
        return
    if spread.alone:
        for part, rows in zip(parts, work.here([part.piece for part in parts]), strict=True):
            part.write(rows)
        return
    done, total = 0, sum(part.rows for part in parts)
    for rows_made in spread.run(partial(_make_there, work.there), parts):
        done += rows_made
        monitor.progress(work.task, done, total)


def _make_there(compute: Callable[[Piece], np.ndarray], part: Part[Piece]) -> int:
    """Make a part in a worker; returns its rows."""
    if not part.exists():  # a cluster may run a piece again whose worker was lost after it had written
        part.write(compute(part.piece))
    return part.rows
