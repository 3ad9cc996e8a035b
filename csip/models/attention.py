"""The layers that the transformers share: attention without a kept map, feed-forward network, dropout, temporal position."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.errors import CsipError

# Keys up to which two matrix products beat the fused kernel of a processor in bf16.
_SHORT = 512
# Probabilities that dropout on a processor tells apart.
_LEVELS = 256


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k' / sqrt(width)) v without keeping the map for the gradient.

    Parameters
    ----------
    q, k, v : Tensor
        (B, heads, L, width) and twice (B, heads, M, width).
    mask : Tensor, optional
        True where a key may be attended to, as :func:`torch.nn.functional.scaled_dot_product_attention` takes it.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= _SHORT:
        return _ByProducts.apply(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class _ByProducts(torch.autograd.Function):
    """Attention by matrix products, with the map made again for the gradient.

    On a processor torch's fused kernel in bf16 takes three to four times as long for as few tokens as an image has.
    """

    @staticmethod
    def forward(context: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        context.save_for_backward(q, k, v, mask)
        with torch.autocast("cpu", enabled=False):
            return _attention_map(q, k, mask) @ v

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, mask = context.saved_tensors
        scale = q.shape[-1] ** -0.5
        p = _attention_map(q, k, mask)
        of_scores = torch._softmax_backward_data(gradient @ v.transpose(-2, -1), p, -1, p.dtype)
        of_q, of_k = (of_scores @ k) * scale, of_scores.transpose(-2, -1) @ (q * scale)
        return of_q, of_k, p.transpose(-2, -1) @ gradient, None


def _attention_map(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (scores if mask is None else scores.masked_fill_(~mask, -torch.inf)).softmax(dim=-1)


class ImageAttention(nn.MultiheadAttention):
    """PyTorch's self-attention, parameters and all, through :func:`attend` where no map is asked for."""

    @classmethod
    def of(cls, plain: nn.MultiheadAttention) -> "ImageAttention":
        """Take over the parameters of a plain one, which has no dropout and no bias to keys or values."""
        attention = cls(plain.embed_dim, plain.num_heads, batch_first=plain.batch_first)
        attention.in_proj_weight, attention.in_proj_bias = plain.in_proj_weight, plain.in_proj_bias
        attention.out_proj = plain.out_proj
        return attention

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As :class:`torch.nn.MultiheadAttention`; (B, L, C)."""
        plain = self.batch_first and query is key is value and key_padding_mask is attn_mask is None
        if need_weights or not plain:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2)), None


class Attention(nn.Module):
    """Multi-head attention through :func:`attend`.

    Attention weights are not dropped out: that would forbid the fused kernels, whose memory is linear in the
    number of tokens. Callers drop out what attention returns instead.

    Parameters
    ----------
    width : int
        Channels of queries, keys, values and the output.
    heads : int
        Number of heads; divides `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise CsipError(f"attention: {heads} heads do not divide a width of {width}; choose a divisor of it")
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend from `x` to `memory`, or to `x` itself.

        Parameters
        ----------
        x : Tensor
            Queries, (B, L, C); with `memory`, one set of queries (1, L, C) may serve all B memories.
        memory : Tensor, optional
            Keys and values, (B, M, C).
        mask : Tensor, optional
            (B, M) bool, True where a key may be attended to. Rows without any key get zeros back, so that
            adding the result to a residual stream changes nothing.

        Returns
        -------
        Tensor
            (B, L, C).
        """
        width = x.shape[-1]
        if memory is None:
            q, k, v = self.in_proj(x).chunk(3, dim=-1)
        else:
            weight, bias = self.in_proj.weight, self.in_proj.bias
            q = F.linear(x, weight[:width], bias[:width])
            k, v = F.linear(memory, weight[width:], bias[width:]).chunk(2, dim=-1)
            q = q.expand(k.shape[0], -1, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if mask is None:
            mixed = attend(q, k, v)
            return self.out_proj(mixed.transpose(1, 2).flatten(2))
        reachable = mask.any(dim=-1, keepdim=True)  # a row of masked keys alone would be 0/0
        mixed = attend(q, k, v, (mask | ~reachable)[:, None, None, :])
        return self.out_proj(mixed.transpose(1, 2).flatten(2)) * reachable[:, :, None]


class InducedAttention(nn.Module):
    """Self-attention through a few learnable points: linear in the number of tokens where `Attention` is quadratic.

    The points attend to the tokens, then the tokens to the points (induced set attention: J. Lee et al., "Set
    Transformer", ICML 2019).

    Parameters
    ----------
    width, heads : int
        As for `Attention`.
    points : int
        Number of learnable points.
    """

    def __init__(self, width: int, heads: int, points: int = 64) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(1, points, width) * width**-0.5)
        self.gather = Attention(width, heads)
        self.spread = Attention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, L, C) of x (B, L, C)."""
        return self.spread(x, self.points + self.gather(self.points, x))


class Dropout(nn.Dropout):
    """Zero each element with probability `p` in training, and scale the others so that the mean stays.

    PyTorch draws 64 random bits for each element on a processor, in one thread: that took a third of a step of stage 1. Here a
    byte has to do, so that there `p` is rounded to a multiple of 1/256. On other devices it is PyTorch's own.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """(...) to the same shape."""
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        threshold = min(max(round(self.p * _LEVELS), 1), _LEVELS - 1)
        words = torch.empty(-(-inputs.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape)
        # 1 from the threshold on, 0 below: numbers instead of comparisons, which torch does not vectorise together.
        kept = levels.to(inputs.dtype).sub_(threshold - 1).clamp_(0, 1)
        return inputs * kept.mul_(_LEVELS / (_LEVELS - threshold))


class QuickGELU(nn.Module):
    """The approximation ``x sigmoid(1.702 x)`` of GELU that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """(...) to the same shape."""
        return x * torch.sigmoid(1.702 * x)


def feed_forward(width: int, ratio: float, dropout: float = 0.0, quick: bool = False) -> nn.Sequential:
    """Return the two-layer network of a transformer block, `ratio` times as wide inside, with GELU or its quick form."""
    hidden = int(width * ratio)
    activation = QuickGELU() if quick else nn.GELU()
    return nn.Sequential(nn.Linear(width, hidden), activation, Dropout(dropout), nn.Linear(hidden, width))


class TemporalPosition(nn.Module):
    """Sinusoidal position of a frame in its clip with a learnable gain, for clips of any length.

    The gain starts small: sinusoids of amplitude one would drown the content they are added to.
    """

    def __init__(self, width: int, gain: float = 0.1) -> None:
        super().__init__()
        if width % 2:
            raise CsipError(f"temporal position: the width must be even, got {width}")
        self.gain = nn.Parameter(torch.full((width,), gain))
        rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
        self.register_buffer("rates", rates.float(), persistent=False)
        self.rates: Tensor

    def forward(self, frames: int) -> Tensor:
        """Return the positions of `frames` frames, (frames, width)."""
        angles = torch.arange(frames, device=self.rates.device, dtype=torch.float32)[:, None] * self.rates
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1) * self.gain
