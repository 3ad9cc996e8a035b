"""The feature cache of stage 1: image features of every training frame, computed once.

Stage 1 uses no augmentation and never trains the image encoder, so the feature of a frame is a constant: reading it from
a cache gives the same numbers as computing it in each of the 120 epochs. The cache is an HDF5 file with ``/features``
(N, C) float32, all frames of all tracklets one after another, and the attribute ``key``: a digest of the tracklets, the
encoder's weights and the preprocessing. A cache whose key differs is never used.

The file is made in parts, NAME.shards/KEY-00000.npy and so on, see `pose_cache.parts`: an interrupted run resumes with
the parts that it lacks, and several processes each make a share of them. One part is in memory while they are joined, and
the file is mapped when it is read.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from csip.config import Settings
from csip.data.clips import FrameChunks, normalize
from csip.data.content import content_of
from csip.data.dataset import Tracklet, fingerprint
from csip.errors import CsipError
from csip.files import atomic
from csip.models.checkpoints import digest_tensors
from csip.models.vision import VisionEncoder, VisionOutput
from csip.monitor import Monitor, Silent
from csip.retrieval.model import pick_device
from csip.runtime import Precision, autocast, device_of_worker, loader_options, precision_of, share_out, to_device
from pose_cache.errors import PoseCacheError
from pose_cache.hdf5 import map_dataset
from pose_cache.hdf5_checks import check_dataset
from pose_cache.parts import Part, PartsFolder, Work, joined_rows, write_rows
from pose_cache.pieces import Spread, kept_by_worker

SHARD = 16_384  # frames: some 30 MB, and what a stopped run can lose at most

Frames = Sequence[str]


class FeatureCache:
    """The features of the frames of tracklets on the disk.

    Parameters
    ----------
    path
        The file.
    vision
        The encoder.
    root, tracklets
        Folder that frames are relative to, and whose frames are embedded.
    settings
        ``clips`` and ``runtime``.
    device
        Where this process computes.
    """

    def __init__(
        self,
        path: Path,
        vision: VisionEncoder,
        root: Path,
        tracklets: Sequence[Tracklet],
        settings: Settings,
        device: torch.device,
    ) -> None:
        self._path, self._vision, self._root, self._settings, self._device = path, vision, root, settings, device
        self._weights, self._precision = _digest(vision), precision_of(settings.runtime, device)
        self._key = _key(self._weights, root, tracklets, settings, self._precision)
        self._ends = np.cumsum([len(t.frames) for t in tracklets])
        self._folder = PartsFolder(path.with_name(f"{path.name}.shards"), path)
        frames = [frame for tracklet in tracklets for frame in tracklet.frames]
        pieces = [frames[start : start + SHARD] for start in range(0, len(frames), SHARD)]
        self._parts = [
            Part(self._folder.path / f"{self._key[:16]}-{number:05d}.npy", piece, len(piece))
            for number, piece in enumerate(pieces)
        ]

    def read(self) -> list[np.ndarray] | None:
        """Return the features, (T, C) float32 per tracklet, mapped from the file; None where it does not hold just these."""
        features = _read(self._path, self._key)
        if features is None or len(features) != self._ends[-1]:
            return None
        return np.split(features, self._ends[:-1])

    def fill(self, spread: Spread, monitor: Monitor, create: Callable[[], VisionEncoder] | None = None) -> None:
        """Embed what is missing, and write the file, if it is no share that is to be done.

        Parameters
        ----------
        create
            Makes the encoder in other processes, where those do the work; it can be pickled.

        Raises
        ------
        PoseCacheError
            Somebody else is at work on them, a worker died, or shares that are to be merged are missing.
        """
        # A worker may not start processes of its own; other workers compute while this one decodes.
        runtime = self._settings.runtime.model_copy(update={"workers": 0, "precision": self._precision})
        settings = self._settings.model_copy(update={"runtime": runtime})
        elsewhere = _Elsewhere(pickle.dumps(create), self._weights, self._root, settings, self._folder.path)
        work = Work(
            "embedding frames", "frames", partial(self._here, monitor), partial(_embed_there, elsewhere=elsewhere)
        )
        with joined_rows(self._folder, spread.mine(self._parts), spread, work, monitor) as rows:
            if rows is not None:
                _write(self._path, rows, sum(part.rows for part in self._parts), self._key)

    def _here(self, monitor: Monitor, pieces: Sequence[Frames]) -> Iterator[np.ndarray]:
        for piece in pieces:
            number = next(number for number, part in enumerate(self._parts, start=1) if part.piece is piece)
            which = "" if len(self._parts) == 1 else f", part {number} of {len(self._parts)}"
            task = f"embedding frames{which}"
            yield embed_frames(self._vision, self._root, piece, self._settings, self._device, monitor, task)


def frame_features(
    cache: Path,
    vision: VisionEncoder,
    root: Path,
    tracklets: Sequence[Tracklet],
    settings: Settings,
    fabric: Fabric,
    monitor: Monitor,
) -> list[np.ndarray]:
    """Return the projected CLS token of every frame, from the cache where it holds just these.

    Every process of a run calls this together; each computes its share of the parts that are not there yet.

    Returns
    -------
    list of ndarray, each (T, C) float32
        One array a tracklet, in their order.
    """
    kept = FeatureCache(cache, vision, root, tracklets, settings, fabric.device)
    features = kept.read()
    if features is None:
        share_out(fabric, Spread(), lambda spread: kept.fill(spread, monitor))
        features = kept.read()
    assert features is not None, f"{cache} was just written"
    return features


def embed_frames(
    vision: VisionEncoder,
    root: Path,
    frames: Sequence[str],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
    task: str = "embedding frames",
    feature: Callable[[VisionOutput], Tensor] = attrgetter("projected"),
) -> np.ndarray:
    """Return a feature of every frame, (N, C) float32, by default the projected CLS token, without a camera embedding."""
    chunks = FrameChunks(root, frames, settings.clips, settings.runtime.embed_batch)
    loader = DataLoader(chunks, batch_size=None, **loader_options(settings.runtime, device))
    features = np.empty(0, dtype=np.float32)
    vision, precision = vision.to(device).eval(), precision_of(settings.runtime, device)
    for start, images in loader:
        with torch.no_grad(), autocast(precision, device):
            seen = vision(normalize(to_device(images, device), settings.clips))
            found = feature(seen).float().cpu().numpy()
        if not len(features):  # how wide a feature is shows in the first ones
            features = np.empty((len(frames), found.shape[1]), dtype=np.float32)
        features[start : start + len(images)] = found
        monitor.progress(task, start + len(images), len(frames))
    return features


def _key(weights: str, root: Path, tracklets: Sequence[Tracklet], settings: Settings, precision: Precision) -> str:
    clips = settings.clips
    preprocessing = [clips.height, clips.width, clips.mean, clips.std]
    parts: list[Any] = [fingerprint(tracklets), content_of(root, tracklets), weights, preprocessing]
    if precision != "32-true":
        parts.append(precision)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(cache: Path, key: str) -> np.ndarray | None:
    try:
        with h5py.File(cache, "r") as file:
            if file.attrs.get("key") != np.bytes_(key):
                return None
            stored = check_dataset(file, "features", cache, contiguous=True)
            if stored.ndim != 2 or stored.dtype != np.float32:
                return None
            # What an earlier version wrote may not be aligned, as torch wants it.
            return stored[()] if (stored.id.get_offset() or 0) % 4 else map_dataset(cache, stored)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError, PoseCacheError):
        # Missing or damaged: the features are computed anew and the file replaced.
        return None


def _write(cache: Path, blocks: Iterable[np.ndarray], count: int, key: str) -> None:
    # Neither texts of any length, nor a structure without checksums: where they are damaged, the library may loop for ever.
    how = {"libver": "latest", "alignment_threshold": 256, "alignment_interval": 64}
    with atomic(cache) as temporary, h5py.File(temporary, "w", **how) as file:
        write_rows(file, "features", count, blocks)
        file.attrs["key"] = np.bytes_(key)


def _digest(vision: VisionEncoder) -> str:
    return digest_tensors({name: tensor for name, tensor in vision.state_dict().items() if name != "camera_embedding"})


# ---- in another process ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Elsewhere:
    """What another process needs to embed frames.

    Attributes
    ----------
    create
        Makes the encoder, pickled.
    digest
        What the digest of its weights has to be.
    root, settings
        As `FeatureCache` has them.
    locks
        Where workers of one machine share out its GPUs.
    """

    create: bytes
    digest: str
    root: Path
    settings: Settings
    locks: Path


def _embed_there(frames: Frames, elsewhere: _Elsewhere) -> np.ndarray:
    settings = elsewhere.settings
    vision, device = _created(elsewhere.create, elsewhere.digest, settings.runtime.device, elsewhere.locks)
    return embed_frames(vision, elsewhere.root, frames, settings, device, Silent())


@kept_by_worker
def _created(create: bytes, digest: str, device: str, locks: Path) -> tuple[VisionEncoder, torch.device]:
    """Make the encoder of a worker, once, and choose its device."""
    vision: VisionEncoder = pickle.loads(create)()
    if (found := _digest(vision)) != digest:
        raise CsipError(
            f"on {socket.gethostname()} the image encoder's weights have the digest {found}, expected {digest}: "
            "install the same version and the same weights on every machine"
        )
    return vision, device_of_worker(pick_device(device), locks)
