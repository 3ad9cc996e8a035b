import numpy as np
import pytest
import torch

from csip.config import SkeletonEncoderSettings
from csip.errors import CsipError
from csip.models.skeleton_encoder import SkeletonGraphTransformer, laplacian_encoding
from csip.models.skeleton_motion import face_front, spectrum, torso, turn
from pose_cache.joints import COCO17, H36M17, KINECT20, KINECT25, JointSet

SETS = [COCO17, H36M17, KINECT20, KINECT25]


def laplacian(joints):
    size = len(joints.joints)
    adjacency = np.zeros((size, size))
    for a, b in joints.bones:
        adjacency[a, b] = adjacency[b, a] = 1
    root = np.diag(adjacency.sum(1) ** -0.5)
    return np.eye(size) - root @ adjacency @ root


@pytest.mark.parametrize("joints", SETS, ids=lambda j: j.name)
def test_encoding_is_the_lowest_eigenvectors(joints):
    encoding = laplacian_encoding(joints, 10).double().numpy()
    matrix = laplacian(joints)
    np.testing.assert_allclose(encoding.T @ encoding, np.eye(10), atol=1e-5)
    rayleigh = np.diag(encoding.T @ matrix @ encoding)
    np.testing.assert_allclose(matrix @ encoding, encoding * rayleigh, atol=1e-5)
    np.testing.assert_allclose(rayleigh, np.linalg.eigvalsh(matrix)[1:11], atol=1e-5)
    for column in encoding.T:
        assert column[np.abs(column) > np.abs(column).max() - 1e-5][0] > 0
    assert torch.equal(laplacian_encoding(joints, 10), laplacian_encoding(joints, 10))


def test_encoding_does_not_depend_on_the_eigensolvers_basis(monkeypatch):
    """Arms and legs of Human3.6M are alike: an eigenvalue is double, and any rotation in its plane is valid."""
    values = np.linalg.eigvalsh(laplacian(H36M17))
    assert (np.diff(values[1:]) < 1e-9).any()
    expected = laplacian_encoding(H36M17, 10)
    solve = np.linalg.eigh

    def rotated(matrix):
        values, vectors = solve(matrix)
        for i in range(1, len(values) - 1):
            if values[i + 1] - values[i] < 1e-9:
                c, s = np.cos(0.7), np.sin(0.7)
                vectors[:, i : i + 2] = vectors[:, i : i + 2] @ np.array([[c, -s], [s, c]])
        return values, -vectors

    monkeypatch.setattr(np.linalg, "eigh", rotated)
    torch.testing.assert_close(laplacian_encoding(H36M17, 10), expected)


def test_encoding_refuses_what_it_cannot_encode():
    with pytest.raises(CsipError, match="17 joints and so 1 to 16"):
        laplacian_encoding(H36M17, 17)
    torn = JointSet("torn", ("a", "b", "c", "d"), ((0, 1), (2, 3)), (), 0)
    with pytest.raises(CsipError, match="do not connect"):
        laplacian_encoding(torn, 2)


def make(temporal=True, joints=H36M17, **options):
    torch.manual_seed(0)
    width = options.pop("width", 32)
    settings = SkeletonEncoderSettings(**{"depth": 3, "heads": 4, "temporal": temporal, **options})
    return SkeletonGraphTransformer(joints, width, settings)


def draw(batch=2, frames=5, joints=17):
    return torch.randn(batch, frames, joints, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("joints", SETS, ids=lambda j: j.name)
def test_any_joint_set_and_any_length(joints):
    model, size = make(joints=joints).eval(), len(joints.joints)
    for frames in (1, 8, 300):
        tokens = model(draw(1, frames, size))
        assert tokens.shape == (1, frames, 1 + size, 32)
        assert model.pool(tokens).shape == (1, 32)
    with pytest.raises(CsipError, match="another joint set"):
        model(draw(1, 2, size + 1))


def test_order_of_frames_counts_only_with_temporal_attention():
    order = torch.tensor([3, 1, 4, 0, 2])
    joints = draw()
    for temporal, differs in ((True, True), (False, False)):
        model = make(temporal).eval()
        difference = model.pool(model(joints[:, order])) - model.pool(model(joints))
        assert (difference.abs().max() > 1e-3) == differs
    torch.testing.assert_close(model(joints[:, order]), model(joints)[:, order])


def test_clips_are_independent():
    model, joints = make().eval(), draw(3)
    before = model(joints)
    joints[1] += 1.0
    after = model(joints)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert (after[1] - before[1]).abs().max() > 1e-2


def test_invalid_frames_are_neither_seen_nor_pooled():
    model, joints = make().eval(), draw()
    valid = torch.tensor([[True, True, False, True, True], [True, False, True, True, False]])
    before = model(joints, valid)
    joints[~valid] = torch.nan
    after = model(joints, valid)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(model.pool(after, valid)[0], after[0, valid[0], 0].mean(dim=0))
    assert not torch.allclose(model(draw(), valid)[valid], model(draw())[valid])


def test_valid_frames_are_encoded_as_if_they_were_alone():
    model, joints = make().eval(), draw()
    torch.nn.init.zeros_(model.position.gain)  # a frame's position is that in its clip
    valid = torch.tensor([[True, True, False, True, True], [True, False, True, True, False]])
    tokens = model(joints, valid)
    for b in range(2):
        torch.testing.assert_close(tokens[b, valid[b]], model(joints[b : b + 1, valid[b]])[0], rtol=1e-4, atol=1e-5)


def test_a_clip_without_a_valid_frame_is_finite_and_says_nothing():
    model = make().eval()
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    pooled = model.pool(model(draw(), nothing), nothing)
    assert torch.isfinite(pooled).all()
    torch.testing.assert_close(pooled[0], pooled[1])


def test_all_frames_valid_is_no_mask():
    model, joints = make().eval(), draw()
    torch.testing.assert_close(model(joints, torch.ones(2, 5, dtype=torch.bool)), model(joints))


def test_scale_is_the_unit_of_coordinates_and_is_saved():
    model = make().eval()
    metres = model(draw())
    model.scale.fill_(1000.0)
    torch.testing.assert_close(model(1000 * draw()), metres)
    assert model.state_dict()["scale"].item() == 1000.0


def test_encoding_is_saved_and_flipped_in_training_only():
    model = make(dropout=0.0).eval()
    assert torch.equal(model.state_dict()["encoding"], laplacian_encoding(H36M17, 10))
    assert torch.equal(model(draw()), model(draw()))
    model.train()
    assert not torch.allclose(model(draw()), model(draw()))
    model.eval()
    other = make(dropout=0.0).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(draw()), model(draw()))


def test_every_parameter_learns():
    model = make()
    valid = torch.tensor([[True, True, False, True, True]] * 2)
    model(draw(), valid).pow(3).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0] == []


def test_blocks_may_be_narrower_than_the_features():
    settings = SkeletonEncoderSettings(width=16, depth=2, heads=2, frequencies=2, dropout=0.0)
    encoder = SkeletonGraphTransformer(H36M17, 32, settings)
    assert encoder.width == 32 and encoder.project.weight.shape == (32, 16)
    for name, parameter in encoder.named_parameters():
        if not name.startswith(("project.", "embed_motion.0.", "embed_motion.3.w")):
            assert 32 not in parameter.shape or ".mlp." in name, name
    assert encoder(torch.randn(2, 3, 17, 3)).shape == (2, 3, 18, 32)
    plain = SkeletonEncoderSettings(depth=2, heads=2)
    assert SkeletonGraphTransformer(H36M17, 32, plain).project is None


def test_calibration_measures_coordinates_and_bones():
    rng = np.random.default_rng(0)
    tracklets = [rng.normal(size=(length, 17, 3)).astype(np.float32) for length in (4, 0, 9)]
    for joints in tracklets:
        joints -= joints[:, :1]
    model = SkeletonGraphTransformer(H36M17, 16, SkeletonEncoderSettings(depth=1, heads=2, bones=True))
    model.calibrate(tracklets)
    everything = np.concatenate(tracklets).astype(np.float64)
    assert model.scale.item() == pytest.approx(np.sqrt((everything**2).mean()), rel=1e-5)
    lengths = np.zeros((2, 17))
    for parent, child in H36M17.bones:
        for row, joints in enumerate((tracklets[0], tracklets[2])):
            lengths[row, child] = np.linalg.norm(joints[:, child] - joints[:, parent], axis=1).mean()
    np.testing.assert_allclose(model.mean_length, lengths.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.length_spread[1:], lengths.std(axis=0)[1:], rtol=1e-4)
    assert model.length_spread[0] == model.scale  # the root has no bone
    assert {"scale", "mean_length", "length_spread"} <= model.state_dict().keys()


@torch.no_grad()
def test_bones_say_how_long_they_are_whatever_the_pose():
    torch.manual_seed(0)
    model = SkeletonGraphTransformer(H36M17, 16, SkeletonEncoderSettings(depth=1, heads=2, bones=True)).eval()
    joints = torch.randn(2, 6, 17, 3)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[:, 4:] = False
    body = model._inputs(torch.where(valid[:, :, None, None], joints, 0.0), valid)[..., 6]
    expected = torch.zeros(2, 17)
    for parent, child in H36M17.bones:
        expected[:, child] = (joints[:, :4, child] - joints[:, :4, parent]).norm(dim=-1).mean(dim=1)
    torch.testing.assert_close(body, expected[:, None].expand(-1, 6, -1))
    garbage = torch.where(valid[:, :, None, None], joints, 1e6)
    torch.testing.assert_close(model(garbage, valid)[:, :4], model(joints, valid)[:, :4])


@torch.no_grad()
def test_who_faces_the_front_may_walk_anywhere():
    torch.manual_seed(0)
    model = SkeletonGraphTransformer(H36M17, 16, SkeletonEncoderSettings(depth=1, heads=2, face_front=True)).eval()
    joints = torch.randn(2, 5, 17, 3)
    turned = joints @ turn(torch.rand(2, 5) * 6)
    torch.testing.assert_close(model(turned), model(joints))
    front = face_front(joints, torso(H36M17))
    left, right = (
        [H36M17.joints.index(f"{side}_{part}") for part in ("hip", "shoulder")] for side in ("left", "right")
    )
    line = (front[:, :, left] - front[:, :, right]).mean(dim=2)
    assert (line[..., 0] > 0).all() and line[..., 2].abs().max() < 1e-5
    torch.testing.assert_close(front[..., 1], joints[..., 1])


@torch.no_grad()
def test_the_spectrum_is_that_of_the_joints_and_blind_to_frames_without_a_skeleton():
    rng = np.random.default_rng(0)
    joints = torch.from_numpy(rng.normal(size=(2, 20, 17, 3)).astype(np.float32))
    always = torch.ones(2, 20, dtype=torch.bool)
    found = spectrum(joints, always, 6).reshape(2, 17, 8, 3)
    x = joints.double().numpy()
    np.testing.assert_allclose(found[:, :, 0], x.mean(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[:, :, 1], x.std(axis=1), rtol=1e-5)
    window = np.sin(np.pi * (np.arange(20) + 0.5) / 20) ** 2
    moved = (x - x.mean(axis=1, keepdims=True)) * window[:, None, None]
    amplitude = np.abs(np.fft.fft(moved, n=64, axis=1))[:, 1:7] / window.sum()
    np.testing.assert_allclose(found[:, :, 2:], amplitude.transpose(0, 2, 1, 3), rtol=1e-4, atol=1e-6)
    valid = always.clone()
    valid[:, 15:] = False
    garbage = torch.where(valid[:, :, None, None], joints, 1e6)
    torch.testing.assert_close(spectrum(garbage, valid, 6), spectrum(joints * valid[:, :, None, None], valid, 6))


@torch.no_grad()
def test_calibration_measures_spectra_by_clips():
    rng = np.random.default_rng(0)
    tracklets = [rng.normal(size=(40, 17, 3)).astype(np.float32) for _ in range(5)]
    model = SkeletonGraphTransformer(H36M17, 16, SkeletonEncoderSettings(depth=1, heads=2, frequencies=3))
    clip = slice(None, 16, 2)
    model.calibrate(tracklets, clip)
    clips = torch.from_numpy(np.stack([joints[clip] for joints in tracklets]))
    seen = model._moves(clips, torch.ones(clips.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(17, 30), atol=1e-4, rtol=0)
    still = torch.zeros(17, 30, dtype=torch.bool)
    still.view(17, 5, 6)[0, :, 3:] = True  # the root has no bone
    torch.testing.assert_close(seen.std(dim=0, correction=0), torch.where(still, 0.0, 1.0), atol=1e-3, rtol=0)
    assert {"mean_spectrum", "spectrum_spread"} <= model.state_dict().keys()
