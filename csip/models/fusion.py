"""Where images and skeletons meet: the Prototype Fusion Updater (PFU) and Skeleton Guided Temporal Modeling (SGTM).

PFU keeps one prototype per identity, fused from both modalities and updated by each clip. SGTM turns a clip's tokens into one
vector per frame: message tokens over time, distilled across modalities, aggregated by frame. Skeletons are privileged: with them
SGTM is the teacher of itself without them, which is what runs at test time.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import Stage2Settings
from csip.errors import CsipError
from csip.models.attention import Attention, Dropout, InducedAttention, TemporalPosition, feed_forward

MLP_RATIO = 4  # of the prototypes' decoder and of the token aggregation
SMALL = 1e-6  # scores may all be zero
VISUAL, VISUAL_MESSAGE, JOINTS, JOINTS_MESSAGE = range(4)  # rows of the type embedding


# ---- Prototype Fusion Updater ----------------------------------------------------------------------------------------


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer: self-attention over prototypes, cross-attention to a clip's tokens, MLP."""

    def __init__(self, width: int, settings: Stage2Settings) -> None:
        super().__init__()
        heads, full = settings.prototype_heads, settings.prototype_attention == "full"
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = (Attention if full else InducedAttention)(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = feed_forward(width, MLP_RATIO, settings.dropout, quick=settings.project_prototypes)
        self.dropout = Dropout(settings.dropout)

    def forward(self, prototypes: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Update prototypes (1 or B, N, C) from tokens (B, M, C) with mask (B, M); return (B, N, C).

        Prototypes that are the same for all clips, (1, N, C), go through self-attention once.
        """
        x = prototypes + self.dropout(self.self_attention(self.self_norm(prototypes)))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), tokens, mask))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class PrototypeFusionUpdater(nn.Module):
    """Fuse an identity's visual and skeleton prototypes, then update them from a clip's tokens.

    ``P_F = w P_S + (1 - w) P_V`` and ``P' = P_F + Linear(LN(decoder(P_F, clip)))``. The last Linear starts at zero,
    so that training starts from ``P' = P_F``; not so with ``project_prototypes``, where the decoder's inputs are
    ``Linear(LN(P_F))`` and ``Linear(LN(clip))``. Memory is O(B N C): attention keeps no maps.

    Parameters
    ----------
    identities : int
        N, the number of training identities.
    width : int
        C, the width of the joint embedding space.
    settings : Stage2Settings
        ``fusion``: ``w`` is the sigmoid of a learnable weight per identity, or of a small network on both prototypes.
        ``prototype_attention``: prototypes attend to each other, in time quadratic in N, or through 64 learnable points, in
        time linear in N. ``prototype_heads``, ``prototype_layers`` and ``dropout``: of the decoder. ``project_prototypes``:
        the decoder's form, as above. ``update_prototypes``: whether a clip changes the prototypes; without, P' = P_F and there
        is no decoder.
    normalize : bool
        Scale each prototype to a norm of sqrt(C) when it is set, so that neither modality outweighs the other by
        the scale of its encoder; wanted wherever similarities are cosines. False keeps them as they come.

    Attributes
    ----------
    visual, skeleton : Tensor
        (N, C) buffers, row = label; zero until :meth:`set_prototypes`.
    """

    visual: Tensor
    skeleton: Tensor

    def __init__(self, identities: int, width: int, settings: Stage2Settings, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize
        self.register_buffer("visual", torch.zeros(identities, width))
        self.register_buffer("skeleton", torch.zeros(identities, width))
        self.weight = nn.Parameter(torch.zeros(identities)) if settings.fusion == "weight" else None
        self.gate = None
        if settings.fusion == "gate":
            self.gate = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.update = settings.update_prototypes
        if not self.update:
            return
        self.token_norm = nn.LayerNorm(width)
        self.project_tokens = self.project_fused = None
        if settings.project_prototypes:
            self.project_tokens = nn.Linear(width, width)
            self.project_fused = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.layers = nn.ModuleList(DecoderLayer(width, settings) for _ in range(settings.prototype_layers))
        self.out_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        if not settings.project_prototypes:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    @torch.no_grad()
    def set_prototypes(self, visual: Tensor, skeleton: Tensor) -> None:
        """Store both modalities' prototypes, (N, C) each, row = label.

        Raises
        ------
        CsipError
            If a shape is not (N, C) or a value is not finite.
        """
        for name, given in (("visual", visual), ("skeleton", skeleton)):
            stored = getattr(self, name)
            if given.shape != stored.shape:
                raise CsipError(
                    f"{name} prototypes: expected (identities, width) = {tuple(stored.shape)}, got {tuple(given.shape)}"
                )
            if not torch.isfinite(given).all():
                rows = (~torch.isfinite(given).all(dim=1)).nonzero().flatten().tolist()
                raise CsipError(f"{name} prototypes: not finite for labels {rows[:10]}; has each label a tracklet?")
            given = given.to(stored)
            stored.copy_(F.normalize(given, dim=1) * given.shape[1] ** 0.5 if self.normalize else given)

    def fused(self) -> Tensor:
        """Return the fused prototypes P_F, (N, C)."""
        if self.gate is not None:
            weight = self.gate(torch.cat((self.skeleton, self.visual), dim=1)).float().sigmoid()
        else:
            assert self.weight is not None
            weight = self.weight.sigmoid()[:, None]
        return weight * self.skeleton + (1 - weight) * self.visual

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the prototypes as each clip sees them.

        Parameters
        ----------
        tokens : Tensor
            (B, M, C), a clip's tokens of both modalities.
        mask : Tensor, optional
            (B, M) bool, False where a token says nothing, as of a frame without a skeleton.

        Returns
        -------
        Tensor
            P', (B, N, C).
        """
        fused = self.fused()
        if not self.update:
            return fused.expand(len(tokens), -1, -1)
        tokens, x = self.token_norm(tokens), fused[None]
        if self.project_tokens is not None and self.project_fused is not None:
            tokens, x = self.project_tokens(tokens), self.project_fused(x)
        for layer in self.layers:
            x = layer(x, tokens, mask)
        return fused + self.out(self.out_norm(x))


# ---- Skeleton Guided Temporal Modeling -------------------------------------------------------------------------------


class MessageExtraction(nn.Module):
    """MTE: a frame's tokens averaged and projected into one message, messages attending to each other over time."""

    def __init__(self, width: int, heads: int, settings: Stage2Settings) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.position = TemporalPosition(width) if settings.frame_position else None
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.dropout = Dropout(settings.dropout)

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return messages (B, T, D) of tokens (B, T, M, D); frames that are not valid send nothing to others."""
        message = self.project(tokens.mean(dim=2))
        if self.position is not None:
            message = message + self.position(tokens.shape[1])
        return message + self.dropout(self.attention(self.norm(message), mask=valid))


class TokenAggregation(nn.Module):
    """TA: attention and MLP over the tokens of one frame, then attention pooling."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = feed_forward(width, MLP_RATIO, dropout)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector per frame, (F, D), of F frames' tokens (F, M, D); masked tokens (F, M) do not count."""
        x = tokens + self.dropout(self.attention(self.norm(tokens), mask=mask))
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))
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
        message. ``dropout``: of what attention and MLP add. ``frame_position``: messages know their place in the clip;
        without, shuffling the frames changes nothing.
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
        self.visual_message = MessageExtraction(width, heads, settings) if mte else None
        # Read by the distillation and by the aggregation; without both, nothing would train it.
        heard = mte and (atd or ta)
        self.skeleton_message = MessageExtraction(width, heads, settings) if heard else None
        self.distil_norm = nn.LayerNorm(width) if atd else None
        self.distil_memory_norm = nn.LayerNorm(width) if atd else None
        self.distil = Attention(width, heads) if atd else None
        self.dropout = Dropout(settings.dropout)
        self.types = nn.Parameter(torch.randn(4, width) * 0.02) if ta else None
        self.aggregate = TokenAggregation(width, heads, settings.dropout) if ta else None
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
                message = message + self.dropout(self.distil(query, memory, valid))
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
