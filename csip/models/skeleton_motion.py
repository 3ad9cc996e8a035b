"""How a person moves, as numbers that neither the camera nor the heading changes."""

import torch
from torch import Tensor

from pose_cache.joints import JointSet

PERIOD = 64  # frames: frequencies are multiples of 1/64 cycles a frame


def turn(angle: Tensor) -> Tensor:
    """Return (..., 3, 3): ``points @ turn(angle)`` turns the direction (cos, 0, sin) of an angle (...) to (1, 0, 0)."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = torch.stack((cos, zero, -sin, zero, one, zero, sin, zero, cos), dim=-1)
    return rows.unflatten(-1, (3, 3))


def torso(joints: JointSet) -> Tensor:
    """Return the rows (2, 2) of a joint set's left, and right, shoulder and hip."""
    return torch.tensor(
        [[joints.joints.index(f"{side}_{part}") for part in ("shoulder", "hip")] for side in ("left", "right")]
    )


def across(joints: Tensor, torso: Tensor) -> Tensor:
    """Return the angle (...) about the vertical of the line from the right to the left of a torso, joints (..., J, 3)."""
    line = (joints[..., torso[0], :] - joints[..., torso[1], :]).mean(dim=-2)
    return torch.atan2(line[..., 2], line[..., 0])


def face_front(joints: Tensor, torso: Tensor) -> Tensor:
    """Turn each frame of joints (..., J, 3) about the vertical until the line from right to left points along x."""
    return joints @ turn(across(joints, torso))


def spectrum(joints: Tensor, valid: Tensor, frequencies: int) -> Tensor:
    """Return where each coordinate is over a clip, how far it moves about there, and how fast.

    The mean, the standard deviation, and ``A_k = |sum_t w_t (x_t - mean x) exp(-2 pi i k t / 64)| / sum_t w_t`` with a Hann
    window w, k = 1 to `frequencies`. Frames are a step of time apart; those that are not valid weigh nothing.

    Parameters
    ----------
    joints : Tensor
        (B, T, J, D) of D numbers a joint.
    valid : Tensor
        (B, T) bool.
    frequencies : int
        K.

    Returns
    -------
    Tensor
        (B, J, D (2 + K)) float32, in the joints' unit.
    """
    seen = valid.float()[:, :, None, None]
    count = seen.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (joints.float() * seen).sum(dim=1, keepdim=True) / count
    moved = (joints.float() - mean) * seen
    spread = torch.linalg.vector_norm(moved, dim=1, keepdim=True) / count.sqrt()  # has a gradient where nothing moves
    time = torch.arange(joints.shape[1], device=joints.device)
    window = torch.sin(torch.pi * (time + 0.5) / joints.shape[1]).square()[:, None, None] * seen
    phase = 2 * torch.pi / PERIOD * time * torch.arange(1, frequencies + 1, device=joints.device)[:, None]
    waves = torch.stack((phase.cos(), phase.sin()))
    amplitude = torch.linalg.vector_norm(torch.einsum("akt,btjc->abkjc", waves, window * moved), dim=0)
    amplitude = amplitude / window.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return torch.cat((mean, spread, amplitude), dim=1).permute(0, 2, 1, 3).flatten(2)
