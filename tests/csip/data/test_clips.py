from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csip.config import ClipSettings
from csip.data.clips import (
    Changes,
    chunk_bounds,
    normalize,
    read_frame,
    read_frames,
    sample_centres,
    sample_dense,
    sample_restricted,
    sample_strided,
    sample_training,
)
from csip.errors import CsipError
from csip.synthetic.world import load_truth
from pose_cache.joints import H36M17, JointSet

lengths, frames = st.integers(1, 200), st.integers(1, 20)


@given(lengths, frames, st.integers(0, 99))
def test_restricted_sampling_takes_one_frame_of_each_chunk(length: int, count: int, seed: int) -> None:
    bounds = chunk_bounds(length, count)
    chosen = sample_restricted(length, count, np.random.default_rng(seed))
    assert ((bounds[:, 0] <= chosen) & (chosen < bounds[:, 1])).all()
    assert bounds[0, 0] == 0
    assert (np.diff(chosen) >= 0).all()
    if length >= count:  # chunks cover everything once, and differ by one frame at most
        assert bounds[-1, 1] == length
        assert (bounds[1:, 0] == bounds[:-1, 1]).all()
        assert np.ptp(bounds[:, 1] - bounds[:, 0]) <= 1
    else:  # frames repeat evenly, not only the last one
        counts = np.bincount(chosen, minlength=length)
        assert counts.min() >= 1
        assert np.ptp(counts) <= 1


@given(lengths, frames)
def test_dense_sampling_uses_every_frame_in_order(length: int, count: int) -> None:
    clips = sample_dense(length, count)
    assert clips.shape == (-(-length // count), count)
    assert np.unique(clips).tolist() == list(range(length))
    assert (np.diff(clips.reshape(-1)) >= 0).all()


@given(lengths, frames)
def test_centre_sampling_is_in_the_middle_of_the_chunks(length: int, count: int) -> None:
    clips, bounds = sample_centres(length, count), chunk_bounds(length, count)
    assert clips.shape == (1, count)
    assert (np.abs((bounds[:, 0] + bounds[:, 1] - 1) / 2 - clips[0]) <= 0.5).all()


@given(lengths, frames, st.integers(1, 9), st.integers(0, 99))
def test_strided_sampling_keeps_its_step(length: int, count: int, stride: int, seed: int) -> None:
    chosen = sample_strided(length, count, stride, np.random.default_rng(seed))
    assert chosen.shape == (count,) and chosen.min() >= 0 and chosen.max() < length
    steps = np.diff(chosen)
    if length > (count - 1) * stride:
        assert (steps == stride).all()
    else:  # frames repeat evenly, and the clip reaches the tracklet's last frame that its step can reach
        assert set(steps) <= {0, stride} and chosen[-1] + stride >= length and chosen[0] < stride
        assert np.ptp(np.unique(chosen, return_counts=True)[1]) <= 1


def test_strided_sampling_starts_anywhere_and_takes_many_lengths() -> None:
    rng = np.random.default_rng(0)
    starts = {int(sample_strided(20, 4, 3, rng)[0]) for _ in range(500)}
    assert starts == set(range(11))
    many = sample_strided(np.array([20, 4, 1]), 4, 3, rng)
    assert many.shape == (3, 4) and (many < [[20], [4], [1]]).all() and (np.diff(many[0]) == 3).all()
    assert np.array_equal(
        sample_training(20, 4, None, np.random.default_rng(7)), sample_restricted(20, 4, np.random.default_rng(7))
    )
    assert (np.diff(sample_training(20, 4, 5, rng)) == 5).all()


@given(lengths, frames, st.integers(1, 30))
def test_interleaved_sampling_uses_every_frame_at_one_step(length: int, count: int, stride: int) -> None:
    clips = sample_dense(length, count, stride)
    assert sorted(np.unique(clips)) == list(range(length))
    assert all(set(np.diff(clip)) <= {0, stride} for clip in clips)
    own = [set(clip) for clip in clips]
    assert sum(map(len, own)) == length, "no frame is in two clips"
    rows = [-(-length // stride) - (first >= length % stride > 0) for first in range(min(stride, length))]
    assert len(clips) == sum(-(-row // count) for row in rows)
    whole = [clip for clip in own if len(clip) == count]
    assert len(whole) == sum(row // count for row in rows)


@given(lengths, frames, st.integers(1, 9))
def test_one_strided_clip_is_in_the_middle(length: int, count: int, stride: int) -> None:
    (clip,) = sample_centres(length, count, stride)
    assert len(clip) == count and set(np.diff(clip)) <= {0, stride}
    assert abs(clip[0] - (length - 1 - clip[-1])) <= 1
    assert len(set(clip)) == min(count, -(-length // stride))


def clip(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    images = rng.integers(0, 256, (4, 3, 32, 16), dtype=np.uint8)
    return images, rng.normal(size=(4, 17, 3)).astype(np.float32)


def augment(
    images: np.ndarray, joints: np.ndarray, joint_set: JointSet, settings: ClipSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    changes = Changes.draw(images, settings, rng)
    return changes.images(images, settings), changes.joints(joints, joint_set.mirror_order)


def test_flip_mirrors_images_and_skeleton_together() -> None:
    images, joints = clip(np.random.default_rng(0))
    settings = ClipSettings(flip=1, pad=0, erase=0)
    flipped, mirrored = augment(images, joints, H36M17, settings, np.random.default_rng(1))
    assert (flipped == images[..., ::-1]).all()
    right_knee, left_knee = 2, 5
    assert np.array_equal(mirrored[:, right_knee], joints[:, left_knee] * [-1, 1, 1])
    again, back = augment(flipped, mirrored, H36M17, settings, np.random.default_rng(1))
    assert np.array_equal(again, images) and np.array_equal(back, joints)


def test_a_mirrored_clips_skeleton_projects_onto_its_mirrored_frames(walkers: Path) -> None:
    settings = ClipSettings(height=64, width=32, flip=1, pad=0, erase=0)
    swapped = H36M17.mirror_order
    for truth in load_truth(walkers):
        images = read_frames(walkers, truth.frames, settings)
        flipped, mirrored = augment(images, truth.joints3d, H36M17, settings, np.random.default_rng(0))
        assert (flipped == images[..., ::-1]).all()
        # The camera that would have seen the mirrored world: what was at column u is at column width - 1 - u.
        camera = truth.intrinsics * [[1, -1, 1], [1, 1, 1], [1, 1, 1]]
        camera[:, 0, 2] = settings.width - 1 - camera[:, 0, 2]
        rays = mirrored @ camera.transpose(0, 2, 1)
        seen = rays[..., :2] / rays[..., 2:]
        expected = truth.h36m[:, swapped] * [-1, 1] + [settings.width - 1, 0]
        np.testing.assert_allclose(seen, expected, atol=2e-3)
        assert np.abs(seen - truth.h36m).max() > 1, "the mirrored skeleton is not where the plain one was"


def test_crop_is_one_shift_for_all_frames_and_leaves_the_skeleton_alone() -> None:
    base = np.random.default_rng(0).integers(1, 256, (1, 3, 32, 16), dtype=np.uint8).repeat(4, axis=0)
    joints = np.ones((4, 17, 3), np.float32)
    shifts = set()
    for seed in range(20):
        cropped, same = augment(base, joints, H36M17, ClipSettings(flip=0, pad=3, erase=0), np.random.default_rng(seed))
        assert (cropped == cropped[:1]).all() and (same == joints).all()
        padded = np.pad(base[0], ((0, 0), (3, 3), (3, 3)))
        found = [
            (t, left) for t in range(7) for left in range(7)
            if np.array_equal(padded[:, t : t + 32, left : left + 16], cropped[0])
        ]  # fmt: skip
        assert found
        shifts.update(found)
    assert len(shifts) > 5


def test_erasing_stays_inside_and_differs_by_frame() -> None:
    settings = ClipSettings(flip=0, pad=0, erase=1)
    fill = np.round(np.asarray(settings.mean) * 255).astype(np.uint8)[:, None, None]
    images = np.zeros((64, 3, 32, 16), np.uint8)
    erased, _ = augment(images, np.zeros((64, 17, 3), np.float32), H36M17, settings, np.random.default_rng(0))
    masks = (erased == fill).all(axis=1)
    share = masks.mean(axis=(1, 2))
    assert share.min() > 0.005 and share.max() < 0.45
    for mask in masks:  # one full rectangle each
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    centres = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
    assert centres.std(axis=0).min() > 1
    assert (images == 0).all(), "the input must not be changed"


def test_frames_are_rgb_resized_and_normalized(tmp_path: Path) -> None:
    red = np.zeros((20, 10, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    frame = read_frame(tmp_path / "red.png", 32, 16)
    assert frame.shape == (32, 16, 3) and (frame == [255, 0, 0]).all()
    settings = ClipSettings()
    values = normalize(torch.from_numpy(frame).permute(2, 0, 1), settings)[:, 0, 0]
    expected = (torch.tensor([1.0, 0, 0]) - torch.tensor(settings.mean)) / torch.tensor(settings.std)
    torch.testing.assert_close(values, expected)


WHOLE = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8))[1].tobytes()


@pytest.mark.parametrize("content", [None, b"", b"no image", WHOLE[: len(WHOLE) // 2]])
def test_broken_frames_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "0001C1T0001F001.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CsipError, match=r"0001C1T0001F001\.jpg"):
        read_frame(path, 32, 16)
