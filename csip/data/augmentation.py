"""How training varies a clip: drawn once, and applied by a worker to a clip or by a GPU to a batch, to the same pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from csip.config import ClipSettings
from pose_cache.joints import JointSet, mirror


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
                area, ratio = rng.uniform(0.02, 0.4) * height * width, np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
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

    def joints(self, joints: np.ndarray, joint_set: JointSet) -> np.ndarray:
        """Return the joints (T, J, 3) of the changed frames, camera axes."""
        return mirror(joints, joint_set) if self.flip else joints

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
