from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from csip.errors import CsipError
from csip.models.rollout import attention_rollout, explicit_attention
from csip.models.vision import VisionEncoder, create_vision


@pytest.fixture
def encoder(tower: Path) -> VisionEncoder:
    torch.manual_seed(0)
    encoder = create_vision(str(tower), None, (64, 32), cameras=2).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # as they start, attention is nearly the same everywhere
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def blocks(encoder: VisionEncoder) -> list[nn.Module]:
    return list(encoder.visual.transformer.resblocks)


def test_a_block_says_the_same_with_explicit_attention_as_with_fused(encoder: VisionEncoder) -> None:
    x = torch.randn(2, 9, encoder.width, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        for block in blocks(encoder):
            output, weights = explicit_attention(block.attn, block.ln_1(x))
            residual = x + block.ls_1(output)
            assert torch.allclose(residual + block.ls_2(block.mlp(block.ln_2(residual))), block(x), atol=1e-5)
            assert torch.allclose(weights.sum(dim=-1), torch.ones(2, 9), atol=1e-6)
            x = block(x)


def by_hand(block: nn.Module, x: Tensor) -> Tensor:
    """The mean attention map of a block, head by head from its parameters."""
    attention = block.attn
    heads, width = attention.num_heads, attention.embed_dim // attention.num_heads
    qkv = block.ln_1(x) @ attention.in_proj_weight.T + attention.in_proj_bias
    q, k, _ = qkv.split(attention.embed_dim, dim=-1)
    maps = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        maps.append((q[..., part] @ k[..., part].transpose(1, 2) / width**0.5).softmax(dim=-1))
    return torch.stack(maps).mean(dim=0)


def test_rollout_is_the_product_of_the_blocks_maps(encoder: VisionEncoder, images: Tensor) -> None:
    inputs: list[Tensor] = []
    handles = [b.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for b in blocks(encoder)]
    camera = torch.tensor([0, 1, -1])
    with torch.inference_mode():
        encoder(images, camera)
        for handle in handles:
            handle.remove()
        product = torch.eye(9)
        for block, x in zip(blocks(encoder), inputs, strict=True):
            product = (by_hand(block, x) + torch.eye(9)) / 2 @ product
    shares = attention_rollout(encoder, images, camera)
    assert shares.shape == (3, 4, 2), "64 x 32 pixels in patches of 16"
    assert torch.allclose(shares.flatten(1), product[:, 0, 1:], atol=1e-6)
    assert (shares > 0).all() and torch.allclose(shares.sum(dim=(1, 2)) + product[:, 0, 0], torch.ones(3), atol=1e-6)
    assert not torch.allclose(shares, attention_rollout(encoder, images), atol=1e-7), "the camera counts"


def test_rollout_finds_the_patch_that_differs(encoder: VisionEncoder) -> None:
    """With queries and keys that ask for one pattern, attention goes where that pattern is."""
    with torch.no_grad():
        for block in blocks(encoder):
            block.attn.in_proj_weight[: 2 * encoder.width].zero_()
            block.attn.in_proj_bias.zero_()
        first = blocks(encoder)[0]
        patches = torch.zeros(1, 3, 64, 32)
        patches[..., 32:48, 16:32] = 3.0
        seen: list[Tensor] = []
        handle = first.register_forward_pre_hook(lambda _, given: seen.append(first.ln_1(given[0])))
        encoder(patches)
        handle.remove()
        marked = seen[0][0, 1 + 2 * 2 + 1]  # row 2, column 1 of the grid
        first.attn.in_proj_bias[: encoder.width] = 5.0 * marked
        first.attn.in_proj_weight[encoder.width : 2 * encoder.width] = torch.eye(encoder.width)
    share = attention_rollout(encoder, patches)[0]
    assert divmod(int(share.argmax()), 2) == (2, 1)


def test_nothing_stays_behind(encoder: VisionEncoder, images: Tensor) -> None:
    with torch.inference_mode():
        before = encoder(images).tokens
        attention_rollout(encoder, images)
        assert torch.equal(encoder(images).tokens, before)
    assert not any(block.attn._forward_pre_hooks for block in blocks(encoder))
    with pytest.raises(RuntimeError):
        attention_rollout(encoder, images[:, :, :8])
    assert not any(block.attn._forward_pre_hooks for block in blocks(encoder)), "not after a failure either"


def test_other_blocks_are_refused(encoder: VisionEncoder, images: Tensor) -> None:
    blocks(encoder)[1].attn = nn.Identity()
    with pytest.raises(CsipError, match="plain vision transformer"):
        attention_rollout(encoder, images)
