import json

import numpy as np
import pytest
import torch
from whole_method import WHOLE

from csip.config import SkeletonEncoderSettings, Stage2Settings
from csip.errors import CsipError
from csip.models.fusion import PrototypeFusionUpdater
from csip.models.losses import batch_hard_triplet, distillation, smoothed_cross_entropy
from csip.models.reid import ReIDModel
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.skeleton_prediction import MotionReader
from csip.models.vision import create_vision
from pose_cache.joints import H36M17

B, T, N, D, C = 4, 3, 5, 32, 16
LABELS = torch.tensor([0, 0, 3, 3])
CONFIG = {
    "embed_dim": C,
    "vision_cfg": {"image_size": [32, 16], "layers": 2, "width": D, "head_width": 16, "patch_size": 8},
}


@pytest.fixture
def build(tmp_path):
    def build(cameras=2, skeleton_width=C, normalize=True, tau=0.07, part_norm=True, **options):
        path = tmp_path / "small.json"
        path.write_text(json.dumps(CONFIG))
        torch.manual_seed(0)
        vision = create_vision(str(path), None, (32, 16), cameras=cameras)
        skeleton = SkeletonGraphTransformer(H36M17, skeleton_width, SkeletonEncoderSettings(depth=2, heads=2))
        settings = Stage2Settings(prototype_heads=2, temporal_heads=2, **{**WHOLE, **options})
        model = ReIDModel(vision, skeleton, N, settings, normalize=normalize, tau=tau, part_norm=part_norm)
        model.pfu.set_prototypes(torch.randn(N, C), torch.randn(N, C))
        if model.pfu.update:
            torch.nn.init.normal_(model.pfu.out.weight, std=0.2)  # leave the start, where the update is zero
        return model

    return build


def draw():
    g = torch.Generator().manual_seed(1)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, 2] = False
    images, joints = torch.randn(B, T, 3, 32, 16, generator=g), torch.randn(B, T, 17, 3, generator=g)
    return images, joints, valid, torch.tensor([0, 1, -1, 1])


def silent(module):
    return [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]


def loud(module):
    return [name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]


def everything(output):
    """Sum of all losses on the branch with skeletons, and distillation."""
    loss = sum(smoothed_cross_entropy(logits, LABELS) for logits in output.logits)
    loss = loss + sum(batch_hard_triplet(f, LABELS, 10.0) for f in output.features)
    loss = loss + smoothed_cross_entropy(output.csip_logits, LABELS)
    loss = loss + smoothed_cross_entropy(output.frame_logits, LABELS)
    return loss + distillation(output.student_frames, output.teacher_frames)


@pytest.mark.parametrize("update_tokens", ["cls", "all"])
@pytest.mark.parametrize("fusion", ["weight", "gate"])
def test_shapes_and_that_everything_learns(build, update_tokens, fusion):
    model = build(update_tokens=update_tokens, fusion=fusion)
    output = model(*draw())
    assert [tuple(f.shape) for f in output.features] == [(B, D), (B, C), (B, D)]
    assert [tuple(f.shape) for f in output.logits] == [(B, N)] * 3
    assert output.csip_logits.shape == (B, N) and output.frame_logits.shape == (B, T, N)
    assert output.student.shape == (B, D) and output.student_frames.shape == (B, T, D)
    assert output.student_logits.shape == (B, N) and output.student_frame_logits.shape == (B, T, N)
    everything(output).backward()
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert set(silent(model)) == set(frozen)
    assert {name for name in frozen if not name.startswith("skeleton.")} == {
        *(f"heads.{i}.neck.bias" for i in range(3)),
        "frame_head.neck.bias",
    }


def test_the_skeleton_encoder_is_frozen_and_stays_in_evaluation_mode(build):
    model = build().train()
    assert model.vision.training and not model.skeleton.training
    assert not any(module.training for module in model.skeleton.modules())
    everything(model(*draw())).backward()
    assert loud(model.skeleton) == []

    thawed = build(train_skeleton_encoder=True).train()
    assert thawed.skeleton.training
    everything(thawed(*draw())).backward()
    assert set(silent(thawed.skeleton)) == set()


def test_temporal_modelling_reaches_the_image_encoder_only_when_asked(build):
    for detach in (True, False):
        model = build(detach_visual=detach)
        output = model(*draw())
        loss = output.features[2].square().sum() + distillation(output.student_frames, output.teacher_frames)
        loss.backward()
        assert (loud(model.vision) == []) == detach
        assert loud(model.sgtm) != []


def test_the_update_of_prototypes_reaches_the_encoders_only_when_asked(build):
    images, joints, valid, camera = draw()
    gradients = {}
    for detach in (True, False):
        model = build(detach_tokens=detach, train_skeleton_encoder=True)
        output = model(images, joints, valid, camera)
        output.csip_logits[:, 0].sum().backward()
        assert silent(model.pfu) == [], "the update itself learns either way"
        assert loud(model.vision) != [], "the comparison itself teaches the image encoder"
        assert (loud(model.skeleton) == []) == detach
        gradients[detach] = model.vision.visual.proj.grad.clone()
    assert not torch.allclose(gradients[True], gradients[False])


def test_the_branch_of_the_test_is_taught(build):
    model = build()
    output = model(*draw())
    assert not output.teacher_frames.requires_grad
    torch.testing.assert_close(output.teacher_frames.mean(dim=1), output.features[2].detach())
    torch.testing.assert_close(output.student_frames.mean(dim=1), output.student)
    distillation(output.student_frames, output.teacher_frames).backward()
    privileged = {"project_skeleton", "skeleton_message", "distil", "distil_norm", "distil_memory_norm"}
    assert {name.split(".")[0] for name in silent(model.sgtm)} == privileged
    assert loud(model.vision) == [] and loud(model.heads) == []


def test_the_students_vector_is_what_the_test_embeds(build):
    model = build(part_norm=False).eval()
    images, joints, valid, camera = draw()
    output = model(images, joints, valid, camera)
    expected = torch.cat((output.features[0], output.features[1], output.student), dim=1)
    torch.testing.assert_close(model.embed(images, camera), expected)


def test_with_joints_a_clip_is_embedded_as_by_the_teacher(build):
    model = build().eval()
    images, joints, valid, camera = draw()
    with torch.no_grad():
        output, taught = model(images, joints, valid, camera), model.embed(images, camera, joints, valid)
        alone = model.embed(images, camera)
    parts = [f / f.norm(dim=1, keepdim=True) for f in output.features]
    whole = torch.cat(parts, dim=1)
    torch.testing.assert_close(taught, whole / whole.norm(dim=1, keepdim=True))
    assert not torch.allclose(taught[:, -D:], alone[:, -D:], atol=1e-3)
    torch.testing.assert_close(taught[:, :-D], alone[:, :-D])


def test_distillation_can_be_left_out(build):
    model = build(lambda_distill=0)
    output = model(*draw())
    assert output.student is None and output.teacher_frames is None and output.student_frame_logits is None
    torch.testing.assert_close(model.eval()(*draw()).features[2], build().eval()(*draw()).features[2])


def test_the_test_ends_in_what_predicted_poses_say(build):
    model, without = (build(predict_skeletons=on, part_norm=False).eval() for on in (True, False))
    images, joints, valid, camera = draw()
    same = model.embed(images, camera)[:, -C:]
    torch.testing.assert_close(same, same[:1].expand_as(same), msg="until it is fitted, all clips say the same")
    torch.nn.init.normal_(model.prediction.project.weight, std=0.1)
    found = model.embed(images, camera)
    _, tokens = model._see(images, camera)
    torch.testing.assert_close(found[:, -C:], model.prediction.reader(model.prediction.poses(tokens)))
    assert found.shape == (B, 2 * D + 2 * C) and without.embed(images, camera).shape == (B, 2 * D + C)
    taught = model.embed(images, camera, joints, valid)
    encoder = model.skeleton
    torch.testing.assert_close(taught[:, -C:], encoder.pool(encoder(joints, valid), valid))


def test_a_pose_is_joints_their_distances_and_what_is_between_the_sides(build):
    prediction = build(predict_skeletons=True).prediction
    _, joints, _, _ = draw()
    points, count = joints.numpy(), joints.shape[2]
    poses = prediction.describe(joints).numpy()
    first, second = np.triu_indices(count, 1)
    distances = np.linalg.norm(points[:, :, first] - points[:, :, second], axis=-1)
    left, right = np.array(H36M17.mirror_pairs).T
    between = np.abs(points[:, :, left] - points[:, :, right]).reshape(B, T, -1)
    np.testing.assert_allclose(poses, np.concatenate((points.reshape(B, T, -1), distances, between), 2), rtol=1e-5)


def test_training_leaves_the_prediction_alone(build):
    model = build(predict_skeletons=True)
    output = model(*draw())
    sum(one.square().sum() for one in (*output.logits, output.csip_logits)).backward()
    assert not any(name.startswith("prediction.") for name in loud(model))
    assert not any(parameter.requires_grad for parameter in model.prediction.parameters())


def test_the_reader_sees_how_clips_differ_from_the_average_one():
    torch.manual_seed(0)
    reader = MotionReader(numbers=5, frequencies=3, features=4).eval()
    poses = torch.randn(50, 8, 5)
    poses[..., 2] = 0.7  # what never changes tells nobody apart, and must not be divided by zero
    reader.measure(poses)
    seen = (reader._spectrum(poses) - reader.mean) / reader.spread
    moving = [0, 1, 3, 4]
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(5, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[:, moving].std(dim=0, correction=0), torch.ones(4, 5))
    assert reader(poses).isfinite().all() and reader(poses[:, :3]).shape == (50, 4)


def test_a_model_that_predicts_keeps_prediction_and_reader_for_the_test(build):
    kept, training = build(predict_skeletons=True).split_state()
    assert {"prediction.project.weight", "prediction.reader.mean"} <= kept.keys()
    assert not any(name.startswith(("skeleton.", "sgtm.project_skeleton")) for name in kept)
    assert {"skeleton.cls", "sgtm.project_skeleton.weight"} <= training.keys()


def test_what_predicted_poses_say_weighs_as_much_as_it_is_told(build):
    images, joints, valid, camera = draw()
    for part_norm in (True, False):
        model = build(predict_skeletons=True, part_norm=part_norm).eval()
        torch.nn.init.normal_(model.prediction.project.weight, std=0.1)
        for seen in ((), (joints, valid)):
            model.prediction.weight.fill_(1.0)
            expected = model.embed(images, camera, *seen)
            expected[:, -C:] *= 0.5
            if part_norm:
                expected = expected / expected.norm(dim=1, keepdim=True)
            model.prediction.weight.fill_(0.5)
            torch.testing.assert_close(model.embed(images, camera, *seen), expected)
    assert "prediction.weight" in model.split_state()[0]


def test_skeletons_are_encoded_only_where_something_reads_them(build, monkeypatch):
    """By default training reads them once, for the prototypes and the poses, and no step does."""
    asked = []
    monkeypatch.setattr(SkeletonGraphTransformer, "forward", lambda *_: asked.append(1))
    model = build(update_prototypes=False, mte=False, atd=False, ta=False, lambda_distill=0)
    output = model(*draw())
    assert not asked and len(output.features) == 2
    expected = model.temperature.scale() * torch.nn.functional.normalize(output.features[1], dim=1)
    expected = expected @ torch.nn.functional.normalize(model.pfu.fused(), dim=1).T
    torch.testing.assert_close(output.csip_logits, expected)


def test_skeletons_are_predicted_without_temporal_modelling_too(build):
    model = build(predict_skeletons=True, mte=False, atd=False, ta=False).eval()
    images, _, _, camera = draw()
    assert model.embed(images, camera).shape == (B, D + 2 * C)


def test_a_clips_skeleton_changes_no_other_clip_and_no_descriptor(build):
    model = build().eval()
    images, joints, valid, camera = draw()
    before, embedded = model(images, joints, valid, camera), model.embed(images, camera)
    joints = joints.clone()
    joints[1] = -joints[1] + 1.0
    after = model(images, joints, valid, camera)
    others = [0, 2, 3]
    for one, other in (
        (before.features[2], after.features[2]),
        (before.csip_logits, after.csip_logits),
        (before.frame_logits, after.frame_logits),
    ):
        torch.testing.assert_close(one[others], other[others])
        assert (one[1] - other[1]).abs().max() > 1e-5
    for one, other in ((before.features[0], after.features[0]), (before.student, after.student)):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(model.embed(images, camera), embedded)


def test_without_temporal_modelling_there_is_no_third_feature(build):
    model = build(mte=False, atd=False, ta=False)
    images, joints, valid, camera = draw()
    output = model(images, joints, valid, camera)
    assert len(output.features) == len(output.logits) == 2
    assert output.frame_logits is None and output.student is None
    assert model.sgtm is None and model.frame_head is None and len(model.heads) == 2
    assert model.eval().embed(images, camera).shape == (B, D + C)


def test_prototypes_that_no_clip_changes_are_the_fused_ones(build):
    torch.manual_seed(0)
    visual, skeleton = torch.randn(N, C), torch.randn(N, C)
    pfu = PrototypeFusionUpdater(N, C, Stage2Settings(update_prototypes=False))
    pfu.set_prototypes(visual, skeleton)
    found = pfu(torch.randn(3, 5, C))
    half = [torch.nn.functional.normalize(one, dim=1) * C**0.5 / 2 for one in (visual, skeleton)]
    torch.testing.assert_close(found, (half[0] + half[1]).expand(3, -1, -1))
    assert [name for name, _ in pfu.named_parameters()] == ["weight"]


def test_descriptors_do_not_touch_the_skeleton_encoder(build):
    model = build().eval()
    images, *_, camera = draw()
    before = model.embed(images, camera)
    model.skeleton.forward = None
    with torch.no_grad():
        model.pfu.skeleton.fill_(torch.nan)
    assert torch.equal(model.embed(images, camera), before)


def test_descriptors_are_normalised_by_part_and_one_by_one(build):
    model = build().eval()
    images, *_, camera = draw()
    embedded = model.embed(images, camera)
    assert embedded.shape == (B, 2 * D + C) and embedded.dtype == torch.float32
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(B))
    for part in embedded.split((D, C, D), dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.full((B,), 3**-0.5))
    torch.testing.assert_close(embedded[1:2], model.embed(images[1:2], camera[1:2]))
    assert model.embed(images[:, :1], camera).shape == embedded.shape
    assert (embedded - model.embed(images)).abs().max() == 0  # the camera embedding starts at zero


def test_invalid_frames_say_nothing(build):
    model = build().eval()
    for update_tokens in ("cls", "all"):
        model.update_tokens = update_tokens
        images, joints, valid, camera = draw()
        before = model(images, joints, valid, camera)
        joints[1, 2] = torch.nan
        after = model(images, joints, valid, camera)
        torch.testing.assert_close(after.csip_logits, before.csip_logits)
        torch.testing.assert_close(after.features[2], before.features[2])
        nothing = torch.zeros_like(valid)
        assert torch.isfinite(model(images, joints, nothing, camera).csip_logits).all()


def test_tokens_of_frames_without_a_skeleton_update_no_prototype(build):
    """Whatever the skeleton encoder says of them."""
    model = build().eval()
    images, joints, valid, camera = draw()
    said = model.skeleton(joints, valid)
    model.skeleton.forward = lambda joints, valid: said
    for update_tokens in ("cls", "all"):
        model.update_tokens = update_tokens
        before = model(images, joints, valid, camera)
        said = torch.where(valid[:, :, None, None], said, torch.randn_like(said))
        after = model(images, joints, valid, camera)
        torch.testing.assert_close(after.csip_logits, before.csip_logits)
        torch.testing.assert_close(after.features[2], before.features[2])


def test_a_clips_camera_is_that_of_all_its_frames(build):
    model = build(part_norm=False).eval()
    torch.nn.init.normal_(model.vision.camera_embedding)
    images, *_, camera = draw()
    together = model.embed(images, camera)
    for b in range(B):
        torch.testing.assert_close(together[b : b + 1], model.embed(images[b : b + 1], camera[b : b + 1]))
    unknown = model.embed(images)
    torch.testing.assert_close(together[2], unknown[2])
    assert (together[0] - unknown[0]).abs().max() > 1e-3


def test_csip_logits_are_cosines_over_the_temperature(build):
    model = build().eval()
    largest = model(*draw()).csip_logits.abs().max().item()
    assert largest <= 1 / 0.07 + 1e-3
    plain = build(normalize=False, tau=1.0).eval()
    assert not plain.temperature.log_scale.requires_grad and plain.temperature.scale().item() == 1.0
    assert plain(*draw()).csip_logits.abs().max().item() != pytest.approx(largest)


def test_bfloat16_autocast_keeps_features_and_similarities_in_float32(build):
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*draw())
        assert all(f.dtype == torch.float32 for f in output.features)
        assert output.csip_logits.dtype == torch.float32
        loss = everything(output)
    loss.backward()
    assert torch.isfinite(loss) and loss.dtype == torch.float32


def test_encoders_of_two_spaces_are_refused(build):
    with pytest.raises(CsipError, match="width is 24 and the image encoder's embedding 16"):
        build(skeleton_width=24)
    with pytest.raises(ValueError, match="'cls' or 'all'"):
        build(update_tokens="some")
