"""Initial prototypes of stage 2: one per identity and modality, averaged over its training tracklets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from csip.config import Settings
from csip.data.dataset import Tracklet
from csip.errors import CsipError
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.runtime import share
from csip.training.frame_features import embed_frames


def prototypes(features: np.ndarray, labels: np.ndarray, settings: Settings) -> Tensor:
    """Average tracklet features (M, C) by identity.

    Where stage 1 compares directions (``stage1.normalize``), tracklets are averaged as directions and so are the
    prototypes: images and skeletons then weigh the same in the fusion.

    Returns
    -------
    Tensor, shape (N, C)
        Row = label.

    Raises
    ------
    CsipError
        A label between 0 and the largest has no tracklet.
    """
    count = np.bincount(labels)
    if (count == 0).any():
        raise CsipError(f"no tracklet for label {int(np.argmin(count))}: every identity needs a prototype")
    tracklets = torch.from_numpy(features).float()
    if settings.stage1.normalize:
        tracklets = nn.functional.normalize(tracklets, dim=1)
    sums = torch.zeros(len(count), features.shape[1]).index_add_(0, torch.from_numpy(labels), tracklets)
    means = sums / torch.from_numpy(count).float()[:, None]
    return nn.functional.normalize(means, dim=1) if settings.stage1.normalize else means


def skeleton_prototypes(
    features: np.ndarray, known: np.ndarray, visual: Tensor, labels: np.ndarray, settings: Settings
) -> Tensor:
    """Average the skeleton features (M, C) of the tracklets that have a skeleton, (M,) `known`, by identity.

    An identity without any skeleton gets its image prototype, a row of `visual` (N, C): the fusion then changes nothing. So do
    all identities where ``stage2.prototypes`` is ``images``, a control.

    Returns
    -------
    Tensor, shape (N, C)
        Row = label.
    """
    result = visual.clone()
    if settings.stage2.prototypes == "images":
        return result
    labels_seen, rows = np.unique(labels[known], return_inverse=True)
    result[labels_seen] = prototypes(features[known], rows, settings)
    return result


def nearest(prototypes: Tensor, count: int = 16) -> np.ndarray:
    """Return for each identity the labels of the others whose prototypes (N, C) have the largest cosine, (N, count)."""
    unit = nn.functional.normalize(prototypes, dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return similarity.topk(min(count, len(unit) - 1), dim=1).indices.numpy(force=True)


def refresh_prototypes(
    model: ReIDModel,
    root: Path,
    train: Sequence[Tracklet],
    labels: np.ndarray,
    settings: Settings,
    fabric: Fabric,
    monitor: Monitor,
) -> None:
    """Move the image prototypes towards what the image encoder says now, by ``prototype_momentum``.

    Each process embeds its share of the tracklets.
    """
    momentum = settings.stage2.prototype_momentum
    assert momentum is not None

    def means(mine: Sequence[Tracklet]) -> list[np.ndarray]:
        every_frame = [frame for tracklet in mine for frame in tracklet.frames]
        frames = embed_frames(model.vision, root, every_frame, settings, fabric.device, monitor)
        ends = np.cumsum([len(t.frames) for t in mine])
        return [f.mean(axis=0) for f in np.split(frames, ends[:-1])]

    now = prototypes(np.stack(share(fabric, train, means)), labels, settings).to(fabric.device)
    # Where directions are compared, the updater keeps prototypes at a norm of its own: mix directions.
    before = nn.functional.normalize(model.pfu.visual, dim=1) if settings.stage1.normalize else model.pfu.visual
    visual = momentum * before + (1 - momentum) * now
    model.pfu.set_prototypes(visual, visual if settings.stage2.prototypes == "images" else model.pfu.skeleton)
