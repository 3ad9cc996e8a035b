"""The plan of an extraction: its shards, a share of them, and the finished tracklets."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pose_cache.errors import PoseCacheError
from pose_cache.images import has_changed
from pose_cache.merge import Piece
from pose_cache.sources import FrameKind
from pose_cache.store import SkeletonStore

# Clocks of file servers differ; a frame modified this shortly before a cache was begun is looked at again.
_CLOCK_SECONDS: Final = 2.0
# Threads that ask for the sizes of files: over a network it is waiting, not work.
_STAT_THREADS: Final = 8


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


class Finished(NamedTuple):
    """Where the skeletons of a tracklet are: a cache file and the row of its table."""

    path: Path
    row: int


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


def check_sequences(sequences: Sequence[FrameSequence], root: Path) -> None:
    """Refuse sequences that cannot be right.

    Raises
    ------
    PoseCacheError
        If there are none, one is empty, a name comes twice, or all frames are missing.
    """
    if not sequences:
        raise PoseCacheError(f"no tracklets to extract skeletons of in {root}")
    if empty := [one.name for one in sequences if not one.frames]:
        raise PoseCacheError(f"tracklet {empty[0]!r} has no frames")
    seen: set[str] = set()
    for sequence in sequences:
        if sequence.name in seen:
            raise PoseCacheError(f"the tracklet {sequence.name!r} comes twice; names must be unique in a dataset")
        seen.add(sequence.name)
    if not any(os.path.isfile(f"{root}/{frame}") for one in sequences for frame in one.frames):  # noqa: PTH113
        raise PoseCacheError(
            f"none of the {sum(len(one.frames) for one in sequences)} frames is there: the first would be "
            f"{root / sequences[0].frames[0]}. Is the dataset's root right?"
        )


def find_finished(
    shards: Sequence[Path], cache: Path | None, sequences: Iterable[FrameSequence], digest: str, root: Path
) -> dict[str, Finished]:
    """Find tracklets that are finished: by the same estimator, of the same unchanged frames, with the right checksum.

    Parameters
    ----------
    shards : sequence of Path
        Files to look into; the first that has a tracklet counts. Those that are damaged anywhere have none, so that such
        a shard is made again whole.
    cache : Path or None
        A finished cache, looked into last, tracklet by tracklet.
    sequences : iterable of FrameSequence
        The tracklets that are wanted.
    digest : str
        The estimator's.
    root : Path
        Folder of the frames.

    Returns
    -------
    dict
        By the names of the finished tracklets.
    """
    wanted = {one.name: one for one in sequences}
    found: dict[str, Finished] = {}
    for path in [*shards, *([cache] if cache is not None else [])]:
        try:
            store = SkeletonStore(path)
        except PoseCacheError:
            continue
        if store.provenance.details.get("digest") != digest:
            continue
        mine = {name: row for row, name in enumerate(store.names) if name in wanted and name not in found}
        intact = {name for name, row in mine.items() if store.is_intact(row)}
        if path != cache and len(intact) < len(mine):
            continue
        healthy = [name for name in mine if name in intact and store.frames(name) == wanted[name].frames]
        changed = changed_tracklets(store, healthy, root)
        found.update((name, Finished(path, mine[name])) for name in healthy if name not in changed)
    return found


def changed_tracklets(store: SkeletonStore, names: Sequence[str], root: Path) -> set[str]:
    """Name the tracklets of which a frame's file is another one now than was read (`pose_cache.images.has_changed`)."""
    since = store.created.timestamp() - _CLOCK_SECONDS

    def changed(name: str) -> bool:
        sources = store.sources(name).tolist()
        if all(kind == FrameKind.UNKNOWN for _, _, kind in sources):
            return False
        for frame, (size, crc, kind) in zip(store.frames(name), sources, strict=True):
            if has_changed(f"{root}/{frame}", size, crc, kind, since):
                return True
        return False

    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        return {name for name, is_changed in zip(names, pool.map(changed, names), strict=True) if is_changed}


def pieces_of(sequences: Sequence[FrameSequence], finished: Mapping[str, Finished]) -> list[Piece]:
    """Return where the sequences are, neighbours in one file as one piece."""
    pieces: list[Piece] = []
    for sequence in sequences:
        path, row = finished[sequence.name]
        if pieces and (pieces[-1].path, pieces[-1].stop) == (path, row):
            pieces[-1] = pieces[-1]._replace(stop=row + 1)
        else:
            pieces.append(Piece(path, row, row + 1))
    return pieces
