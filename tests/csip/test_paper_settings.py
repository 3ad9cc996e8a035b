"""What the method's authors ran differs from the defaults in details; each is pinned here, on `configs/paper`."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from csip.config import Settings, load_settings
from csip.data.clips import Changes
from csip.models.attention import Dropout, QuickGELU
from csip.models.factory import build_model, empty_encoder
from csip.models.losses import smoothed_cross_entropy
from csip.models.reid import ReIDModel
from csip.retrieval.embedding import clips_of
from csip.training.schedules import steps
from csip.training.stage2 import loss_terms, parameter_groups

PAPER = Path(__file__).parents[2] / "configs/paper"
IDENTITIES, FRAMES = 5, 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Those of MARS, with a small tower."""
    tower = tmp_path_factory.mktemp("paper") / "tower.json"
    vision = {"image_size": [32, 16], "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    tower.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    small = [f"vision.model={tower}", "vision.pretrained=null", "clips.height=32", "clips.width=16"]
    return load_settings(PAPER / "mars.yaml", [*small, "skeleton_encoder.depth=1"])


@pytest.fixture
def model(settings: Settings) -> ReIDModel:
    return build_model(empty_encoder("h36m17", 32, settings), 1.0, IDENTITIES, 2, settings).train()


def clip() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, FRAMES, 3, 32, 16), torch.randn(4, FRAMES, 17, 3), torch.ones(4, FRAMES, dtype=torch.bool)


def test_the_test_clip_has_the_first_frame_of_each_chunk(settings: Settings) -> None:
    assert settings.evaluation.sampling == "rrs_first"
    assert clips_of(10, 4, "rrs_first").tolist() == [[0, 2, 5, 7]]
    assert clips_of(3, 4, "rrs_first").tolist() == [[0, 0, 1, 2]]
    assert clips_of(20, 4, "rrs_first", 3).tolist() == [[0, 3, 6, 9]]


def test_the_tenfold_rate_is_for_fusion_updater_temporal_module_and_the_classifier_of_f2(
    settings: Settings, model: ReIDModel
) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = defaultdict(set)
    for group in parameter_groups(model, settings):
        for parameter in group["params"]:
            name = names[id(parameter)]
            found[round(group["lr"] / settings.stage2.lr / (2 if name.endswith("bias") else 1))].add(name)
    assert {name.split(".")[0] for name in found[10]} == {"pfu", "sgtm", "heads"}
    assert {name for name in found[10] if name.startswith("heads")} == {"heads.1.classifier.weight"}
    assert "vision.camera_embedding" in found[1] and "heads.0.classifier.weight" in found[1] and set(found) == {1, 10}


def test_f3_and_its_frames_share_a_classifier(settings: Settings, model: ReIDModel) -> None:
    assert "frame_head.classifier.weight" not in model.state_dict() and "frame_head.neck.weight" in model.state_dict()
    output = model(*clip())
    label = torch.tensor([0, 0, 1, 1])
    loss_terms(output, label, settings)["frame"].backward()
    assert model.heads[2].classifier.weight.grad is not None
    assert output.frame_logits is not None
    assert smoothed_cross_entropy(output.frame_logits, label).isfinite()


def test_updater_and_temporal_module_drop_out(model: ReIDModel) -> None:
    assert model.sgtm is not None
    for module in (model.pfu, model.sgtm):
        rates = {part.p for part in module.modules() if isinstance(part, Dropout)}
        assert rates == {0.1}
    images, *_ = clip()
    with torch.no_grad():
        tokens = torch.randn(2, 3, 32)
        assert not torch.equal(model.pfu(tokens), model.pfu(tokens)), "training is noisy"
        model.eval()
        assert torch.equal(model.embed(images), model.embed(images)), "the test is not"


def test_the_updater_projects_its_inputs_and_does_not_start_from_nothing(settings: Settings, model: ReIDModel) -> None:
    pfu = model.pfu.eval()
    assert isinstance(pfu.project_fused, nn.Sequential) and isinstance(pfu.project_fused[0], nn.LayerNorm)
    assert isinstance(pfu.project_tokens, nn.Linear) and pfu.out.weight.abs().sum() > 0
    assert any(isinstance(part, QuickGELU) for part in pfu.layers.modules())
    x = torch.linspace(-3, 3, 7)
    assert torch.allclose(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    pfu.set_prototypes(torch.randn(IDENTITIES, 32), torch.randn(IDENTITIES, 32))
    tokens = torch.randn(2, 3, 32)
    x, memory = pfu.project_fused(pfu.fused()[None]), pfu.project_tokens(pfu.token_norm(tokens))
    for layer in pfu.layers:
        x = layer(x, memory, None)
    assert torch.allclose(pfu(tokens), pfu.fused() + pfu.out(pfu.out_norm(x)))


def test_a_fifth_of_a_frame_is_erased_at_most(settings: Settings) -> None:
    images = np.zeros((400, 3, 64, 32), np.uint8)
    clips = settings.clips.model_copy(update={"erase": 1.0})
    shares = np.prod(Changes.draw(images, clips, np.random.default_rng(0)).boxes[:, 2:], axis=1) / (64 * 32)
    assert 0.15 < shares.max() < 0.21


def test_the_skeleton_encoder_ends_in_a_projection(settings: Settings) -> None:
    encoder = empty_encoder("h36m17", 32, settings).eval()
    assert isinstance(encoder.project, nn.Linear)
    joints = torch.randn(1, 2, 17, 3)
    projected = encoder(joints)
    plain = empty_encoder("h36m17", 32, settings.model_copy(update={"skeleton_encoder": replace_projection(settings)}))
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("project.")})
    assert torch.allclose(projected, encoder.project(plain.eval()(joints)), atol=1e-6)


def replace_projection(settings: Settings) -> object:
    return settings.skeleton_encoder.model_copy(update={"projection": False})


def test_epochs_of_the_schedule_are_counted_from_one(settings: Settings) -> None:
    chosen = settings.stage2

    def factor(epoch: int) -> float:
        return steps(epoch, warmup=chosen.warmup_epochs, start=chosen.warmup_start, milestones=chosen.decay_epochs)

    assert [factor(epoch) for epoch in range(10)] == pytest.approx([0.1 + 0.09 * count for count in range(1, 11)])
    assert [epoch for epoch in range(1, 80) if factor(epoch) < factor(epoch - 1)] == [29, 49, 69]
    assert load_settings(PAPER / "ilidsvid.yaml").stage2.decay_epochs == (29, 49)
