"""What the frozen image encoder says of every training frame, computed once.

Stage 1 uses no augmentation and never trains the image encoder, so the feature of a frame is a constant: reading it from
a cache gives the same numbers as computing it in each of the 120 epochs. The cache is an HDF5 file with ``/features``
(N, C) float32, all frames of all tracklets one after another, and the attribute ``key``: a digest of the tracklets, the
encoder's weights and the preprocessing. A cache whose key differs is never used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader

from csip.checkpoints import digest_tensors
from csip.config import Settings
from csip.data.clips import FrameChunks, normalize
from csip.data.tracklets import Tracklet, fingerprint
from csip.models.vision import VisionEncoder
from csip.monitor import Monitor


def frame_features(
    cache: Path,
    vision: VisionEncoder,
    root: Path,
    tracklets: Sequence[Tracklet],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
) -> list[np.ndarray]:
    """Return the projected CLS token of every frame, from the cache where it holds just these.

    Returns
    -------
    list of ndarray, each (T, C) float32
        One array a tracklet, in their order.
    """
    key = _key(vision, tracklets, settings)
    features = _read(cache, key)
    if features is None:
        features = embed_frames(vision, root, tracklets, settings, device, monitor)
        _write(cache, features, key)
    ends = np.cumsum([len(t.frames) for t in tracklets])
    return np.split(features, ends[:-1])


@torch.inference_mode()
def embed_frames(
    vision: VisionEncoder,
    root: Path,
    tracklets: Sequence[Tracklet],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
) -> np.ndarray:
    """Return the projected CLS token of every frame, (N, C) float32, without a camera embedding."""
    chunks = FrameChunks(root, tracklets, settings.clips, settings.runtime.embed_batch)
    loader = DataLoader(chunks, batch_size=None, num_workers=settings.runtime.workers)
    total = len(chunks.frames)
    features = np.empty((total, vision.embed_dim), dtype=np.float32)
    vision = vision.to(device).eval()
    for start, images in loader:
        projected = vision(normalize(images.to(device), settings.clips)).projected
        features[start : start + len(images)] = projected.float().cpu().numpy()
        monitor.progress("embedding frames", start + len(images), total)
    return features


def _key(vision: VisionEncoder, tracklets: Sequence[Tracklet], settings: Settings) -> str:
    clips = settings.clips
    preprocessing = [clips.height, clips.width, clips.mean, clips.std]
    weights = {name: tensor for name, tensor in vision.state_dict().items() if name != "camera_embedding"}
    parts = [fingerprint(tracklets), digest_tensors(weights), preprocessing]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(cache: Path, key: str) -> np.ndarray | None:
    try:
        with h5py.File(cache, "r") as file:
            return file["features"][:] if file.attrs.get("key") == key else None
    except (OSError, KeyError):
        # Missing or damaged: the features are computed anew and the file replaced.
        return None


def _write(cache: Path, features: np.ndarray, key: str) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(f".{cache.name}.tmp")
    with h5py.File(temporary, "w") as file:
        file["features"] = features
        file.attrs["key"] = key
    temporary.replace(cache)
