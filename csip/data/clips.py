"""From a tracklet on disk to a clip in memory: sampling, decoding and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

import pose_cache.images
from csip.config import ClipSettings
from csip.data.dataset import Tracklet
from csip.data.skeletons import Skeletons
from csip.errors import CsipError
from pose_cache.joints import JointSet, mirror
from pose_cache.sources import FrameKind

# ---- which frames ----------------------------------------------------------------------------------------------------


def chunk_bounds(length: int | np.ndarray, frames: int) -> np.ndarray:
    """Cut ``length`` frames into ``frames`` chunks as equal as can be; chunk t is ``bounds[t]:bounds[t + 1]``.

    Where the tracklet is shorter than the clip, neighbouring chunks share a frame, evenly over the tracklet.

    Returns
    -------
    ndarray, shape (frames, 2)
        First frame and one past the last of each chunk; no chunk is empty. (M, frames, 2) for M lengths.
    """
    edges = np.arange(frames + 1) * np.asarray(length)[..., None] / frames
    starts = np.floor(edges[..., :-1]).astype(np.int64)
    return np.stack([starts, np.maximum(np.floor(edges[..., 1:]).astype(np.int64), starts + 1)], axis=-1)


def sample_restricted(length: int | np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Training: one random frame of each of ``frames`` equal chunks; shape (frames,), or (M, frames) for M lengths."""
    bounds = chunk_bounds(length, frames)
    return rng.integers(bounds[..., 0], bounds[..., 1])


def sample_strided(length: int | np.ndarray, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Training with a fixed step: frames ``stride`` apart from a random start; shape (frames,), or (M, frames) for M lengths.

    Where the tracklet ends before the clip does, the frames that there are repeat evenly.
    """
    length = np.asarray(length)
    starts = length - (frames - 1) * stride
    start = rng.integers(np.where(starts > 0, starts, np.minimum(stride, length)))
    count = np.minimum(-(-(length - start) // stride), frames)
    return start[..., None] + stride * chunk_bounds(count, frames)[..., 0]


def sample_training(length: int | np.ndarray, frames: int, stride: int | None, rng: np.random.Generator) -> np.ndarray:
    """Draw a training clip: with a fixed step, or spread over the tracklet where ``stride`` is None."""
    return sample_restricted(length, frames, rng) if stride is None else sample_strided(length, frames, stride, rng)


def sample_centres(length: int, frames: int, stride: int | None = None) -> np.ndarray:
    """Test, ``rrs``: the centre frame of each chunk, or with a fixed step the middle of the tracklet; shape (1, frames)."""
    if stride is None:
        bounds = chunk_bounds(length, frames)
        return ((bounds[:, 0] + bounds[:, 1] - 1) // 2)[None]
    count = min(-(-length // stride), frames)
    start = (length - 1 - (count - 1) * stride) // 2
    return (start + stride * chunk_bounds(count, frames)[:, 0])[None]


def sample_dense(length: int, frames: int, stride: int = 1) -> np.ndarray:
    """Test, every frame once, in clips of frames that are ``stride`` apart.

    With a stride above 1 the clips interleave: first those of frames 0, ``stride``, ..., then those that start with frame 1.
    The last clip of each such row repeats its frames evenly.

    Returns
    -------
    ndarray, shape (clips, frames)
    """
    clips = []
    for first in range(min(stride, length)):
        row = np.arange(first, length, stride)
        for start in range(0, len(row), frames):
            left = min(frames, len(row) - start)
            clips.append(row[start + chunk_bounds(left, frames)[:, 0]])
    return np.stack(clips)


# ---- pixels ----------------------------------------------------------------------------------------------------------


def read_frame(path: Path, height: int, width: int) -> np.ndarray:
    """Decode one crop and resize it (bilinear).

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        RGB.

    Raises
    ------
    CsipError
        The file is missing or no image can be decoded from it.
    """
    image, source = pose_cache.images.load_frame(path)
    if image is None:
        what = f"not an image that can be decoded ({source.size} bytes): {source.kind.label}"
        missing = source.kind is FrameKind.MISSING
        raise CsipError(f"{path}: {'no such frame' if missing else what}; replace it or take it out of the data set")
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_frames(root: Path, frames: Sequence[str], settings: ClipSettings) -> np.ndarray:
    """Decode frames; shape (T, 3, height, width), uint8, RGB."""
    images = np.stack([read_frame(root / f, settings.height, settings.width) for f in frames])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def normalize(images: Tensor, settings: ClipSettings) -> Tensor:
    """Turn uint8 RGB (..., 3, H, W) into float32 with the encoder's mean and standard deviation."""
    mean = torch.tensor(settings.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(settings.std, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def augment(
    images: np.ndarray, joints: np.ndarray, joint_set: JointSet, settings: ClipSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Vary a clip: one flip and one crop for all frames, one erased rectangle a frame.

    Parameters
    ----------
    images : (T, 3, H, W) uint8
    joints : (T, J, 3) float32, camera axes; mirrored with the images

    Returns
    -------
    images, joints
        Of the same shapes.
    """
    height, width = images.shape[2:]
    if rng.random() < settings.flip:
        images, joints = images[..., ::-1], mirror(joints, joint_set)
    if settings.pad:
        pad = settings.pad
        top, left = rng.integers(0, 2 * pad + 1, size=2)
        padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        images = padded[:, :, top : top + height, left : left + width]
    images = images.copy()
    fill = np.round(np.asarray(settings.mean) * 255).astype(np.uint8)[:, None, None]
    for frame in images:
        if rng.random() < settings.erase:
            area, ratio = rng.uniform(0.02, 0.4) * height * width, np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
            h, w = min(round(np.sqrt(area * ratio)), height), min(round(np.sqrt(area / ratio)), width)
            top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            frame[:, top : top + h, left : left + w] = fill
    return images, joints


# ---- what the training loops draw from -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """One clip to make: which tracklet, and the seed of everything random about it.

    The seed travels with the request, so a clip is the same whichever worker makes it and whenever.
    """

    tracklet: int
    seed: int


class TrainingClips(TorchDataset):
    """Augmented clips with their skeletons; indexed by `Draw`.

    Items are dictionaries of ``images`` (T, 3, H, W) uint8, ``joints`` (T, J, 3) float32 root-centred, ``valid`` (T,)
    bool, ``label`` and ``camera`` (0-based).
    """

    def __init__(
        self,
        root: Path,
        tracklets: Sequence[Tracklet],
        skeletons: Skeletons,
        labels: dict[int, int],
        cameras: dict[int, int],
        settings: ClipSettings,
    ) -> None:
        self.root, self.tracklets, self.skeletons = root, tracklets, skeletons
        self.labels, self.cameras, self.settings = labels, cameras, settings

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = np.random.default_rng(draw.seed)
        tracklet = self.tracklets[draw.tracklet]
        chosen = sample_training(len(tracklet.frames), self.settings.frames, self.settings.stride, rng)
        images = read_frames(self.root, [tracklet.frames[i] for i in chosen], self.settings)
        joints, valid = self.skeletons.clip(draw.tracklet, chosen)
        images, joints = augment(images, joints, self.skeletons.joint_set, self.settings, rng)
        return {
            "images": torch.from_numpy(images),
            "joints": torch.from_numpy(np.ascontiguousarray(joints)),
            "valid": torch.from_numpy(valid),
            "label": torch.tensor(self.labels[tracklet.pid]),
            "camera": torch.tensor(self.cameras[tracklet.camera]),
        }


class FrameChunks(TorchDataset):
    """Frames, decoded, in chunks that a loader hands on as they are; nothing random.

    Items are ``(start, images)``: the number of the chunk's first frame, and (n, 3, H, W) uint8.
    """

    def __init__(self, root: Path, frames: Sequence[str], settings: ClipSettings, chunk: int) -> None:
        self.root, self.frames, self.settings, self.chunk = root, frames, settings, chunk

    def __len__(self) -> int:
        return -(-len(self.frames) // self.chunk)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        start = index * self.chunk
        frames = self.frames[start : start + self.chunk]
        return start, torch.from_numpy(read_frames(self.root, frames, self.settings))
