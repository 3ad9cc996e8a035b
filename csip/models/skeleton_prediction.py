"""The skeleton as the images tell it, which stands in for the true one at the test."""

import torch
from torch import Tensor, nn

from csip.models.attention import feed_forward
from csip.models.skeleton_motion import spectrum
from pose_cache.joints import JointSet

HIDDEN, DEPTH, DROPOUT = 512, 2, 0.3


class SkeletonPrediction(nn.Module):
    """Predict the pose of each frame from the image encoder's tokens of it, and tell by the poses of a clip who moves like that.

    A pose is the joints, the distance between any two of them, and how far left and right ones are apart along each axis. Where a
    picture does not tell the left leg from the right, predicted joints stay in the middle between both; how far the feet are
    apart is seen all the same.

    Poses are a linear function of the tokens: what is to be learnt is where the image encoder keeps the pose, not how to
    see one. Until they are fitted, all clips say the same.

    Parameters
    ----------
    inputs : int
        (1 + P) D, numbers in a frame's tokens.
    joints : JointSet
        Of the J joints of a skeleton.
    frequencies, features : int
        Of the :class:`MotionReader`.

    Attributes
    ----------
    weight : Tensor
        () buffer, how much the feature weighs beside another part of a descriptor.
    """

    pairs: Tensor
    sides: Tensor
    weight: Tensor

    def __init__(self, inputs: int, joints: JointSet, frequencies: int, features: int) -> None:
        super().__init__()
        self.register_buffer("pairs", torch.triu_indices(joints.size, joints.size, 1), persistent=False)
        self.register_buffer("sides", torch.tensor(joints.mirror_pairs).T, persistent=False)
        self.register_buffer("weight", torch.ones(()))
        numbers = 3 * joints.size + self.pairs.shape[1] + 3 * self.sides.shape[1]
        self.project = nn.Linear(inputs, numbers)
        nn.init.zeros_(self.project.weight)
        self.reader = MotionReader(numbers, frequencies, features)

    def describe(self, joints: Tensor) -> Tensor:
        """Return the poses (..., P), in metres, of joints (..., J, 3): coordinates, distances, and what is between the sides."""
        (first, second), (left, right) = self.pairs, self.sides
        distances = torch.linalg.vector_norm(joints[..., first, :] - joints[..., second, :], dim=-1)
        between = (joints[..., left, :] - joints[..., right, :]).abs()
        return torch.cat((joints.flatten(-2), distances, between.flatten(-2)), dim=-1)

    def poses(self, tokens: Tensor) -> Tensor:
        """Return the poses (..., P), float32, of tokens (..., 1 + P, D)."""
        return self.project(tokens.flatten(-2)).float()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what the reader says of clips, (B, features), float32, from their tokens (B, T, 1 + P, D)."""
        return self.reader(self.poses(tokens))


class MotionReader(nn.Module):
    """A residual perceptron on where each number of the poses is over a clip, how far it moves about there, and how fast.

    Parameters
    ----------
    numbers : int
        P, of a pose.
    frequencies : int
        K of the :func:`~csip.models.skeleton_motion.spectrum`; 0 where the frames of a clip are no fixed step apart.
    features : int
        Width of what comes out.

    Attributes
    ----------
    mean, spread : Tensor
        (P, 2 + K) buffers of the average clip, 0 and 1 until :meth:`measure`.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, numbers: int, frequencies: int, features: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.register_buffer("mean", torch.zeros(numbers, 2 + frequencies))
        self.register_buffer("spread", torch.ones(numbers, 2 + frequencies))
        self.embed = nn.Linear(self.mean.numel(), HIDDEN)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(HIDDEN), feed_forward(HIDDEN, 1, DROPOUT)) for _ in range(DEPTH)
        )
        self.project = nn.Linear(HIDDEN, features)

    def forward(self, poses: Tensor) -> Tensor:
        """Return the features (B, features), float32, of the poses (B, T, P) of clips; T may differ from call to call."""
        x = self.embed(((self._spectrum(poses) - self.mean) / self.spread).flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.project(x).float()

    @torch.no_grad()
    def measure(self, poses: Tensor) -> None:
        """Learn from the poses (B, T, P) of many clips what the average one looks like."""
        spectra = self._spectrum(poses)
        self.mean.copy_(spectra.mean(dim=0))
        deviation = spectra.std(dim=0, correction=0)
        self.spread.copy_(torch.where(deviation > 1e-6, deviation, 1.0))  # some numbers never change

    def _spectrum(self, poses: Tensor) -> Tensor:
        always = torch.ones(poses.shape[:2], dtype=torch.bool, device=poses.device)
        return spectrum(poses[..., None], always, self.frequencies)
