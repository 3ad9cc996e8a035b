import itertools

import numpy as np
import pytest

from pose_cache.compat import guard_torchvision
from pose_cache.errors import PoseCacheError
from pose_cache.joints import (
    COCO17,
    H36M17,
    KINECT20,
    KINECT25,
    JointSet,
    coco_to_h36m,
    joint_set,
    kinect20_to_h36m,
    mirror,
)

ALL = [H36M17, COCO17, KINECT20, KINECT25]


@pytest.mark.parametrize("joints", ALL, ids=lambda joints: joints.name)
def test_bones_form_one_tree_and_mirroring_keeps_it(joints: JointSet):
    assert joint_set(joints.name) is joints
    assert len(set(joints.joints)) == joints.size
    assert len(joints.bones) == joints.size - 1
    reached = {joints.root}
    for _ in joints.bones:
        reached |= {b for a, b in joints.bones if a in reached}
    assert reached == set(range(joints.size))
    order = joints.mirror_order
    assert {(order[a], order[b]) for a, b in joints.bones} == set(joints.bones)
    for index, name in enumerate(joints.joints):
        other = {"left": "right", "right": "left"}.get(name.split("_")[0])
        swapped = name.replace(name.split("_")[0], other, 1) if other else name
        assert joints.joints[order[index]] == swapped


def test_human36m_is_the_order_and_the_bones_of_the_method():
    expected_pairs = ((1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16))
    assert H36M17.mirror_pairs == expected_pairs
    chains = [(0, 1, 2, 3), (0, 4, 5, 6), (0, 7, 8, 9, 10), (8, 11, 12, 13), (8, 14, 15, 16)]
    assert set(H36M17.bones) == {pair for chain in chains for pair in itertools.pairwise(chain)}


def test_orders_agree_with_mmpose():
    guard_torchvision()
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    coco = parse_pose_metainfo(dict(from_file="configs/_base_/datasets/coco.py"))
    assert tuple(coco["keypoint_id2name"].values()) == COCO17.joints
    assert list(COCO17.mirror_order) == coco["flip_indices"]
    h36m = parse_pose_metainfo(dict(from_file="configs/_base_/datasets/h36m.py"))
    assert list(H36M17.mirror_order) == h36m["flip_indices"]
    assert H36M17.joints[3] == "right_ankle"
    assert h36m["keypoint_id2name"][3] == "right_foot"


def test_coco_conversion_is_mmposes():
    guard_torchvision()
    from mmpose.apis import convert_keypoint_definition

    keypoints = np.random.default_rng(0).normal(size=(5, 17, 3)).astype(np.float32)
    np.testing.assert_allclose(coco_to_h36m(keypoints), convert_keypoint_definition(keypoints, "coco", "h36m"))


def test_mirror_twice_is_nothing_and_moves_the_right_hand_to_the_left():
    points = np.random.default_rng(1).normal(size=(4, 6, 17, 3)).astype(np.float32)
    before = points.copy()
    mirrored = mirror(points, H36M17)
    np.testing.assert_array_equal(points, before)
    np.testing.assert_array_equal(mirror(mirrored, H36M17), points)
    np.testing.assert_array_equal(mirrored[..., 13, :], points[..., 16, :] * [-1, 1, 1])


def test_conversions_commute_with_mirroring():
    points = np.random.default_rng(2).normal(size=(3, 20, 3))
    np.testing.assert_allclose(mirror(kinect20_to_h36m(points), H36M17), kinect20_to_h36m(mirror(points, KINECT20)))
    keypoints = np.random.default_rng(3).normal(size=(3, 17, 3))
    np.testing.assert_allclose(mirror(coco_to_h36m(keypoints), H36M17), coco_to_h36m(mirror(keypoints, COCO17)))


def test_kinect_conversion_keeps_named_joints_and_orders_the_trunk():
    points = np.zeros((20, 3))
    points[:, 0] = np.arange(20)
    converted = kinect20_to_h36m(points)
    same = {"pelvis": "hip_center", "head": "head"}
    for index, name in enumerate(H36M17.joints):
        if name.startswith(("left_", "right_")) or name in same:
            assert converted[index, 0] == KINECT20.joints.index(same.get(name, name)), name
    standing = np.zeros((20, 3))
    standing[[0, 1, 2, 3], 1] = 0.0, 0.07, 0.5, 0.7
    standing[[4, 8], 1] = 0.45
    trunk = kinect20_to_h36m(standing)[[0, 7, 8, 9, 10], 1]
    assert (np.diff(trunk) > 0).all()


def test_wrong_names_and_shapes_say_what_was_expected():
    with pytest.raises(PoseCacheError, match="h36m17, coco17, kinect20, kinect25"):
        joint_set("h36m")
    with pytest.raises(PoseCacheError, match=r"kinect20.*\(2, 17, 3\)"):
        kinect20_to_h36m(np.zeros((2, 17, 3)))
