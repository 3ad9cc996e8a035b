"""The result of an extraction: frames counted by outcome."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.files import parse_json, write_json
from pose_cache.merge import Piece
from pose_cache.pieces import Share
from pose_cache.sources import FrameKind
from pose_cache.store import SkeletonStore

_EXAMPLES: Final = 5


@dataclass(frozen=True)
class ExtractSummary:
    """What a call of `extract` or `merge_shards` found and did.

    Attributes
    ----------
    out : Path
        The cache file.
    share : Share or None
        Given if this was one job of several: the counts are those of its share, and `out` is not made yet.
    up_to_date : bool
        `out` was there already, of the same frames and the same estimator; nothing was done.
    tracklets, frames : int
        In the file, or in the share.
    kept_frames : int
        Frames of tracklets that were finished before.
    kinds : dict
        Frames by the kind of their file, plain colour images left out.
    without_pose : int
        Frames that were read, but whose keypoints scored too low.
    examples : tuple of str
        The first few frames without a usable picture, and why.
    seconds : float
        Time this call took.
    """

    out: Path
    share: Share | None
    up_to_date: bool
    tracklets: int
    frames: int
    kept_frames: int
    kinds: dict[FrameKind, int]
    without_pose: int
    examples: tuple[str, ...]
    seconds: float

    @property
    def missing(self) -> int:
        """Frames without a file."""
        return self.kinds.get(FrameKind.MISSING, 0)

    @property
    def unreadable(self) -> int:
        """Frames whose file holds no usable picture."""
        return sum(n for kind, n in self.kinds.items() if not kind.usable and kind != FrameKind.MISSING)

    @property
    def frames_per_second(self) -> float:
        """Frames estimated by this call a second of it."""
        return (self.frames - self.kept_frames) / self.seconds if self.seconds > 0 else 0.0

    def write_record(self, estimator: str, errors: Mapping[str, float]) -> Path:
        """Write the figures beside the cache, as JSON.

        Parameters
        ----------
        estimator : str
            The estimator's name.
        errors : mapping of str to float
            Figures of how good the skeletons are, where that is known.
        """
        record: dict[str, Any] = {
            "estimator": estimator,
            "tracklets": self.tracklets,
            "frames": self.frames,
            "invalid": self.missing + self.unreadable + self.without_pose,
            "images": {kind.label: count for kind, count in self.kinds.items()},
            "frames_per_second": self.frames_per_second,
            "seconds": self.seconds,
            "skeletons": SkeletonStore(self.out).digest,
            **errors,
        }
        path = self.out.with_suffix(".json")
        write_json(path, record, indent=2)
        return path


def read_record(cache: Path) -> dict[str, Any] | None:
    """Read what `ExtractSummary.write_record` wrote beside a cache; None where it is missing, damaged, or of another one."""
    try:
        record = parse_json(cache.with_suffix(".json").read_bytes())
        # Records of earlier versions do not say which skeletons they are of.
        of = record.get("skeletons")
        return record if of is None or not cache.exists() or of == SkeletonStore(cache).digest else None
    except (OSError, ValueError, AttributeError, PoseCacheError):
        return None


def summarize(
    out: Path, share: Share | None, up_to_date: bool, pieces: Sequence[Piece], kept: int | None, started: float
) -> ExtractSummary:
    """Count what is in files: the same whether this call made them or found them; `kept` None stands for all frames."""
    kinds: Counter[FrameKind] = Counter()
    tracklets, frames, without_pose = 0, 0, 0
    examples: list[str] = []
    stores = {path: SkeletonStore(path) for path in dict.fromkeys(piece.path for piece in pieces)}
    for path, first, stop in pieces:
        store = stores[path]
        for name in store.names[first:stop]:
            found, valid = store.sources(name)["kind"], store.valid(name)
            tracklets, frames = tracklets + 1, frames + len(valid)
            if valid.all() and not found.any():
                continue
            usable = (found < FrameKind.MISSING) | (found == FrameKind.UNKNOWN)
            without_pose += int((usable & ~valid).sum())
            kinds.update(FrameKind(kind) for kind in found[found != FrameKind.COLOUR].tolist())
            if len(examples) < _EXAMPLES and not usable.all():
                names = store.frames(name)
                examples += [f"{names[row]} ({FrameKind(found[row]).label})" for row in np.flatnonzero(~usable)]
    ordered: dict[FrameKind, int] = dict(
        sorted((kind, count) for kind, count in kinds.items() if kind != FrameKind.UNKNOWN)
    )
    return ExtractSummary(
        out, share, up_to_date, tracklets, frames, frames if kept is None else kept, ordered, without_pose,
        tuple(examples[:_EXAMPLES]), time.monotonic() - started,
    )  # fmt: skip
