"""What a data set's pictures hold: so that nothing made of them outlives them under the same names.

A frame is known by the size of its file and the CRC-32 of its bytes, as in the skeleton cache, and by the version of the decoder
(`pose_cache.images.DECODING`). Reading all files takes as long as the disk; what was read is therefore kept in
``.csip-index/content.npz`` beside the data set with the files' times of modification and of change, and only files that are new,
or whose size or times have changed since, are read again. The file can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from csip.data.dataset import Tracklet
from csip.data.index import FOLDER
from csip.files import atomic
from pose_cache.images import decoding_mark, read_source

KEPT: Final = "content.npz"
# Clocks of file systems are coarse: a file changed this shortly before it was read may have changed after.
_COARSE_NS: Final = 2_000_000_000
_THREADS: Final = 8
_CHUNK: Final = 256
# `changed` is the time of the file's entry, which a copy that keeps the time of modification cannot keep.
_TYPE: Final = np.dtype([("size", "<i8"), ("time", "<i8"), ("changed", "<i8"), ("crc", "<u4")])


def content_of(root: Path, tracklets: Sequence[Tracklet]) -> str:
    """Digest of the frames' files of tracklets, in their order: equal where the pictures are, whatever their times.

    Parameters
    ----------
    root
        Folder of the data set.
    tracklets
        Whose frames count; a frame that is missing counts as such.
    """
    return hashlib.sha256(contents_of(root, tracklets).tobytes()).hexdigest()[:16]


def contents_of(root: Path, tracklets: Sequence[Tracklet]) -> np.ndarray:
    """Digest of each tracklet's files, (tracklets,) uint64; parameters as of `content_of`."""
    frames = [frame for tracklet in tracklets for frame in tracklet.frames]
    path = root / FOLDER / KEPT
    names, kept = _load(path)
    place = {name: row for row, name in enumerate(names)}
    before = np.zeros(len(frames), _TYPE)
    before["time"] = -1
    rows = np.array([place.get(frame, -1) for frame in frames], np.int64)
    before[rows >= 0] = kept[rows[rows >= 0]]

    def look(start: int) -> np.ndarray:
        return _look(root, frames[start : start + _CHUNK], before[start : start + _CHUNK])

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = list(pool.map(look, range(0, len(frames), _CHUNK)))
    now = np.concatenate(parts) if parts else before
    if not np.array_equal(now, before):
        _save(path, dict(zip(names, kept, strict=True)) | dict(zip(frames, now, strict=True)))
    known = np.stack([now["size"], now["crc"].astype(np.int64)], axis=1).astype("<i8")
    ends = np.cumsum([len(tracklet.frames) for tracklet in tracklets]).tolist()
    mark = decoding_mark()
    digests = [
        hashlib.blake2b(mark + known[start:end].tobytes(), digest_size=8).digest()
        for start, end in zip([0, *ends[:-1]], ends, strict=False)
    ]
    return np.frombuffer(b"".join(digests), "<u8")


def _look(root: Path, frames: Sequence[str], before: np.ndarray) -> np.ndarray:
    """Return what the files are now; those whose size and time are as before are not read."""
    now = before.copy()
    newest = time.time_ns() - _COARSE_NS
    for row, frame in enumerate(frames):
        path = f"{root}/{frame}"
        try:
            found = os.stat(path)  # noqa: PTH116  (asked of millions)
        except OSError:
            now[row] = (-1, -1, -1, 0)
            continue
        times = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if times == (before[row]["size"], before[row]["time"], before[row]["changed"]):
            continue
        source = read_source(path)
        # A time of -1 is never met again: the file is read once more next time.
        time_kept = found.st_mtime_ns if found.st_mtime_ns < newest else -1
        now[row] = (source.size, time_kept, found.st_ctime_ns, source.crc)
    return now


def _load(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays["names"].tobytes().decode(errors="surrogateescape").split("\0")
            files = arrays["files"]
        if files.dtype == _TYPE and len(files) == len(names):
            return names, files
    except Exception:  # missing or damaged: all files are read
        pass
    return [], np.zeros(0, _TYPE)


def _save(path: Path, known: dict[str, np.ndarray]) -> None:
    """Keep what is known, where that can be written."""
    if not path.parent.parent.is_dir():  # a data set that is gone is not begun anew
        return
    names = np.frombuffer("\0".join(known).encode(errors="surrogateescape"), np.uint8)
    files = np.array(list(known.values()), _TYPE)
    with contextlib.suppress(OSError), atomic(path, path.with_name(f".{path.stem}.{os.getpid()}.tmp.npz")) as temporary:
        np.savez(temporary, names=names, files=files)
