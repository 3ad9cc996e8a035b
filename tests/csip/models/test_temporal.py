import pytest
import torch
from whole_method import WHOLE

from csip.config import Stage2Settings
from csip.errors import CsipError
from csip.models.fusion import SkeletonGuidedTemporalModel

B, T, P, J, D, C = 2, 4, 6, 5, 16, 12


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SkeletonGuidedTemporalModel(D, C, Stage2Settings(temporal_heads=2, **WHOLE)).eval()


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(1)
    visual = torch.randn(B, T, 1 + P, D, generator=generator)
    skeleton = torch.randn(B, T, 1 + J, C, generator=generator)
    return visual, skeleton, torch.tensor([[True, True, False, True], [True, True, True, True]])


def by_loops(model, visual, skeleton, valid):
    """One clip and one frame at a time, with only the tokens that count: no masks."""
    result = torch.empty(B, T, D)
    for b in range(B):
        message = model.visual_message(visual[b : b + 1])[0]
        joints = shared = None
        if skeleton is not None:
            joints = model.project_skeleton(skeleton[b])
            position = model.skeleton_message.position(T)
            shared = model.skeleton_message.project(joints.mean(dim=1)) + position
            shared = shared[valid[b]]
            shared = shared + model.skeleton_message.attention(model.skeleton_message.norm(shared)[None])[0]
            memory = model.distil_memory_norm(shared)
            message = message + model.distil(model.distil_norm(message)[None], memory[None])[0]
        sent = 0
        for t in range(T):
            tokens = [visual[b, t] + model.types[0], message[t : t + 1] + model.types[1]]
            if skeleton is not None and valid[b, t]:
                tokens += [joints[t] + model.types[2], shared[sent : sent + 1] + model.types[3]]
                sent += 1
            x = torch.cat(tokens)
            x = x + model.aggregate.attention(model.aggregate.norm(x)[None])[0]
            x = x + model.aggregate.mlp(model.aggregate.mlp_norm(x))
            weight = model.aggregate.score(x).sigmoid()
            result[b, t] = (weight / weight.sum() * x).sum(dim=0)
    return result


def test_it_is_a_loop_over_frames(model, clips):
    visual, skeleton, valid = clips
    torch.testing.assert_close(
        model(visual, skeleton, valid), by_loops(model, visual, skeleton, valid), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(model(visual), by_loops(model, visual, None, valid), rtol=1e-4, atol=1e-5)
    everywhere = torch.ones(B, T, dtype=torch.bool)
    torch.testing.assert_close(
        model(visual, skeleton), by_loops(model, visual, skeleton, everywhere), rtol=1e-4, atol=1e-5
    )


def test_invalid_skeletons_say_nothing(model, clips):
    visual, skeleton, valid = clips
    before = model(visual, skeleton, valid)
    skeleton = skeleton.clone()
    skeleton[0, 2] = 100.0
    torch.testing.assert_close(model(visual, skeleton, valid), before)


def test_a_clip_without_any_skeleton_is_the_test_branch(model, clips):
    visual, skeleton, _ = clips
    nothing = torch.zeros(B, T, dtype=torch.bool)
    torch.testing.assert_close(model(visual, skeleton, nothing), model(visual), rtol=1e-4, atol=1e-5)


def test_clips_are_independent_and_skeletons_matter(model, clips):
    visual, skeleton, valid = clips
    before = model(visual, skeleton, valid)
    skeleton = skeleton.clone()
    skeleton[1] = torch.randn(T, 1 + J, C, generator=torch.Generator().manual_seed(5))
    after = model(visual, skeleton, valid)
    torch.testing.assert_close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_order_of_frames_matters(model, clips):
    visual, _, _ = clips
    order = torch.tensor([2, 0, 3, 1])
    assert (model(visual[:, order]).mean(dim=1) - model(visual).mean(dim=1)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "parts",
    [
        {"mte": True, "atd": True, "ta": True},
        {"mte": True, "atd": True, "ta": False},
        {"mte": True, "atd": False, "ta": True},
        {"mte": True, "atd": False, "ta": False},
        {"mte": False, "atd": False, "ta": True},
    ],
)
def test_parts_can_be_left_out(parts, clips):
    torch.manual_seed(0)
    model = SkeletonGuidedTemporalModel(D, C, Stage2Settings(temporal_heads=2, **{**WHOLE, **parts}))
    visual, skeleton, valid = clips
    result = model(visual, skeleton, valid)
    assert result.shape == (B, T, D)
    result.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


def test_distillation_over_messages_needs_messages():
    with pytest.raises(CsipError, match="mte: true"):
        SkeletonGuidedTemporalModel(D, C, Stage2Settings(mte=False, atd=True))
    with pytest.raises(CsipError, match="nothing to do"):
        SkeletonGuidedTemporalModel(D, C, Stage2Settings(mte=False, atd=False, ta=False))
