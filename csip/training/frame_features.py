"""The feature cache of stage 1: image features of every training frame, computed once.

Stage 1 uses no augmentation and never trains the image encoder, so the feature of a frame is a constant: reading it from
a cache gives the same numbers as computing it in each of the 120 epochs. The cache is an HDF5 file with ``/features``
(N, C) float32, all frames of all tracklets one after another, and the attribute ``key``: a digest of the tracklets, the
encoder's weights and the preprocessing. A cache whose key differs is never used.

The file is made from shards, NAME.shards/KEY-00000.npy and so on, each written whole: an interrupted run resumes with
the shards that it lacks, and several processes each make a share of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from csip.config import Settings
from csip.data.clips import FrameChunks, normalize
from csip.data.content import content_of
from csip.data.dataset import Tracklet, fingerprint
from csip.files import atomic, read_array, write_array
from csip.models.checkpoints import digest_tensors
from csip.models.vision import VisionEncoder
from csip.monitor import Monitor
from csip.runtime import Precision, autocast, loader_options, precision_of, to_device

SHARD = 16_384  # frames: some 30 MB, and what a stopped run can lose at most


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

    Every process of a run calls this together; each computes its share of the shards that are not there yet.

    Returns
    -------
    list of ndarray, each (T, C) float32
        One array a tracklet, in their order.
    """
    key = _key(vision, root, tracklets, settings, precision_of(settings.runtime, fabric.device))
    ends = np.cumsum([len(t.frames) for t in tracklets])
    features = _read(cache, key)
    if features is None:
        shards = [_shard(cache, key, start) for start in range(0, int(ends[-1]), SHARD)]
        frames = [frame for tracklet in tracklets for frame in tracklet.frames]
        for number in range(fabric.global_rank, len(shards), fabric.world_size):
            part = frames[number * SHARD : (number + 1) * SHARD]
            if read_array(shards[number], len(part)) is None:
                task = (
                    "embedding frames" if len(shards) == 1 else f"embedding frames, part {number + 1} of {len(shards)}"
                )
                write_array(shards[number], embed_frames(vision, root, part, settings, fabric.device, monitor, task))
        fabric.barrier()
        if fabric.is_global_zero:
            _write(cache, np.concatenate([np.load(shard) for shard in shards]), key)
            shutil.rmtree(shards[0].parent)
        fabric.barrier()
        features = _read(cache, key)
    assert features is not None, f"{cache} was just written"
    return np.split(features, ends[:-1])


def embed_frames(
    vision: VisionEncoder,
    root: Path,
    frames: Sequence[str],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
    task: str = "embedding frames",
) -> np.ndarray:
    """Return the projected CLS token of every frame, (N, C) float32, without a camera embedding."""
    chunks = FrameChunks(root, frames, settings.clips, settings.runtime.embed_batch)
    loader = DataLoader(chunks, batch_size=None, **loader_options(settings.runtime, device))
    features = np.empty((len(frames), vision.embed_dim), dtype=np.float32)
    vision, precision = vision.to(device).eval(), precision_of(settings.runtime, device)
    for start, images in loader:
        with torch.no_grad(), autocast(precision, device):
            projected = vision(normalize(to_device(images, device), settings.clips)).projected
        features[start : start + len(images)] = projected.float().cpu().numpy()
        monitor.progress(task, start + len(images), len(frames))
    return features


def _key(
    vision: VisionEncoder, root: Path, tracklets: Sequence[Tracklet], settings: Settings, precision: Precision
) -> str:
    clips = settings.clips
    preprocessing = [clips.height, clips.width, clips.mean, clips.std]
    weights = {name: tensor for name, tensor in vision.state_dict().items() if name != "camera_embedding"}
    parts: list[Any] = [
        fingerprint(tracklets), content_of(root, tracklets), digest_tensors(weights), preprocessing
    ]  # fmt: skip
    if precision != "32-true":
        parts.append(precision)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(cache: Path, key: str) -> np.ndarray | None:
    try:
        with h5py.File(cache, "r") as file:
            return file["features"][:] if file.attrs.get("key") == key else None
    except (OSError, KeyError, RuntimeError, TypeError, ValueError):
        # Missing or damaged: the features are computed anew and the file replaced.
        return None


def _shard(cache: Path, key: str, start: int) -> Path:
    return cache.with_name(f"{cache.name}.shards") / f"{key[:16]}-{start // SHARD:05d}.npy"


def _write(cache: Path, features: np.ndarray, key: str) -> None:
    with atomic(cache) as temporary, h5py.File(temporary, "w") as file:
        file["features"] = features
        file.attrs["key"] = key
