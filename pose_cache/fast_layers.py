"""The same arithmetic in fewer passes: batch norms folded into convolutions, and on x86 processors oneDNN's packed layers.

PyTorch hands float32 matrix products on a processor to MKL, which runs at a third of the speed of oneDNN on processors
that are not Intel's; and oneDNN, where it is used, reorders the weights at every call. The operators below keep the
weights as oneDNN wants them. They are what torch.compile itself puts in place of such layers, without compiling anything.
"""

import platform
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# What oneDNN can do to a convolution's output before it is written.
_ACTIVATIONS = {nn.SiLU: "swish", nn.ReLU: "relu", type(None): "none"}
_TYPICAL_BATCH = 16


def fold_convolutions(model: nn.Module, kind: torch.dtype, device: torch.device) -> None:
    """Make each of MMCV's blocks of convolution, batch norm and activation one operation, in place.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode; it cannot be trained any more, nor its weights saved.
    kind : torch.dtype
        Type that the convolutions work in, under autocast if it is not float32.
    device : torch.device
        Where the model is.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if (attention := _channel_attention(child)) is not None:
                setattr(parent, name, attention)
            if (block := _folded(child)) is None:
                continue
            conv, activation = block
            if _has_kernels(kind, device) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
                setattr(parent, name, PackedConv(conv, activation, kind))
            else:
                setattr(parent, name, conv if activation is None else nn.Sequential(conv, activation))


def pack_linears(model: nn.Module, kind: torch.dtype, device: torch.device) -> None:
    """Replace a model's linear layers in place by packed ones, where there are kernels for them.

    For models that only call their linear layers: the packed ones have no `weight`. Parameters as `fold_convolutions`.
    """
    if not _has_kernels(kind, device):
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child, kind))
        if isinstance(parent, nn.Sequential):
            _fuse_gelu(parent)


def _fuse_gelu(layers: nn.Sequential) -> None:
    for index, (first, second) in enumerate(pairwise(layers)):
        if isinstance(first, PackedLinear) and type(second) is nn.GELU:
            first.fused, first.algorithm = "gelu", second.approximate
            layers[index + 1] = nn.Identity()


class PackedLinear(nn.Module):
    """A linear layer with its weights laid out for oneDNN, and the activation behind it."""

    def __init__(self, layer: nn.Linear, kind: torch.dtype) -> None:
        super().__init__()
        self.fused, self.algorithm = "none", ""
        # Not a buffer: a packed tensor can be neither converted nor saved.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(kind), None)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().to(kind))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, self.fused, [], self.algorithm)


class PackedConv(nn.Module):
    """A convolution and the activation behind it, with its weights laid out for oneDNN at the first call."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind
        self.geometry: tuple[Any, ...] = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.register_buffer("weight", conv.weight.detach().to(kind))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(kind))
        self.packed: torch.Tensor | None = None
        self.fused = _ACTIVATIONS.get(type(activation), "none")
        self.activation = None if type(activation) in _ACTIVATIONS else activation

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W'), channels last."""
        inputs = inputs.to(self.kind)
        if self.packed is None:
            # The best layout depends on the input's shape; it must not on the batch that happens to come first.
            shape = [_TYPICAL_BATCH, *inputs.shape[1:]]
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, shape)
        outputs = torch.ops.mkldnn._convolution_pointwise(
            inputs, self.packed, self.bias, *self.geometry, self.fused, [], ""
        )
        return outputs if self.activation is None else self.activation(outputs)


class ChannelAttention(nn.Module):
    """MMDetection's layer of that name: weigh each channel by what the channels' means say.

    Its own gates have a layout that makes the product leave the channels-last order, and the next layer copy.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(weight), None if bias is None else nn.Buffer(bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        gates = nn.functional.hardsigmoid(nn.functional.linear(inputs.mean((2, 3)), self.weight, self.bias))
        return inputs * gates[:, :, None, None]


def _channel_attention(module: Any) -> ChannelAttention | None:
    from mmdet.models.layers.se_layer import ChannelAttention as Original

    if type(module) is not Original:
        return None
    conv: nn.Conv2d = module.fc
    return ChannelAttention(conv.weight.flatten(1), conv.bias)


def _has_kernels(kind: torch.dtype, device: torch.device) -> bool:
    """Tell whether oneDNN is there, and at home with this type on this processor."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _folded(module: nn.Module) -> tuple[nn.Conv2d, nn.Module | None] | None:
    """Return a block's convolution, the batch norm folded into it, and its activation; None for all other modules."""
    from mmcv.cnn import ConvModule

    if type(module) is not ConvModule or module.order != ("conv", "norm", "act") or module.with_explicit_padding:
        return None
    conv = module.conv
    if type(conv) is not nn.Conv2d:
        return None
    if module.with_norm:
        if not isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
            return None
        conv = fuse_conv_bn_eval(conv, module.norm)
    return conv, module.get_submodule("activate") if module.with_activation else None
