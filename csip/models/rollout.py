"""Attention rollout of the image encoder over its patches (Abnar and Zuidema, ACL 2020).

Fused attention never forms the attention maps. The encoder runs here as it always does, while each block's input is kept and
its map formed beside it by the explicit softmax(QK); nothing of this stays behind in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from csip.errors import CsipError
from csip.models.vision import VisionEncoder


def explicit_attention(attention: nn.MultiheadAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attend with the attention map in hand.

    Parameters
    ----------
    attention : nn.MultiheadAttention
        Batch first.
    x : Tensor
        (N, L, D).

    Returns
    -------
    output : Tensor
        (N, L, D), what fused attention returns up to rounding.
    weights : Tensor
        (N, L, L), the mean over heads; each row sums to 1.
    """
    # Not by a call of the module, which would run its hooks.
    output, weights = attention.forward(x, x, x, need_weights=True, average_attn_weights=True)
    assert weights is not None
    return output, weights


def attention_rollout(encoder: VisionEncoder, images: Tensor, camera: Tensor | None = None) -> Tensor:
    """Follow attention from the CLS token of the last block down to the patches.

    Each block passes on half of a token itself (the residual) and half of what it attends to, so that the shares of the patches
    are the CLS row of the product of (A + I) / 2 over the blocks.

    Parameters
    ----------
    encoder : VisionEncoder
        In evaluation mode.
    images : Tensor
        (N, 3, H, W), normalised.
    camera : Tensor, optional
        (N,) int64 rows of the camera embedding, as the encoder takes them.

    Returns
    -------
    Tensor
        (N, rows, columns) float32, the patches' shares; with the share of the CLS token itself they sum to 1.

    Raises
    ------
    CsipError
        The encoder's blocks are not those of a plain vision transformer.
    """
    visual: Any = encoder.visual
    blocks = list(visual.transformer.resblocks)
    if not all(isinstance(getattr(block, "attn", None), nn.MultiheadAttention) for block in blocks):
        raise CsipError("attention rollout: the image encoder's blocks are not those of a plain vision transformer")
    shares: list[Tensor] = []

    def follow(module: nn.MultiheadAttention, inputs: tuple[Tensor, ...]) -> None:
        weights = explicit_attention(module, inputs[0])[1].float()
        passed = (weights + torch.eye(weights.shape[-1], device=weights.device)) / 2
        shares[:] = [passed @ shares[0] if shares else passed]

    with torch.inference_mode(), _watching([block.attn for block in blocks], follow):
        encoder(images, camera)
    rows, columns = visual.grid_size
    return shares[0][:, 0, 1:].unflatten(1, (rows, columns)).clone()


@contextmanager
def _watching(modules: list[nn.MultiheadAttention], hook: Callable[..., None]) -> Iterator[None]:
    """Call `hook` with the input of each module before it runs, as long as the context lasts."""
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
