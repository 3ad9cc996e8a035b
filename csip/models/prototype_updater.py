"""Prototype Fusion Updater: one prototype per identity, fused from both modalities and adapted to each clip."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import Stage2Settings
from csip.errors import CsipError
from csip.models.attention import Attention, InducedAttention, feed_forward

MLP_RATIO = 4


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
        self.mlp = feed_forward(width, MLP_RATIO)

    def forward(self, prototypes: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Update prototypes (1 or B, N, C) from tokens (B, M, C) with mask (B, M); return (B, N, C).

        Prototypes that are the same for all clips, (1, N, C), go through self-attention once.
        """
        x = prototypes + self.self_attention(self.self_norm(prototypes))
        x = x + self.cross_attention(self.cross_norm(x), tokens, mask)
        return x + self.mlp(self.mlp_norm(x))


class PrototypeFusionUpdater(nn.Module):
    """Fuse an identity's visual and skeleton prototypes, then update them from a clip's tokens.

    ``P_F = w P_S + (1 - w) P_V`` and ``P' = P_F + Linear(LN(decoder(P_F, clip)))``. The last Linear starts at zero,
    so that training starts from ``P' = P_F``. Memory is O(B N C): attention keeps no maps.

    Parameters
    ----------
    identities : int
        N, the number of training identities.
    width : int
        C, the width of the joint embedding space.
    settings : Stage2Settings
        ``fusion``: ``w`` is the sigmoid of a learnable weight per identity, or of a small network on both prototypes.
        ``prototype_attention``: prototypes attend to each other, in time quadratic in N, or through 64 learnable points, in
        time linear in N. ``prototype_heads`` and ``prototype_layers``: of the decoder. ``update_prototypes``: whether a clip
        changes the prototypes; without, P' = P_F and there is no decoder.
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
        self.layers = nn.ModuleList(DecoderLayer(width, settings) for _ in range(settings.prototype_layers))
        self.out_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
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
        tokens = self.token_norm(tokens)
        x = fused[None]
        for layer in self.layers:
            x = layer(x, tokens, mask)
        return fused + self.out(self.out_norm(x))
