"""Layers that replace PyTorch's and MMCV's, against what they replace."""

import copy

import pytest
import torch
from torch import nn

from pose_cache.compat import guard_torchvision
from pose_cache.fast_layers import PackedConv, PackedLinear, fold_convolutions, pack_linears

CPU = torch.device("cpu")


def blocks() -> nn.Sequential:
    """MMCV's blocks with statistics that matter: strides, dilation, groups, no norm, no or another activation."""
    guard_torchvision()
    from mmcv.cnn import ConvModule

    torch.manual_seed(0)
    norm = {"type": "BN"}
    model = nn.Sequential(
        ConvModule(3, 16, 3, stride=2, padding=1, norm_cfg=norm, act_cfg={"type": "SiLU"}),
        ConvModule(16, 16, 5, padding=2, groups=16, norm_cfg=norm, act_cfg={"type": "ReLU"}),
        ConvModule(16, 24, 1, norm_cfg=norm, act_cfg=None),
        ConvModule(24, 24, 3, padding=2, dilation=2, norm_cfg=norm, act_cfg={"type": "LeakyReLU"}),
        ConvModule(24, 8, 1, norm_cfg=None, act_cfg={"type": "SiLU"}),
        # Kept as they are: the norm is no batch norm; the order is another; the padding is not of zeros.
        ConvModule(8, 8, 1, norm_cfg={"type": "GN", "num_groups": 2}),
        ConvModule(8, 8, 1, norm_cfg=norm, order=("norm", "conv", "act")),
        ConvModule(8, 8, 3, padding=1, norm_cfg=norm, padding_mode="reflect"),
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias)
    return model.eval().requires_grad_(False)


def pictures(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 18, 14, generator=generator).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_folded_convolutions_give_what_the_blocks_gave():
    plain = blocks()
    folded = copy.deepcopy(plain)
    fold_convolutions(folded, torch.float32, CPU)
    from mmcv.cnn import ConvModule

    assert [type(block) is ConvModule for block in folded] == [False] * 5 + [True] * 3
    # The first batch decides the layout of the weights; others must come out right as well.
    for count in (4, 1, 20):
        torch.testing.assert_close(folded(pictures(count)), plain(pictures(count)), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_folded_convolutions_work_in_bf16_under_autocast():
    plain = blocks()
    folded = copy.deepcopy(plain)
    fold_convolutions(folded, torch.bfloat16, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        found = folded(pictures(4)).float()
    expected = plain(pictures(4))
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_packed_linears_give_what_linears_give(kind: torch.dtype):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 3, bias=False)).to(kind)
    packed = copy.deepcopy(plain)
    pack_linears(packed, kind, CPU)
    for shape in ((5, 40), (2, 7, 40), (2, 3, 17, 40)):
        inputs = torch.randn(shape).to(kind)
        tolerance = 1e-5 if kind == torch.float32 else 0.02
        torch.testing.assert_close(packed(inputs), plain(inputs), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@torch.inference_mode()
def test_packed_linears_take_the_gelu_behind_them(approximate: str):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(40, 24), nn.GELU(approximate), nn.Linear(24, 3), nn.Dropout())
    plain.eval()
    packed = copy.deepcopy(plain)
    pack_linears(packed, torch.float32, CPU)
    assert not any(isinstance(module, nn.GELU) for module in packed.modules())
    inputs = 3 * torch.randn(2, 7, 40)
    torch.testing.assert_close(packed(inputs), plain(inputs), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_channel_attention_gives_what_mmdetections_gives_and_keeps_the_layout():
    guard_torchvision()
    from mmdet.models.layers.se_layer import ChannelAttention

    torch.manual_seed(0)
    plain = nn.Sequential(ChannelAttention(8)).eval()
    folded = copy.deepcopy(plain)
    fold_convolutions(folded, torch.float32, CPU)
    assert type(folded[0]) is not ChannelAttention
    inputs = torch.randn(3, 8, 6, 5).contiguous(memory_format=torch.channels_last)
    found = folded(inputs)
    torch.testing.assert_close(found, plain(inputs), atol=1e-6, rtol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_gpu_gets_folded_convolutions_and_plain_linears():
    model = nn.Sequential(*blocks()[:2], nn.Linear(4, 4))
    fold_convolutions(model, torch.float16, torch.device("cuda"))
    pack_linears(model, torch.float16, torch.device("cuda"))
    assert not any(isinstance(module, PackedConv | PackedLinear) for module in model.modules())
    assert [type(module) for module in model[0]] == [nn.Conv2d, nn.SiLU] and model[0][0].bias is not None
    torch.testing.assert_close(model[:2](pictures(2)), blocks()[:2](pictures(2)), atol=1e-5, rtol=1e-4)
