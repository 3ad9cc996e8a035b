import pytest
import torch
from whole_method import WHOLE

from csip.config import Stage2Settings
from csip.errors import CsipError
from csip.models.attention import InducedAttention
from csip.models.fusion import PrototypeFusionUpdater

N, C, B, M = 7, 16, 3, 5


@pytest.fixture(params=[("weight", "full"), ("gate", "full"), ("weight", "induced")], ids="-".join)
def updater(request):
    torch.manual_seed(0)
    fusion, attention = request.param
    settings = Stage2Settings(prototype_heads=4, fusion=fusion, prototype_attention=attention, **WHOLE)
    module = PrototypeFusionUpdater(N, C, settings).eval()
    module.set_prototypes(torch.randn(N, C), torch.randn(N, C))
    return module


def wake(module):
    """Leave the start, where the update is zero."""
    torch.nn.init.normal_(module.out.weight, std=0.3)
    if module.weight is not None:
        torch.nn.init.normal_(module.weight)
    return module


def naive_attention(attention, x, memory):
    """Multi-head attention of one clip with its map, head by head."""
    width = x.shape[-1]
    weight, bias = attention.in_proj.weight, attention.in_proj.bias
    q = x @ weight[:width].T + bias[:width]
    k = memory @ weight[width : 2 * width].T + bias[width : 2 * width]
    v = memory @ weight[2 * width :].T + bias[2 * width :]
    size = width // attention.heads
    mixed = []
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        scores = (q[:, part] @ k[:, part].T / size**0.5).softmax(dim=-1)
        mixed.append(scores @ v[:, part])
    return attention.out_proj(torch.cat(mixed, dim=1))


def test_the_update_starts_at_zero(updater):
    torch.testing.assert_close(updater(torch.randn(B, M, C)), updater.fused().expand(B, N, C))


def test_fusion_weighs_the_two_modalities():
    module = PrototypeFusionUpdater(N, C, Stage2Settings(prototype_heads=4, **WHOLE), normalize=False)
    visual, skeleton = torch.randn(N, C), torch.randn(N, C)
    module.set_prototypes(visual, skeleton)
    torch.testing.assert_close(module.fused(), (visual + skeleton) / 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([20.0, -20.0] + [0.0] * (N - 2)))
    torch.testing.assert_close(module.fused()[:2], torch.stack((skeleton[0], visual[1])))


def test_normalized_prototypes_have_one_norm_whatever_the_encoders_scale():
    module = PrototypeFusionUpdater(N, C, Stage2Settings(prototype_heads=4, **WHOLE))
    visual, skeleton = torch.randn(N, C), torch.randn(N, C)
    module.set_prototypes(visual, 100 * skeleton)
    torch.testing.assert_close(module.skeleton.norm(dim=1), torch.full((N,), C**0.5))
    torch.testing.assert_close(module.visual, visual / visual.norm(dim=1, keepdim=True) * C**0.5)


def naive_self_attention(module, x):
    if isinstance(module, InducedAttention):
        points = module.points[0] + naive_attention(module.gather, module.points[0], x)
        return naive_attention(module.spread, x, points)
    return naive_attention(module, x, x)


def test_factored_form_is_the_naive_one(updater):
    wake(updater)
    tokens = torch.randn(B, M, C)
    expected = []
    for clip in tokens:
        x, memory = updater.fused(), updater.token_norm(clip)
        for layer in updater.layers:
            x = x + naive_self_attention(layer.self_attention, layer.self_norm(x))
            x = x + naive_attention(layer.cross_attention, layer.cross_norm(x), memory)
            x = x + layer.mlp(layer.mlp_norm(x))
        expected.append(updater.fused() + updater.out(updater.out_norm(x)))
    torch.testing.assert_close(updater(tokens), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_first_self_attention_runs_once(updater):
    sizes = []
    for layer in updater.layers:
        layer.self_attention.register_forward_hook(lambda module, given, result: sizes.append(len(result)))
    updater(torch.randn(B, M, C))
    assert sizes == [1, B]


def test_clips_are_independent_and_do_matter(updater):
    wake(updater)
    tokens = torch.randn(B, M, C)
    before = updater(tokens)
    tokens[1] += 1.0 + torch.randn(M, C)
    after = updater(tokens)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_masked_tokens_do_not_count(updater):
    wake(updater)
    tokens, mask = torch.randn(B, M, C), torch.tensor([[True, True, False, True, False]] * B)
    torch.testing.assert_close(updater(tokens, mask), updater(tokens[:, mask[0]]), rtol=1e-4, atol=1e-5)
    nothing = updater(tokens, torch.zeros(B, M, dtype=torch.bool))
    torch.testing.assert_close(nothing[0], nothing[1])
    assert torch.isfinite(nothing).all()


def test_every_parameter_learns(updater):
    wake(updater)
    updater(torch.randn(B, M, C)).square().mean().backward()
    silent = [name for name, p in updater.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert silent == []
    assert not updater.visual.requires_grad and not updater.skeleton.requires_grad


def test_prototypes_are_checked(updater):
    good = torch.randn(N, C)
    with pytest.raises(CsipError, match=r"skeleton prototypes: expected .* \(7, 16\), got \(6, 16\)"):
        updater.set_prototypes(good, good[1:])
    bad = good.clone()
    bad[3, 2] = torch.nan
    with pytest.raises(CsipError, match=r"not finite for labels \[3\]"):
        updater.set_prototypes(bad, good)
    with pytest.raises(ValueError, match="'weight' or 'gate'"):
        PrototypeFusionUpdater(N, C, Stage2Settings(fusion="sum"))
