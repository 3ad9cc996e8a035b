"""The clips of stage 1: frames' image features and skeletons in memory, and the batches that an epoch draws from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from csip.config import Settings
from csip.data.clips import sample_training
from csip.data.dataset import Tracklet, relabel
from csip.data.samplers import IdentityBatches
from csip.data.skeletons import Skeletons
from csip.runtime import to_device
from csip.training.prototypes import nearest, prototypes

CLIPS_EACH = 4  # of an identity in a batch of identities that look alike


@dataclass(frozen=True)
class TrainingArrays:
    """All frames of M training tracklets, one after another, in memory: on the device where they fit.

    Attributes
    ----------
    features, joints, valid
        (N, C) image features, (N, J, 3) root-centred joints and (N,) whether a frame has them.
    usable
        (N,) the same as `valid`, in the processor's memory.
    starts, lengths, labels
        (M,) each tracklet's first frame, its frames and its identity.
    cameras
        (M,) each tracklet's camera.
    alike
        (N, k) labels of the identities that look most alike, where ``stage1.batches`` asks for them.
    """

    features: Tensor
    joints: Tensor
    valid: Tensor
    usable: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    cameras: np.ndarray
    alike: np.ndarray | None = None

    @staticmethod
    def of(
        train: Sequence[Tracklet],
        features: Sequence[np.ndarray],
        skeletons: Skeletons,
        settings: Settings,
        device: torch.device,
    ) -> TrainingArrays:
        """Join the arrays of the tracklets."""
        lengths = np.array([len(t.frames) for t in train])
        people = relabel(train)
        labels = np.array([people[t.pid] for t in train])
        alike = None
        if settings.stage1.batches == "alike":
            alike = nearest(prototypes(np.stack([f.mean(axis=0) for f in features]), labels, settings))
        usable = np.concatenate(skeletons.valid)
        whole = [torch.from_numpy(np.concatenate(parts)) for parts in (features, skeletons.joints)]
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            home = device if sum(array.nbytes for array in whole) < free / 2 else torch.device("cpu")
        else:
            home = device
        images, joints = (array.to(home) for array in whole)
        return TrainingArrays(
            images,
            joints,
            torch.from_numpy(usable).to(home),
            usable,
            np.cumsum(lengths) - lengths,
            lengths,
            labels,
            np.array([t.camera for t in train]),
            alike,
        )

    def draw(self, settings: Settings, epoch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Draw an epoch: ``clips_per_tracklet`` random clips of each tracklet that has a skeleton, in batches.

        A clip that would be alone in the last batch joins the one before. A camera with a single clip has none to contrast it
        with, and it is left out where batches are of one camera; `alone` tells which.

        Yields
        ------
        rows : ndarray
            (B, T) frames of each clip, each clip with at least one skeleton.
        labels : Tensor
            (B,) int64.
        """
        rng = np.random.default_rng((settings.runtime.seed, epoch))
        if settings.stage1.batches == "alike":
            yield from self._draw_alike(settings, epoch, rng)
            return
        known = self._known()
        order = rng.permutation(np.repeat(known, settings.stage1.clips_per_tracklet))
        rows, order = self._clips(order, settings, rng)
        groups = [np.arange(len(order))]
        if settings.stage1.batches == "camera":
            groups = [np.flatnonzero(self.cameras[order] == camera) for camera in np.unique(self.cameras[order])]
        size = settings.stage1.batch
        parts = [part for group in groups for part in _batches(group, size)]
        for index in rng.permutation(len(parts)):
            part = parts[index]
            if len(part) > 1:
                yield rows[part], torch.from_numpy(self.labels[order[part]])

    def _draw_alike(
        self, settings: Settings, epoch: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """As `draw`, in batches of `CLIPS_EACH` clips of each identity, identities that look alike together."""
        known, rounds = self._known(), settings.stage1.clips_per_tracklet
        identities = max(settings.stage1.batch // CLIPS_EACH, 2)
        sampler = IdentityBatches(
            self.labels[known].tolist(), identities, CLIPS_EACH, settings.runtime.seed, neighbours=self.alike
        )
        for turn in range(rounds):
            sampler.set_epoch(epoch * rounds + turn)
            for batch in sampler:
                rows, order = self._clips(known[[draw.tracklet for draw in batch]], settings, rng)
                if len(order) > 1:
                    yield rows, torch.from_numpy(self.labels[order])

    def _clips(self, order: np.ndarray, settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a clip of each of the tracklets (B,); return the frames (B', T) and tracklets of those with a skeleton."""
        rows = self.starts[order][:, None] + sample_training(
            self.lengths[order], settings.clips.frames, settings.clips.stride, rng
        )
        seen = self.usable[rows].any(axis=1)
        return rows[seen], order[seen]

    def _known(self) -> np.ndarray:
        """Return the tracklets that have a skeleton."""
        return np.flatnonzero(np.add.reduceat(self.usable, self.starts, dtype=np.int64) > 0)

    def alone(self, settings: Settings) -> list[int]:
        """Return the cameras whose only clip takes part in no batch, where ``stage1.batches`` is ``camera``."""
        if settings.stage1.batches != "camera" or settings.stage1.clips_per_tracklet > 1:
            return []
        cameras, counts = np.unique(self.cameras[self._known()], return_counts=True)
        return [int(camera) for camera in cameras[counts == 1]]

    def read(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return image features (B, C), averaged over the clip, joints (B, T, J, 3) and valid (B, T) of rows (B, T)."""
        index = to_device(torch.from_numpy(rows), self.features.device)
        drawn = self.features[index].mean(dim=1), self.joints[index], self.valid[index]
        image, joints, valid = (part if part.device == device else to_device(part, device) for part in drawn)
        return image, joints, valid


def _batches(group: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut clips into batches; what would be a last batch of one joins the one before it."""
    parts = [group[start : start + size] for start in range(0, len(group), size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts
