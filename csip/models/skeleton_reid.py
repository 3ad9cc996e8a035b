"""Re-identification from skeletons alone: encoders of short windows, and their losses.

Two encoders. `GraphWindows` is the Skeleton Graph Transformer, which stage 1 can pretrain; prototype contrast (GPC) and masked
reconstruction (STPR) train it. `WindowNetwork` is a residual perceptron over all coordinates, bones and bone lengths of a
window: a fixed, short number of frames needs no attention to be looked at as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import SkeletonAugmentation, SkeletonTrainingSettings, WindowNetworkSettings
from csip.models.losses import smoothed_cross_entropy
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.skeleton_motion import across, torso, turn
from pose_cache.joints import JointSet


@dataclass(frozen=True)
class Embedded:
    """What an encoder says of B windows.

    Attributes
    ----------
    window
        (B, E) float32, the descriptors, not normalised.
    frames
        (B, T, E) float32, of single frames; None where the encoder does not know frames apart.
    tokens
        (B, T, J, C), of single joints; likewise.
    """

    window: Tensor
    frames: Tensor | None = None
    tokens: Tensor | None = None


class GraphWindows(nn.Module):
    """The Skeleton Graph Transformer with a projection to descriptors and the heads of reconstruction."""

    def __init__(self, encoder: SkeletonGraphTransformer, embedding: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Linear(encoder.width, embedding)
        self.from_joints = _coordinates(encoder.width)
        self.from_frames = _coordinates(encoder.width)

    def forward(self, joints: Tensor, valid: Tensor | None = None) -> Embedded:
        """Encode windows (B, T, J, 3), root-centred; frames where `valid`, (B, T), is False are not looked at."""
        tokens = self.encoder(joints, valid)
        frames = self.project(tokens[:, :, 0]).float()
        return Embedded(self.project(SkeletonGraphTransformer.pool(tokens, valid)).float(), frames, tokens[:, :, 1:])


def _coordinates(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))


class WindowNetwork(nn.Module):
    """A residual perceptron over everything that a window of `frames` skeletons says."""

    def __init__(self, joints: JointSet, frames: int, embedding: int, settings: WindowNetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        bones = torch.tensor(joints.bones)
        self.register_buffer("bone_starts", bones[:, 0], persistent=False)
        self.register_buffer("bone_ends", bones[:, 1], persistent=False)
        self.register_buffer("pairs", torch.triu_indices(joints.size, joints.size, 1), persistent=False)
        self.bone_starts: Tensor
        self.bone_ends: Tensor
        self.pairs: Tensor
        self.register_buffer("torso", torso(joints), persistent=False)
        self.torso: Tensor
        numbers = frames * self.features(torch.zeros(1, frames, joints.size, 3)).shape[-1]
        width = settings.width
        self.scale = nn.BatchNorm1d(numbers)
        self.embed = nn.Sequential(nn.Linear(numbers, width), nn.Dropout(settings.dropout))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Dropout(settings.dropout),
                nn.Linear(2 * width, width),
                nn.Dropout(settings.dropout),
            )
            for _ in range(settings.depth)
        )
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding))

    def features(self, joints: Tensor) -> Tensor:
        """Return what the settings choose of windows (B, T, J, 3): (B, T, numbers)."""
        chosen = self.settings
        if chosen.face_front:
            joints = self.face_front(joints)
        bones = joints[:, :, self.bone_ends] - joints[:, :, self.bone_starts]
        parts = []
        if chosen.joints:
            parts.append(joints.flatten(2))
        if chosen.bones:
            parts.append(bones.flatten(2))
        if chosen.lengths:
            parts.append(bones.norm(dim=-1))
        if chosen.velocities:
            parts.append(F.pad(joints.diff(dim=1), (0, 0, 0, 0, 0, 1)).flatten(2))
        if chosen.distances:
            parts.append((joints[:, :, self.pairs[0]] - joints[:, :, self.pairs[1]]).norm(dim=-1))
        return torch.cat(parts, dim=2)

    def face_front(self, joints: Tensor) -> Tensor:
        """Turn windows about the vertical until, on average, the line from right to left points along x."""
        return joints @ turn(across(joints.mean(dim=1), self.torso))[:, None]

    def forward(self, joints: Tensor) -> Embedded:
        """Encode windows (B, T, J, 3), root-centred, metres."""
        x = self.embed(self.scale(self.features(joints).flatten(1)))
        for block in self.blocks:
            x = x + block(x)
        return Embedded(self.project(x).float())


class CosineClassifier(nn.Module):
    """One direction for each of N people; cross-entropy on scaled cosines, the right one lowered by a margin."""

    def __init__(self, people: int, settings: SkeletonTrainingSettings) -> None:
        super().__init__()
        self.settings = settings
        self.directions = nn.Parameter(torch.randn(people, settings.embedding) * 0.05)

    def forward(self, windows: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of descriptors (B, E) of people (B,)."""
        chosen = self.settings
        cosines = F.normalize(windows.float(), dim=1) @ F.normalize(self.directions, dim=1).T
        right = F.one_hot(labels, len(self.directions))
        return smoothed_cross_entropy(chosen.temperature * (cosines - chosen.margin * right), labels, chosen.smoothing)


def prototype_contrast(
    embedded: Embedded, prototypes: Tensor, labels: Tensor, settings: SkeletonTrainingSettings
) -> Tensor:
    """Graph prototype contrast (GPC): windows and their frames against each person's centroid.

    ``alpha CE(cos(window, prototypes) / t1) + (1 - alpha) CE(<frame, prototypes> / t2)``

    Parameters
    ----------
    prototypes
        (N, E), the centroids of the people's training windows.
    """
    assert embedded.frames is not None
    cosines = F.normalize(embedded.window, dim=1) @ F.normalize(prototypes, dim=1).T
    sequence = F.cross_entropy(cosines / settings.tau_sequence, labels)
    each = (embedded.frames @ prototypes.T) / settings.tau_frame
    frame = F.cross_entropy(each.flatten(0, 1), labels.repeat_interleave(each.shape[1]))
    return settings.alpha * sequence + (1 - settings.alpha) * frame


def masked_reconstruction(model: GraphWindows, joints: Tensor, settings: SkeletonTrainingSettings) -> Tensor:
    """Structure-trajectory prompted reconstruction (STPR): hide joints, or whole frames, and predict where they are.

    The input is what is masked: hidden joints stand at the root, hidden frames are not attended to. L1 over what was hidden,
    in units of the encoder's scale; ``beta joints + (1 - beta) frames``.

    Parameters
    ----------
    joints
        (B, T, J, 3), root-centred.
    """
    batch, frames, size, _ = joints.shape
    truth = joints / model.encoder.scale
    count = max(round(settings.mask_joints * size), 1)
    hidden = _choose(batch, size, count, joints.device)
    seen = joints.masked_fill(hidden[:, None, :, None], 0.0)
    tokens = model(seen).tokens
    error = (model.from_joints(tokens).float() - truth).abs().mean(dim=3)
    by_joints = _chosen(error.transpose(1, 2), hidden, count).mean()
    if settings.mask_frames == 0:
        return by_joints
    gone = _choose(batch, frames, settings.mask_frames, joints.device)
    tokens = model(joints, ~gone).tokens
    error = (model.from_frames(tokens).float() - truth).abs().mean(dim=(2, 3))
    by_frames = _chosen(error, gone, settings.mask_frames).mean()
    return settings.beta * by_joints + (1 - settings.beta) * by_frames


def _choose(rows: int, size: int, count: int, device: torch.device) -> Tensor:
    """Return (rows, size) bool, `count` True in each row."""
    return torch.rand(rows, size, device=device).argsort(dim=1) < count


def _chosen(values: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return ``values[mask]``, where `mask` (rows, size) has `count` True in each row, without waiting for the device."""
    columns = (~mask).int().argsort(dim=1, stable=True)[:, :count]
    return values[torch.arange(len(values), device=values.device)[:, None], columns].flatten(0, 1)


def augment(joints: Tensor, joint_set: JointSet, settings: SkeletonAugmentation) -> Tensor:
    """Change windows (B, T, J, 3), root-centred metres, by chance; they come back root-centred."""
    batch, frames, size, _ = joints.shape
    device = joints.device
    if settings.mirror:
        swapped = torch.stack([joints[:, :, joint] for joint in joint_set.mirror_order.tolist()], dim=2)
        swapped = torch.cat((-swapped[..., :1], swapped[..., 1:]), dim=-1)
        chosen = torch.rand(batch, device=device) < settings.mirror
        joints = torch.where(chosen[:, None, None, None], swapped, joints)
    if settings.rotation:
        angle = (torch.rand(batch, device=device) * 2 - 1) * math.radians(settings.rotation)
        joints = joints @ turn(angle)[:, None]
    if settings.scale:
        joints = joints * (1 + settings.scale * torch.randn(batch, 1, 1, 1, device=device))
    joints = joints + settings.noise * torch.randn(batch, 1, size, 3, device=device)
    joints = joints + settings.jitter * torch.randn(batch, frames, size, 3, device=device)
    return joints - joints[:, :, joint_set.root : joint_set.root + 1]


def bone_lengths(joints: Tensor, joint_set: JointSet) -> Tensor:
    """Return the mean bone lengths of windows (B, T, J, 3): (B, bones), metres. What anybody can do without training."""
    bones = torch.tensor(joint_set.bones, device=joints.device)
    return (joints[:, :, bones[:, 1]] - joints[:, :, bones[:, 0]]).norm(dim=-1).mean(dim=1)
