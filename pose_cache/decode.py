"""Decoding and warping of frames ahead of the estimator, in threads, into its input arrays.

OpenCV decodes and warps outside Python's global lock, so that threads are as good as processes here and nothing is
copied between them. What is decoded ahead is bounded: memory does not grow with the dataset.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pose_cache.images import load_frame
from pose_cache.sources import SOURCE

# Frames that a thread takes at once: fewer cost more switching than decoding.
_GROUP: Final = 8
# Batches decoded beyond the one that is estimated.
_AHEAD: Final = 2


@dataclass(frozen=True)
class DecodedBatch:
    """Consecutive frames of one shard.

    Attributes
    ----------
    inputs : np.ndarray
        (N, H, W, 3) uint8, as `PoseEstimator.prepare` returns them; zeros where a frame cannot be used.
    sizes : np.ndarray
        (N, 2) int64, width and height of the frames; zeros where a frame cannot be used.
    sources : np.ndarray
        (N,) `pose_cache.sources.SOURCE`.
    """

    inputs: np.ndarray
    sizes: np.ndarray
    sources: np.ndarray


def decode_ahead(
    shards: Iterable[Sequence[str]],
    root: Path,
    prepare: Callable[[np.ndarray], np.ndarray],
    input_shape: tuple[int, int, int],
    batch_size: int,
    threads: int,
) -> Generator[DecodedBatch, None, None]:
    """Decode all frames of all shards, in order, in batches of which none reaches over the end of a shard.

    Parameters
    ----------
    shards : iterable of sequences of str
        Frame paths relative to the root. Asked for one after the other, a little ahead.
    root : Path
        Folder of the frames.
    prepare : callable
        Makes `input_shape` uint8 of a frame (H, W, 3) uint8, BGR; called in threads.
    batch_size : int
        Frames of a batch; the last of a shard may have fewer.
    threads : int
        How many decode.
    """
    ahead = _AHEAD + -(-threads * _GROUP // batch_size)
    waiting: deque[tuple[DecodedBatch, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(max(1, threads), "decode")

    def submit(frames: Sequence[str]) -> None:
        count = len(frames)
        batch = DecodedBatch(
            np.zeros((count, *input_shape), np.uint8), np.zeros((count, 2), np.int64), np.zeros(count, SOURCE)
        )
        starts = range(0, count, _GROUP)
        waiting.append((batch, [pool.submit(_decode, batch, s, frames[s : s + _GROUP], root, prepare) for s in starts]))

    def first() -> DecodedBatch:
        batch, parts = waiting.popleft()
        for part in parts:
            part.result()
        return batch

    try:
        for frames in shards:
            for start in range(0, len(frames), batch_size):
                submit(frames[start : start + batch_size])
                if len(waiting) > ahead:
                    yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(
    batch: DecodedBatch, start: int, frames: Sequence[str], root: Path, prepare: Callable[[np.ndarray], np.ndarray]
) -> None:
    for row, frame in enumerate(frames, start):
        image, source = load_frame(f"{root}/{frame}")
        batch.sources[row] = source
        if image is not None and source.kind.usable:
            batch.inputs[row] = prepare(image)
            batch.sizes[row] = image.shape[1], image.shape[0]
