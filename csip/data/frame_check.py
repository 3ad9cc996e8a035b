"""Whether the frames of a data set can be decoded: by one process, or by many in parts (see `pose_cache.parts`)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from csip.data.dataset import Tracklet
from csip.data.index import FOLDER
from csip.monitor import Monitor
from pose_cache.images import decoding_mark, load_frame
from pose_cache.parts import Part, PartsFolder, Work, joined_rows, read_rows
from pose_cache.pieces import Spread
from pose_cache.sources import FrameKind

CHUNK: Final = 1024  # frames of a part
_FOUND: Final = np.dtype([("kind", "u1"), ("height", "<i4"), ("width", "<i4")])
_TASK: Final = "decoding frames"


@dataclass(frozen=True, eq=False)
class DecodedFrames:
    """What became of frames that were decoded.

    Attributes
    ----------
    frames
        Their paths, relative to the data set's folder.
    kinds
        What each file is.
    sizes
        (frames, 2) height and width of the pictures; zeros where there is none.
    """

    frames: Sequence[str]
    kinds: list[FrameKind]
    sizes: np.ndarray

    @property
    def bad(self) -> list[tuple[str, FrameKind]]:
        """The frames that cannot be used."""
        return [
            (frame, kind)
            for frame, kind, height in zip(self.frames, self.kinds, self.sizes[:, 0].tolist(), strict=True)
            if not height or not kind.usable
        ]

    def __str__(self) -> str:
        text = ", ".join(f"{count:,} {kind.label}" for kind, count in Counter(self.kinds).most_common())
        usable = np.array([kind.usable for kind in self.kinds], bool) & (self.sizes[:, 0] > 0)
        if usable.any():
            text += "; " + "; ".join(
                f"{what} {side.min()} to {side.max()}, median {np.median(side):.0f}"
                for what, side in zip(("height", "width"), self.sizes[usable].T, strict=True)
            )
        return text


def frames_of(tracklets: Sequence[Tracklet], count: int | None) -> list[str]:
    """Return the frames of tracklets in order, each once; `count` of them, chosen at random with a fixed seed, if given."""
    frames = sorted({frame for tracklet in tracklets for frame in tracklet.frames})
    if count is None or count >= len(frames):
        return frames
    return [frames[i] for i in sorted(np.random.default_rng(0).choice(len(frames), count, replace=False))]


def decode_frames(root: Path, frames: Sequence[str], threads: int, spread: Spread, monitor: Monitor) -> DecodedFrames:
    """Decode frames, those of a share where there is one.

    Parameters
    ----------
    root
        Folder of the data set. What many processes have finished is kept in ``.csip-index/frames.shards`` there until all is;
        a file that has another size or time by then is decoded again.
    threads
        Of this process, if it does all.

    Raises
    ------
    PoseCacheError
        Somebody else is at work on them, a worker died, or shares that are to be merged are missing.
    """
    if spread == Spread() or not frames:
        return _decoded(frames, np.array(list(_decode_all(root, frames, threads, monitor)), _FOUND))
    folder = PartsFolder(root / FOLDER / "frames.shards", root / FOLDER / "frames")
    pieces = spread.mine([frames[start : start + CHUNK] for start in range(0, len(frames), CHUNK)])
    parts = [Part(folder.path / f"{_key(root, piece)}.npy", piece, len(piece)) for piece in pieces]
    compute = partial(_decode_piece, root)
    work = Work(_TASK, "frames", partial(map, compute), compute)
    with joined_rows(folder, parts, spread, work, monitor) as rows:
        # Of a share, the parts stay.
        found = np.concatenate([np.zeros(0, _FOUND), *(read_rows(parts) if rows is None else rows)])
    return _decoded([frame for piece in pieces for frame in piece], found)


def _decoded(frames: Sequence[str], found: np.ndarray) -> DecodedFrames:
    kinds = [FrameKind(kind) for kind in found["kind"].tolist()]
    return DecodedFrames(frames, kinds, np.stack([found["height"], found["width"]], axis=1))


def _decode_all(root: Path, frames: Sequence[str], threads: int, monitor: Monitor) -> Iterator[tuple[int, int, int]]:
    with ThreadPoolExecutor(threads) as pool:
        for done, found in enumerate(pool.map(partial(_decode, root), frames), start=1):
            yield found
            monitor.progress(_TASK, done, len(frames))


def _decode_piece(root: Path, frames: Sequence[str]) -> np.ndarray:
    return np.array([_decode(root, frame) for frame in frames], _FOUND)


def _decode(root: Path, frame: str) -> tuple[int, int, int]:
    """Return the kind of a frame's file, and height and width of its picture."""
    image, source = load_frame(root / frame)
    height, width = (0, 0) if image is None else image.shape[:2]
    return int(source.kind), height, width


def _key(root: Path, frames: Sequence[str]) -> str:
    """Digest of names, sizes and times of frames' files, and of the decoder's version."""
    digest = hashlib.sha256(decoding_mark())
    for frame in frames:
        try:
            found = os.stat(f"{root}/{frame}")  # noqa: PTH116  (asked of millions)
            known = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        except OSError:
            known = "missing"
        digest.update(f"{frame}\0{known}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]
