"""Attention in every form against the formula in float64."""

import pytest
import torch
from torch import nn

from csip.models.attention import ImageAttention, attend


def by_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    scores = torch.einsum("bhld,bhmd->bhlm", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
    return torch.einsum("bhlm,bhmd->bhld", scores.exp() / scores.exp().sum(-1, keepdim=True), v)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_values_and_gradients_are_those_of_the_formula(kind: torch.dtype, tolerance: float, masked: bool):
    torch.manual_seed(0)
    exact = [torch.randn(3, 2, length, 16).to(kind).double().requires_grad_() for length in (7, 9, 9)]
    rough = [one.detach().to(kind).requires_grad_() for one in exact]
    mask = torch.rand(3, 1, 1, 9) < 0.6 if masked else None
    if mask is not None:
        mask[..., 0] = True
    weights = torch.randn(3, 2, 7, 16)
    results = by_formula(*exact, mask), attend(*rough, mask)
    for result in results:
        (result * weights.to(result.dtype)).sum().backward()
    for ours, theirs in zip(
        [results[1], *(one.grad for one in rough)], [results[0], *(one.grad for one in exact)], strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_no_map_is_kept_for_the_gradient(kind: torch.dtype):
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    q, k, v = (torch.randn(1, 2, 64, 4, dtype=kind, requires_grad=True) for _ in range(3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attend(q, k, v)
    assert kept and max(kept) < 2 * 64 * 64


@pytest.mark.parametrize("training", [True, False])
def test_attention_of_images_is_pytorchs(training: bool):
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(24, 3, batch_first=True).train(training)
    nn.init.normal_(plain.in_proj_bias)
    ours = ImageAttention.of(plain).train(training)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(4, 11, 24)
    expected = plain(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(ours(x, x, x, need_weights=False)[0], expected)
    found, weights = ours(x, x, x, need_weights=True)
    torch.testing.assert_close(found, expected)
    assert weights.shape == (4, 11, 11)
