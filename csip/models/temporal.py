"""Skeleton Guided Temporal Modeling: message tokens over time, distilled across modalities, aggregated by frame.

Skeletons are privileged: with them the module is the teacher of itself without them, which is what runs at test time.
"""

import torch
from torch import Tensor, nn

from csip.config import Stage2Settings
from csip.errors import CsipError
from csip.models.attention import Attention, TemporalPosition, feed_forward

MLP_RATIO = 4  # of the token aggregation
SMALL = 1e-6  # scores may all be zero
VISUAL, VISUAL_MESSAGE, JOINTS, JOINTS_MESSAGE = range(4)  # rows of the type embedding


class MessageExtraction(nn.Module):
    """MTE: a frame's tokens averaged and projected into one message, messages attending to each other over time."""

    def __init__(self, width: int, heads: int, position: bool) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.position = TemporalPosition(width) if position else None
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return messages (B, T, D) of tokens (B, T, M, D); frames that are not valid send nothing to others."""
        message = self.project(tokens.mean(dim=2))
        if self.position is not None:
            message = message + self.position(tokens.shape[1])
        return message + self.attention(self.norm(message), mask=valid)


class TokenAggregation(nn.Module):
    """TA: attention and MLP over the tokens of one frame, then attention pooling."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = feed_forward(width, MLP_RATIO)
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector per frame, (F, D), of F frames' tokens (F, M, D); masked tokens (F, M) do not count."""
        x = tokens + self.attention(self.norm(tokens), mask=mask)
        x = x + self.mlp(self.mlp_norm(x))
        weights = self.score(x).float().sigmoid()
        if mask is not None:
            weights = weights * mask[:, :, None]
        return (weights * x).sum(dim=1) / (weights.sum(dim=1) + SMALL)


class SkeletonGuidedTemporalModel(nn.Module):
    """Turn a clip's visual tokens, and in training its skeleton's, into one vector per frame.

    Parameters
    ----------
    width : int
        D, the width of visual tokens and of the output.
    skeleton_width : int
        C, the width of skeleton tokens.
    settings : Stage2Settings
        ``temporal_heads``: attention heads, D / 64 by default. ``mte``, ``atd``, ``ta``: message token extraction,
        across-modality temporal distillation (needs ``mte``) and token aggregation; without ``ta`` a frame's vector is its
        message. ``frame_position``: messages know their place in the clip; without, shuffling the frames changes nothing.
        ``temporal_residual``: a frame's vector is its CLS token and what the module adds to it, channel by channel, which
        is nothing at the start of training; without, the vector is the module's own and has to be learnt from scratch.
    """

    def __init__(self, width: int, skeleton_width: int, settings: Stage2Settings) -> None:
        super().__init__()
        mte, atd, ta = settings.mte, settings.atd, settings.ta
        heads = settings.temporal_heads or max(1, width // 64)
        if atd and not mte:
            raise CsipError("atd: distils message tokens and needs mte: true; set atd: false or mte: true")
        if not mte and not ta:
            raise CsipError("temporal modelling without mte and ta has nothing to do")
        self.project_skeleton = nn.Linear(skeleton_width, width) if atd or ta else None
        self.visual_message = MessageExtraction(width, heads, settings.frame_position) if mte else None
        # Read by the distillation and by the aggregation; without both, nothing would train it.
        heard = mte and (atd or ta)
        self.skeleton_message = MessageExtraction(width, heads, settings.frame_position) if heard else None
        self.distil_norm = nn.LayerNorm(width) if atd else None
        self.distil_memory_norm = nn.LayerNorm(width) if atd else None
        self.distil = Attention(width, heads) if atd else None
        self.types = nn.Parameter(torch.randn(4, width) * 0.02) if ta else None
        self.aggregate = TokenAggregation(width, heads) if ta else None
        self.residual = nn.Parameter(torch.zeros(width)) if settings.temporal_residual else None

    def forward(self, visual: Tensor, skeleton: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Return one vector per frame.

        Parameters
        ----------
        visual : Tensor
            (B, T, 1 + P, D), all tokens of the visual encoder.
        skeleton : Tensor, optional
            (B, T, 1 + J, C), all tokens of the skeleton encoder; None is the test branch.
        valid : Tensor, optional
            (B, T) bool, the frames whose skeletons count; None means all.

        Returns
        -------
        Tensor
            z, (B, T, D).
        """
        added = self._model(visual, skeleton, valid)
        return added if self.residual is None else visual[:, :, 0] + self.residual * added

    def _model(self, visual: Tensor, skeleton: Tensor | None, valid: Tensor | None) -> Tensor:
        message = None if self.visual_message is None else self.visual_message(visual)
        skeleton_message = None
        if skeleton is not None and self.project_skeleton is not None:
            skeleton = self.project_skeleton(skeleton)
            if self.skeleton_message is not None:
                skeleton_message = self.skeleton_message(skeleton, valid)
            if self.distil is not None and self.distil_norm is not None and self.distil_memory_norm is not None:
                query, memory = self.distil_norm(message), self.distil_memory_norm(skeleton_message)
                message = message + self.distil(query, memory, valid)
        if self.aggregate is None or self.types is None:
            assert message is not None
            return message

        groups = [visual + self.types[VISUAL]]
        if message is not None:
            groups.append(message[:, :, None] + self.types[VISUAL_MESSAGE])
        seen = sum(group.shape[2] for group in groups)
        if skeleton is not None:
            groups.append(skeleton + self.types[JOINTS])
        if skeleton_message is not None:
            groups.append(skeleton_message[:, :, None] + self.types[JOINTS_MESSAGE])
        tokens = torch.cat(groups, dim=2).flatten(0, 1)
        mask = None
        if skeleton is not None and valid is not None:
            always = torch.ones(len(tokens), seen, dtype=torch.bool, device=tokens.device)
            mask = torch.cat((always, valid.flatten()[:, None].expand(-1, tokens.shape[1] - seen)), dim=1)
        return self.aggregate(tokens, mask).unflatten(0, visual.shape[:2])
