from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose_cache.errors import PoseCacheError
from pose_cache.joints import COCO17, H36M17
from pose_cache.preview import draw_contact_sheet
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store


def standing() -> tuple[np.ndarray, np.ndarray]:
    """A person facing the camera: joints (17, 3), x right, y down; and COCO keypoints in a crop of 64 x 128."""
    heights = {
        "head": -0.8,
        "neck": -0.7,
        "thorax": -0.6,
        "spine": -0.3,
        "shoulder": -0.55,
        "elbow": -0.3,
        "wrist": -0.05,
    }
    heights |= {"hip": 0.0, "knee": 0.4, "ankle": 0.8, "nose": -0.75, "eye": -0.8, "ear": -0.78}

    def place(name: str) -> tuple[float, float]:
        side, _, part = name.rpartition("_")
        return {"left": 0.2, "right": -0.2}.get(side, 0.0), heights.get(part, 0.0)

    joints = np.array([[*place(name), 3.0] for name in H36M17.joints], np.float32)
    keypoints = np.array([[32 + 60 * x, 64 + 60 * y, 1] for x, y in map(place, COCO17.joints)], np.float32)
    return joints, keypoints


def test_the_sheet_shows_right_in_red_on_the_left_of_a_person_who_faces_the_camera(tmp_path: Path):
    joints, keypoints = standing()
    frames = ("a/0.png", "a/1.png", "a/gone.png")
    (tmp_path / "a").mkdir()
    for frame in frames[:2]:
        cv2.imwrite(str(tmp_path / frame), np.full((128, 64, 3), 255, np.uint8))
    valid = np.array([True, True, False])
    tracklet = TrackletSkeletons("a", frames, np.stack([joints] * 3), np.stack([keypoints] * 3), valid)
    write_store(tmp_path / "s.h5", [tracklet, replace(tracklet, name="b")], Provenance("test", "h36m17", "m"))
    out = draw_contact_sheet(SkeletonStore(tmp_path / "s.h5"), tmp_path, tmp_path / "sub" / "sheet.png", frames=3)
    sheet = cv2.imread(str(out)).astype(int)
    row = sheet[44 : 44 + 224]
    crop, front, side = row[:, :112], row[:, 118:268], row[:, 268:418]
    for part in (crop, front):
        red = np.argwhere((part[..., 2] > 180) & (part[..., 0] < 80))
        blue = np.argwhere((part[..., 0] > 160) & (part[..., 2] < 60))
        assert len(red) > 100 and len(blue) > 100
        assert red[:, 1].mean() < part.shape[1] / 2 < blue[:, 1].mean()
        assert np.ptp(red[:, 0]) > 100
    # From the side this flat person is a line.
    drawn = np.argwhere((side < 200).any(axis=2))
    assert np.ptp(drawn[:, 1]) < 10 and np.ptp(drawn[:, 0]) > 150
    assert sheet.shape[0] == 22 + 2 * (22 + 224)


def test_an_empty_cache_and_an_unknown_tracklet_are_refused(tmp_path: Path):
    write_store(tmp_path / "s.h5", [], Provenance("test", "h36m17", "m"))
    with pytest.raises(PoseCacheError, match="no tracklets to draw"):
        draw_contact_sheet(SkeletonStore(tmp_path / "s.h5"), tmp_path, tmp_path / "sheet.png")


def test_frames_without_a_pose_have_empty_views_and_grey_keypoints_if_any(tmp_path: Path):
    joints, keypoints = standing()
    (tmp_path / "a").mkdir()
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"a/{index}.png"), np.full((128, 64, 3), 255, np.uint8))
    frames, valid = ("a/0.png", "a/1.png", "a/gone.png"), np.array([True, False, False])
    for count in (17, 0):  # an import has no keypoints
        points = np.stack([keypoints] * 3)[:, :count]
        tracklet = TrackletSkeletons("a", frames, np.stack([joints] * 3), points, valid)
        write_store(tmp_path / "s.h5", [tracklet], Provenance("test", "h36m17", "m"))
        draw_contact_sheet(SkeletonStore(tmp_path / "s.h5"), tmp_path, tmp_path / "sheet.png", frames=3)
        row = cv2.imread(str(tmp_path / "sheet.png")).astype(int)[44 : 44 + 224]
        colourful = np.ptp(row, axis=2) > 30
        dark = (row < 200).any(axis=2)
        cell = 112 + 6 + 2 * 150
        assert colourful[:, :112].any() == dark[:, :112].any() == (count > 0)
        assert colourful[:, 118:cell].any()
        assert not colourful[:, cell:].any()
        assert dark[:, cell : cell + 112].any() == (count > 0)  # the second crop
        for start in (cell + 118, cell + 268, 2 * cell, 2 * cell + 118, 2 * cell + 268):  # a few words each
            assert 20 < dark[:, start : start + 110].sum() < 600
