"""The skeleton encoder: a graph transformer over the joints of a frame that also looks along time.

Attention among the tokens of one frame cannot see the order of frames. Some blocks therefore also let each token
attend to itself at other times; ``temporal=False`` leaves that out.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import SkeletonEncoderSettings
from csip.errors import CsipError
from csip.models.attention import Attention, Dropout, TemporalPosition, feed_forward
from csip.models.skeleton_motion import face_front, spectrum, torso
from pose_cache.joints import JointSet

TIE = 1e-6  # eigenvalues and entries closer than this are equal: symmetric bodies have equal ones


def laplacian_encoding(joints: JointSet, k: int) -> Tensor:
    """Return the `k` lowest non-trivial eigenvectors of a joint set's normalised bone graph.

    The graph's symmetric normalised Laplacian is ``I - D^-1/2 A D^-1/2``. Left and right limbs are alike, so some
    of its eigenvalues are equal and an eigensolver may return any basis of their eigenvectors: the basis is
    fixed here by Gram-Schmidt on the eigenspace's projector, and each sign by its largest entry (the
    first of equals), which must be positive.

    Parameters
    ----------
    joints : JointSet
        J joints and the bones that connect them.
    k : int
        How many eigenvectors, 1 to J - 1.

    Returns
    -------
    Tensor
        (J, k) float32, orthonormal columns by increasing eigenvalue.

    Raises
    ------
    CsipError
        If `k` is out of range or the bones leave the joints in several pieces.
    """
    size = len(joints.joints)
    if not 1 <= k < size:
        raise CsipError(
            f"positions: joint set {joints.name!r} has {size} joints and so 1 to {size - 1} encodings, got {k}"
        )
    adjacency = np.zeros((size, size))
    for a, b in joints.bones:
        adjacency[a, b] = adjacency[b, a] = 1.0
    degree = np.maximum(adjacency.sum(axis=1), 1.0)  # a joint without a bone is refused below
    laplacian = np.eye(size) - adjacency / np.sqrt(np.outer(degree, degree))
    values, vectors = np.linalg.eigh(laplacian)
    if values[1] < TIE:
        raise CsipError(f"joint set {joints.name!r}: its bones do not connect all of its {size} joints")

    basis: list[np.ndarray] = []
    start = 1
    while len(basis) < k:
        stop = start + 1
        while stop < size and values[stop] - values[start] < TIE:
            stop += 1
        basis.extend(_canonical_basis(vectors[:, start:stop]))
        start = stop
    return torch.from_numpy(np.stack(basis[:k], axis=1)).float()


def _canonical_basis(vectors: np.ndarray) -> list[np.ndarray]:
    """Return the basis of the columns' span, (J, m), that does not depend on the columns chosen to span it."""
    projector = vectors @ vectors.T
    basis = []
    for _ in range(vectors.shape[1]):
        norms = np.diag(projector)
        pivot = int(np.argmax(norms > norms.max() - TIE))
        vector = projector[:, pivot] / np.linalg.norm(projector[:, pivot])
        projector = projector - np.outer(vector, vector)
        largest = np.argmax(np.abs(vector) > np.abs(vector).max() - TIE)
        basis.append(vector * np.sign(vector[largest]))
    return basis


class SkeletonBlock(nn.Module):
    """Post-norm transformer block: attention within each frame, then along time, then a feed-forward network."""

    def __init__(self, width: int, settings: SkeletonEncoderSettings, temporal: bool) -> None:
        super().__init__()
        self.spatial = Attention(width, settings.heads)
        self.spatial_norm = nn.LayerNorm(width)
        self.temporal = Attention(width, settings.heads) if temporal else None
        self.temporal_norm = nn.LayerNorm(width) if temporal else None
        self.mlp = feed_forward(width, settings.mlp_ratio, settings.dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Mix tokens (B, T, L, C) given which frames are valid, (B, T)."""
        batch, frames, length, _ = tokens.shape
        mixed = self.spatial(tokens.flatten(0, 1)).unflatten(0, (batch, frames))
        tokens = self.spatial_norm(tokens + self.dropout(mixed))
        if self.temporal is not None and self.temporal_norm is not None:
            tracks = tokens.transpose(1, 2).flatten(0, 1)
            mask = None if valid is None else valid.repeat_interleave(length, dim=0)
            mixed = self.temporal(tracks, mask=mask).unflatten(0, (batch, length)).transpose(1, 2)
            tokens = self.temporal_norm(tokens + self.dropout(mixed))
        return self.mlp_norm(tokens + self.dropout(self.mlp(tokens)))


class SkeletonGraphTransformer(nn.Module):
    """Encode sequences of root-centred 3D skeletons, frame by frame and along time.

    Parameters
    ----------
    joints : JointSet
        The J joints of the input. Only the positional encoding depends on it.
    width : int
        Channels C of what comes out, the width of the joint embedding space.
    settings : SkeletonEncoderSettings, optional
        ``width``: channels of the blocks, C by default; where they differ, a linear layer leads from the one to the other.
        ``depth``, ``heads``, ``mlp_ratio``, ``dropout``: blocks, attention heads, width factor of the feed-forward networks,
        dropout of the residual branches. ``positions``: columns of the Laplacian encoding, see :func:`laplacian_encoding`.
        ``temporal``: blocks attend along time, every ``temporal_every``-th from the first; without, frames are encoded apart.
        ``sign_flips``: training draws the encoding's signs at random, per clip: an eigenvector's sign means nothing.
        ``bones``: a joint also knows its bone: the vector from its parent, and how the bone's length, averaged over the clip,
        differs from the average person's. Bodies differ in lengths by few per cent, which coordinates alone hide.
        ``face_front``: each frame is turned about the vertical until the torso faces one way, whatever way the person walks.
        ``frequencies``: the CLS token also knows where, how far and how fast each joint and the direction of its bone move over
        the clip, as deviations from the average clip (:func:`~csip.models.skeleton_motion.spectrum`); frames then have to be a
        fixed step apart.
        ``projection``: the tokens of the last block go through a linear layer.

    Attributes
    ----------
    scale : Tensor
        Scalar buffer that coordinates are divided by, 1 until :meth:`calibrate`.
    mean_length, length_spread : Tensor
        (J,) buffers of each joint's bone, 0 and 1 until :meth:`calibrate`; with ``bones`` alone.
    mean_spectrum, spectrum_spread : Tensor
        (J, 6 (2 + frequencies)) buffers, likewise; with ``frequencies`` alone.
    encoding : Tensor
        (J, positions) buffer, the Laplacian encoding; saved with the weights.
    width : int
        C.
    joint_set : JointSet
        Of the input.
    """

    scale: Tensor
    encoding: Tensor
    parents: Tensor
    mean_length: Tensor
    length_spread: Tensor
    torso: Tensor
    mean_spectrum: Tensor
    spectrum_spread: Tensor

    def __init__(
        self, joints: JointSet, width: int = 512, settings: SkeletonEncoderSettings = SkeletonEncoderSettings()
    ) -> None:
        super().__init__()
        self.width, self.joint_set, inside = width, joints, settings.width or width
        self.bones = settings.bones
        parents = torch.arange(joints.size)
        for parent, child in joints.bones:
            parents[child] = parent
        self.register_buffer("parents", parents, persistent=False)
        if settings.bones:
            self.register_buffer("mean_length", torch.zeros(joints.size))
            self.register_buffer("length_spread", torch.ones(joints.size))
        self.face_front = settings.face_front
        if settings.face_front:
            self.register_buffer("torso", torso(joints), persistent=False)
        self.frequencies = settings.frequencies
        self.embed_motion = None
        if settings.frequencies:
            moves = joints.size, 6 * (2 + settings.frequencies)
            self.register_buffer("mean_spectrum", torch.zeros(moves))
            self.register_buffer("spectrum_spread", torch.ones(moves))
            hidden = 2 * inside
            self.embed_motion = nn.Sequential(
                nn.Linear(moves[0] * moves[1], hidden),
                nn.GELU(),
                nn.Dropout(settings.dropout),
                nn.Linear(hidden, inside),
            )
        self.sign_flips = settings.sign_flips
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("encoding", laplacian_encoding(joints, settings.positions))
        self.embed = nn.Sequential(nn.Linear(7 if settings.bones else 3, inside), nn.ReLU(), nn.Linear(inside, inside))
        self.embed_encoding = nn.Linear(settings.positions, inside)
        self.cls = nn.Parameter(torch.randn(inside) * 0.02)
        self.position = TemporalPosition(inside) if settings.temporal else None
        self.blocks = nn.ModuleList(
            SkeletonBlock(inside, settings, settings.temporal and index % settings.temporal_every == 0)
            for index in range(settings.depth)
        )
        projects = settings.projection or inside != width
        self.project = nn.Linear(inside, width) if projects else None

    def forward(self, joints: Tensor, valid: Tensor | None = None) -> Tensor:
        """Encode clips.

        Parameters
        ----------
        joints : Tensor
            (B, T, J, 3), root-centred, in the unit that `scale` is in. T may differ from call to call.
        valid : Tensor, optional
            (B, T) bool. An invalid frame's coordinates are not looked at, and no other frame attends to it.

        Returns
        -------
        Tensor
            (B, T, 1 + J, C): a frame's CLS token, then its joints.

        Raises
        ------
        CsipError
            If the number of joints is not the encoder's.
        """
        if joints.ndim != 4 or joints.shape[2:] != (len(self.encoding), 3):
            raise CsipError(
                f"skeleton encoder: expected joints (clips, frames, {len(self.encoding)}, 3), "
                f"got {tuple(joints.shape)}: are the skeletons of another joint set?"
            )
        encoding = self.encoding
        if self.training and self.sign_flips:
            signs = torch.randint(0, 2, (len(joints), 1, 1, encoding.shape[1]), device=joints.device) * 2 - 1
            encoding = encoding * signs
        seen = torch.ones(joints.shape[:2], dtype=torch.bool, device=joints.device) if valid is None else valid
        if valid is not None:  # also NaN must not pass
            joints = torch.where(valid[:, :, None, None], joints, 0.0)
        joints = self.view(joints)
        content = self.embed(self._inputs(joints, seen)) + self.embed_encoding(encoding)
        cls = self.cls.to(content.dtype).expand(*content.shape[:2], 1, -1)
        tokens = torch.cat((cls, content), dim=2)
        if self.position is not None:
            tokens = tokens + self.position(tokens.shape[1])[:, None]
        for block in self.blocks:
            tokens = block(tokens, valid)  # without a mask attention is faster
        if self.embed_motion is not None:
            moves = self.embed_motion(self._moves(joints, seen).flatten(1))[:, None, None]
            tokens = torch.cat((tokens[:, :, :1] + moves, tokens[:, :, 1:]), dim=2)
        return tokens if self.project is None else self.project(tokens)

    def view(self, joints: Tensor) -> Tensor:
        """Return joints (B, T, J, 3) as the encoder looks at them: with ``face_front`` turned to the front."""
        return face_front(joints, self.torso) if self.face_front else joints

    def _inputs(self, joints: Tensor, valid: Tensor) -> Tensor:
        """Return what each joint is embedded from, (B, T, J, 3 or 7)."""
        if not self.bones:
            return joints / self.scale
        bones = joints - joints[:, :, self.parents]
        lengths = bones.norm(dim=-1)
        weights = valid[:, :, None].to(lengths.dtype)
        mean = (lengths * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1)
        body = ((mean - self.mean_length) / self.length_spread).expand_as(lengths)[..., None]
        return torch.cat((joints / self.scale, bones / self.scale, body), dim=-1)

    def _moves(self, joints: Tensor, valid: Tensor) -> Tensor:
        """Return how a clip moves other than the average one, (B, J, 6 (2 + K)); embedded, it is added to the last CLS tokens."""
        return (self._spectrum(joints, valid) - self.mean_spectrum) / self.spectrum_spread

    def _spectrum(self, joints: Tensor, valid: Tensor) -> Tensor:
        """Return the spectrum of each joint and of the direction of its bone, (B, J, 6 (2 + K))."""
        directions = F.normalize(joints - joints[:, :, self.parents], dim=-1)
        return spectrum(torch.cat((joints, directions), dim=-1), valid, self.frequencies)

    @torch.no_grad()
    def calibrate(self, tracklets: Iterable[np.ndarray], clip: slice = slice(None)) -> None:
        """Set what coordinates, lengths and spectra are measured by, from the skeletons of training.

        Parameters
        ----------
        tracklets : iterable of ndarray
            (T, J, 3) valid, root-centred joints each.
        clip : slice
            The frames of a tracklet that are as many, and as far apart, as a clip's; of them the spectrum is taken.
        """
        squares, numbers, lengths, spectra = 0.0, 0, [], []
        for joints in tracklets:
            if not len(joints):
                continue
            squares, numbers = squares + float(np.square(joints, dtype=np.float64).sum()), numbers + joints.size
            if self.bones:
                bones = joints - joints[:, self.parents.numpy(force=True)]
                lengths.append(torch.from_numpy(np.linalg.norm(bones, axis=2).mean(axis=0)))
            if self.frequencies:
                one = torch.from_numpy(joints[clip])[None].to(self.scale)
                always = torch.ones(one.shape[:2], dtype=torch.bool, device=one.device)
                spectra.append(self._spectrum(self.view(one), always)[0])
        self.scale.fill_((squares / numbers) ** 0.5)
        # The root has no bone and does not move; nothing must be divided by zero there.
        if self.bones:
            _measure(torch.stack(lengths), self.mean_length, self.length_spread, 1e-3 * self.scale, self.scale)
        if self.frequencies:
            _measure(torch.stack(spectra), self.mean_spectrum, self.spectrum_spread, 1e-6 * self.scale, self.scale)

    @staticmethod
    def pool(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Average the CLS tokens of a clip's valid frames.

        Parameters
        ----------
        tokens : Tensor
            (B, T, 1 + J, C) of :meth:`forward`.
        valid : Tensor, optional
            (B, T) bool. A clip without a valid frame gets the mean of all its frames: finite, and without content.

        Returns
        -------
        Tensor
            (B, C) float32.
        """
        cls = tokens[:, :, 0].float()
        if valid is None:
            return cls.mean(dim=1)
        weights = (valid | ~valid.any(dim=1, keepdim=True)).float()[:, :, None]
        return (cls * weights).sum(dim=1) / weights.sum(dim=1)


def _measure(values: Tensor, mean: Tensor, spread: Tensor, least: Tensor, instead: Tensor) -> None:
    """Write mean and standard deviation of values (tracklets, ...) into the buffers; a spread below `least` is replaced."""
    mean.copy_(values.mean(dim=0))
    deviation = values.std(dim=0, correction=0).to(spread)
    spread.copy_(torch.where(deviation > least, deviation, instead))
