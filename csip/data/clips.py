"""From a tracklet on disk to a clip in memory: sampling, decoding and augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def sample_firsts(length: int, frames: int, stride: int | None = None) -> np.ndarray:
    """Test, ``rrs_first``: the first frame of each chunk, or with a fixed step the tracklet's start; shape (1, frames)."""
    if stride is None:
        return chunk_bounds(length, frames)[:, 0][None]
    return (stride * chunk_bounds(min(-(-length // stride), frames), frames)[:, 0])[None]


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


def batch_pixels(batch: dict[str, Tensor], settings: ClipSettings) -> Tensor:
    """Return the images of a batch of training clips, (B, T, 3, H, W), normalised; what was left for later is changed here."""
    images = change_batch(batch["images"], batch, settings) if "boxes" in batch else batch["images"]
    return normalize(images, settings)


def normalize(images: Tensor, settings: ClipSettings) -> Tensor:
    """Turn uint8 RGB (..., 3, H, W) into float32 with the encoder's mean and standard deviation."""
    # Filled where they are used: a tensor made from a list would be copied there, and wait for the device.
    mean, std = (
        torch.stack([torch.full((1, 1), value, device=images.device) for value in values])
        for values in (settings.mean, settings.std)
    )
    return (images.float() / 255 - mean) / std


# ---- augmentation: drawn once, applied by a worker to a clip or by a GPU to a batch, to the same pixels --------------


@dataclass(frozen=True)
class Changes:
    """What is changed of one clip of T frames.

    Attributes
    ----------
    flip
        Whether its frames are mirrored, left to right.
    shift
        (2,) int64: first row and column of the crop in the padded frames.
    boxes
        (T, 4) int64: top, left, height and width of what is erased; of no size where nothing is.
    """

    flip: bool
    shift: np.ndarray
    boxes: np.ndarray

    @staticmethod
    def draw(images: np.ndarray, settings: ClipSettings, rng: np.random.Generator) -> Changes:
        """Draw the changes of a clip (T, 3, H, W): one flip and one crop for all frames, one erased rectangle per frame."""
        height, width = images.shape[2:]
        flip = bool(rng.random() < settings.flip)
        shift = rng.integers(0, 2 * settings.pad + 1, size=2) if settings.pad else np.zeros(2, np.int64)
        boxes = np.zeros((len(images), 4), np.int64)
        for box in boxes:
            if rng.random() < settings.erase:
                area = rng.uniform(0.02, settings.erase_area) * height * width
                ratio = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
                h, w = min(round(np.sqrt(area * ratio)), height), min(round(np.sqrt(area / ratio)), width)
                box[:] = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
        return Changes(flip, shift, boxes)

    def tensors(self) -> dict[str, Tensor]:
        """Return what `change_batch` needs of a clip; batched by a loader's stacking."""
        return {
            "flip": torch.tensor(self.flip),
            "shift": torch.from_numpy(self.shift),
            "boxes": torch.from_numpy(self.boxes),
        }

    def joints(self, joints: np.ndarray, mirror_order: np.ndarray) -> np.ndarray:
        """Return the joints (T, J, 3) of the changed frames, root-centred, camera axes.

        `mirror_order`, (J,), swaps left and right: `pose_cache.joints.JointSet.mirror_order`.
        """
        return joints[:, mirror_order] * np.array((-1, 1, 1), joints.dtype) if self.flip else joints

    def images(self, images: np.ndarray, settings: ClipSettings) -> np.ndarray:
        """Return the changed frames of (T, 3, H, W) uint8."""
        height, width = images.shape[2:]
        if self.flip:
            images = images[..., ::-1]
        if settings.pad:
            pad, (top, left) = settings.pad, self.shift
            padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
            images = padded[:, :, top : top + height, left : left + width]
        images = images.copy()
        fill = np.array(_fill(settings), np.uint8)[:, None, None]
        for frame, (top, left, h, w) in zip(images, self.boxes, strict=True):
            frame[:, top : top + h, left : left + w] = fill
        return images


def change_batch(images: Tensor, changes: Mapping[str, Tensor], settings: ClipSettings) -> Tensor:
    """Change a batch of clips on its device, as `Changes.images` changes each.

    Parameters
    ----------
    images
        (B, T, 3, H, W) uint8.
    changes
        Of `Changes.tensors`, stacked: ``flip`` (B,), ``shift`` (B, 2), ``boxes`` (B, T, 4).

    Returns
    -------
    Tensor
        Of the same shape.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    y = rows + changes["shift"][:, :1] - settings.pad
    x = columns + changes["shift"][:, 1:] - settings.pad
    outside = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
    x = torch.where(changes["flip"][:, None], width - 1 - x, x)
    source = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    index = source.flatten(1)[:, None, None].expand(*images.shape[:3], -1)
    moved = images.flatten(3).gather(3, index).view_as(images).masked_fill(outside[:, None, None], 0)
    top, left, h, w = (part[..., None, None] for part in changes["boxes"].unbind(dim=-1))
    erased = (rows[:, None] >= top) & (rows[:, None] < top + h) & (columns >= left) & (columns < left + w)
    fill = torch.stack(
        [torch.full((1, 1), value, dtype=torch.uint8, device=images.device) for value in _fill(settings)]
    )
    return torch.where(erased[:, :, None], fill, moved)


def _fill(settings: ClipSettings) -> Sequence[int]:
    """Return the colour of what is erased: the mean of the encoder's pixels."""
    return [int(value) for value in np.round(np.asarray(settings.mean) * 255)]


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
    bool, ``label`` and ``camera`` (0-based). Where `later`, the images are as they were decoded, and what `change_batch`
    changes them by is among the items.
    """

    def __init__(
        self,
        root: Path,
        tracklets: Sequence[Tracklet],
        skeletons: Skeletons,
        labels: dict[int, int],
        cameras: dict[int, int],
        settings: ClipSettings,
        later: bool = False,
    ) -> None:
        self.root, self.tracklets, self.skeletons = root, tracklets, skeletons
        self.labels, self.cameras, self.settings, self.later = labels, cameras, settings, later
        self.mirror_order = skeletons.joint_set.mirror_order

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = np.random.default_rng(draw.seed)
        tracklet = self.tracklets[draw.tracklet]
        chosen = sample_training(len(tracklet.frames), self.settings.frames, self.settings.stride, rng)
        images = read_frames(self.root, [tracklet.frames[i] for i in chosen], self.settings)
        joints, valid = self.skeletons.joints[draw.tracklet][chosen], self.skeletons.valid[draw.tracklet][chosen]
        changes = Changes.draw(images, self.settings, rng)
        joints = changes.joints(joints, self.mirror_order)
        return {
            "images": torch.from_numpy(images if self.later else changes.images(images, self.settings)),
            "joints": torch.from_numpy(np.ascontiguousarray(joints)),
            **(changes.tensors() if self.later else {}),
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
