"""Frames without a pose: filled where that is safe, and otherwise without any influence."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from whole_method import WHOLE

from csip.config import ClipSettings, Settings, SkeletonEncoderSettings, Stage2Settings
from csip.data.clips import Draw, TrainingClips
from csip.data.readers import load_dataset
from csip.data.skeletons import Skeletons, fill_gaps, load_skeletons
from csip.models.reid import ReIDModel
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.vision import create_vision
from csip.training.prototypes import prototypes, skeleton_prototypes
from csip.training.stage1 import embed_skeletons
from pose_cache.joints import H36M17, mirror
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 6), st.integers(0, 99))
def test_gaps_are_filled_as_numpy_interpolates_and_no_others(pattern: list[bool], max_gap: int, seed: int) -> None:
    valid = np.array(pattern)
    joints = np.random.default_rng(seed).normal(size=(len(valid), 17, 3)).astype(np.float32)
    joints[~valid] = 0
    before = joints.copy(), valid.copy()
    filled, now = fill_gaps(joints, valid, max_gap)
    np.testing.assert_array_equal(joints, before[0])
    np.testing.assert_array_equal(valid, before[1])
    # Frame by frame, by looking for the nearest poses on both sides.
    for frame in range(len(valid)):
        earlier = [i for i in range(frame) if valid[i]]
        later = [i for i in range(frame + 1, len(valid)) if valid[i]]
        fillable = bool(earlier and later) and later[0] - earlier[-1] - 1 <= max_gap
        assert now[frame] == (valid[frame] or fillable)
        if valid[frame] or not fillable:
            np.testing.assert_array_equal(filled[frame], joints[frame])
    known = np.flatnonzero(valid)
    for frame in np.flatnonzero(now & ~valid):
        for joint in range(0, 17, 5):
            expected = [np.interp(frame, known, joints[known, joint, axis]) for axis in range(3)]
            np.testing.assert_allclose(filled[frame, joint], expected, rtol=1e-5, atol=1e-6)


def with_gaps(settings: Settings, path: Path, gaps: dict[int, list[int]], garbage: float = 0.0) -> Path:
    """Copy the cache with frames of some of its tracklets not valid."""
    with SkeletonStore(settings.dataset.path / "skeletons.h5") as store:
        made = []
        for number, name in enumerate(store.names):
            one = store.read(name)
            valid = ~np.isin(np.arange(len(one.frames)), gaps.get(number, []))
            made.append(replace(one, valid=valid, joints=np.where(valid[:, None, None], one.joints, garbage)))
        write_store(path, made, Provenance("truth", "h36m17", "metres"))
    return path


def test_gaps_are_filled_when_skeletons_are_loaded_and_stay_root_centred(settings: Settings, tmp_path: Path) -> None:
    path = with_gaps(settings, tmp_path / "s.h5", {0: [0, 2, 3, 5], 1: [1, 2, 3]})
    tracklets = load_dataset(settings.dataset).train[:2]
    assert [t.name for t in tracklets] == list(SkeletonStore(path).names[:2])
    whole = load_skeletons(settings.dataset.path / "skeletons.h5", tracklets)
    masked = load_skeletons(path, tracklets)
    filled = load_skeletons(path, tracklets, max_gap=2)
    assert masked.valid[0].tolist() == [False, True, False, False, True, False]
    assert filled.valid[0].tolist() == [False, True, True, True, True, False]
    assert filled.valid[1].tolist() == [True, False, False, False, True, True]
    assert np.abs(filled.joints[0][:, 0]).max() == 0
    near = np.abs(filled.joints[0][2:4] - whole.joints[0][2:4]).max()
    assert 0 < near < np.abs(whole.joints[0][2:4] - whole.joints[0][[1, 1]]).max()
    assert not filled.joints[1][1:4].any()


def test_filled_clips_are_mirrored_like_others(settings: Settings, tmp_path: Path) -> None:
    path = with_gaps(settings, tmp_path / "s.h5", {0: [2, 3]})
    dataset = load_dataset(settings.dataset)
    skeletons = load_skeletons(path, dataset.train[:1], max_gap=2)
    clips = [
        TrainingClips(
            dataset.root, dataset.train[:1], skeletons, {dataset.train[0].pid: 0}, {dataset.train[0].camera: 0},
            ClipSettings(frames=6, height=64, width=32, flip=flip, pad=0, erase=0),
        )[Draw(0, seed=0)]
        for flip in (0, 1)
    ]  # fmt: skip
    assert clips[0]["valid"].all() and clips[1]["valid"].all()
    np.testing.assert_array_equal(clips[1]["joints"].numpy(), mirror(clips[0]["joints"].numpy(), H36M17))


def encoder(width: int = 16) -> SkeletonGraphTransformer:
    torch.manual_seed(0)
    return SkeletonGraphTransformer(H36M17, width, SkeletonEncoderSettings(depth=3, heads=2)).eval()


@pytest.mark.parametrize("garbage", [1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("update_tokens", ["cls", "all"])
def test_no_output_of_the_model_depends_on_what_masked_frames_hold(
    update_tokens: Literal["cls", "all"], garbage: float, tower: Path
) -> None:
    torch.manual_seed(0)
    vision = create_vision(str(tower), None, (64, 32))
    settings = Stage2Settings(
        prototype_heads=2, temporal_heads=2, update_tokens=update_tokens, train_skeleton_encoder=True, **WHOLE
    )
    model = ReIDModel(vision, encoder(vision.embed_dim), 5, settings).eval()
    model.pfu.set_prototypes(torch.randn(5, 32), torch.randn(5, 32))
    torch.nn.init.normal_(model.pfu.out.weight, std=0.2)
    images, joints = torch.randn(3, 4, 3, 64, 32), torch.randn(3, 4, 17, 3)
    # One clip with gaps, one without a skeleton, a whole one.
    valid = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    filled = torch.where(valid[:, :, None, None], joints, garbage)
    before, after = (model(images, x, valid) for x in (joints, filled))
    for field in fields(before):
        torch.testing.assert_close(getattr(after, field.name), getattr(before, field.name), rtol=0, atol=0)
    tokens = [model.skeleton.pool(model.skeleton(x, valid), valid) for x in (joints, filled)]
    torch.testing.assert_close(tokens[1], tokens[0], rtol=0, atol=0)
    for parameters in zip(*(gradients(model, images, x, valid) for x in (joints, filled)), strict=True):
        torch.testing.assert_close(parameters[1], parameters[0], rtol=0, atol=0)


def gradients(model: ReIDModel, images: torch.Tensor, joints: torch.Tensor, valid: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    output = model(images, joints, valid)
    (output.csip_logits.square().sum() + output.frame_logits.square().sum()).backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_whole_tracklets_are_embedded_from_their_valid_frames(settings: Settings) -> None:
    rng = np.random.default_rng(0)
    valid = np.array([True, False, True, True, True, False])
    joints = rng.normal(size=(6, 17, 3)).astype(np.float32)
    embedded = []
    for garbage in (0.0, 1e6, np.nan):
        noisy = np.where(valid[:, None, None], joints, garbage).astype(np.float32)
        skeletons = Skeletons(H36M17, [noisy, noisy], [valid, np.zeros(6, bool)])
        embedded.append(embed_skeletons(encoder(), skeletons, 4))
    np.testing.assert_array_equal(embedded[1], embedded[0])
    np.testing.assert_array_equal(embedded[2], embedded[0])
    assert embedded[0][0].any() and not embedded[0][1].any()


@pytest.mark.parametrize("normalize", [True, False])
def test_tracklets_without_a_skeleton_do_not_thin_their_identitys_prototype(
    settings: Settings, normalize: bool
) -> None:
    settings = settings.model_copy(update={"stage1": settings.stage1.model_copy(update={"normalize": normalize})})
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(6, 8)).astype(np.float32), np.array([0, 0, 0, 1, 1, 2])
    known = np.array([True, False, True, True, True, False])
    features[~known] = 0
    visual = torch.from_numpy(rng.normal(size=(3, 8)).astype(np.float32))
    found = skeleton_prototypes(features, known, visual, labels, settings)
    torch.testing.assert_close(found[:2], prototypes(features[known], labels[known], settings))
    torch.testing.assert_close(found[2], visual[2])  # nobody has seen this skeleton


def test_a_run_with_gaps_ends(settings: Settings, tmp_path: Path) -> None:
    from csip.monitor import Silent
    from csip.training.stage1 import train_stage1
    from csip.training.stage2 import train_stage2

    # Gaps of both kinds, and a tracklet and an identity without any skeleton.
    gaps = {number: [0, 2, 5] for number in range(0, 24, 2)} | {number: list(range(6)) for number in (1, 4, 5, 6, 7)}
    path = with_gaps(settings, tmp_path / "s.h5", gaps, garbage=1e6)
    dataset = load_dataset(settings.dataset)
    assert np.isfinite(train_stage1(dataset, path, settings, tmp_path / "stage1", Silent()).loss)
    stage2 = settings.stage2.model_copy(update={"predict_skeletons": True, "reader_steps": 5})
    settings = settings.model_copy(update={"stage2": stage2})
    figures = train_stage2(dataset, path, tmp_path / "stage1", settings, tmp_path / "stage2", Silent())
    assert np.isfinite(figures.terms["csip"]) and np.isfinite(figures.terms["frame"])
    assert list(figures.f4_map) == [0.0, 0.5, 1.0] and all(0 < score <= 1 for score in figures.f4_map.values())


def test_a_frame_that_the_cache_does_not_have_is_a_gap(settings: Settings, tmp_path: Path) -> None:
    tracklet = load_dataset(settings.dataset).train[0]
    frames = (*tracklet.frames[:3], "new.jpg", *tracklet.frames[3:])
    skeletons = load_skeletons(settings.dataset.path / "skeletons.h5", [replace(tracklet, frames=frames)], max_gap=1)
    assert skeletons.valid[0].all()
    np.testing.assert_allclose(skeletons.joints[0][3], skeletons.joints[0][[2, 4]].mean(axis=0), atol=1e-6)


def test_store_keeps_nothing_where_there_is_no_pose(tmp_path: Path) -> None:
    valid = np.array([True, False])
    one = TrackletSkeletons("a", ("0.jpg", "1.jpg"), np.full((2, 17, 3), 7.0), np.zeros((2, 17, 3)), valid)
    write_store(tmp_path / "s.h5", [one], Provenance("x", "h36m17", "m"))
    with SkeletonStore(tmp_path / "s.h5") as store:
        assert store.valid("a").tolist() == [True, False]
        assert not store.joints("a")[1].any() and (store.joints("a")[0] == 7).all()
