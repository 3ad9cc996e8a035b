"""The renderer of walking people: layout, truth, determinism, lookalikes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from monitors import Told

from csip.errors import CsipError
from csip.synthetic.body import H36M_NAMES, make_identity, walk
from csip.synthetic.camera import cut_background, make_camera
from csip.synthetic.walks import render_walk
from csip.synthetic.world import SyntheticSpec, identity, load_truth, lookalikes, render_mars

SPEC = SyntheticSpec(
    seed=3,
    train_ids=4,
    test_ids=5,
    cameras=2,
    tracklets_per_camera=2,
    frames=5,
    height=64,
    width=32,
    distractors=3,
    junk=2,
)
BONES = [
    (1, 2),
    (2, 3),
    (4, 5),
    (5, 6),
    (0, 7),
    (7, 8),
    (8, 9),
    (9, 10),
    (11, 12),
    (12, 13),
    (14, 15),
    (15, 16),
    (1, 4),
    (11, 14),
]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "world"
    render_mars(root, SPEC, workers=1)
    return root


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(rendered: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render_mars(tmp_path / "again", SPEC, workers=2, monitor=Told(lambda done, total: seen.append((done, total))))
    assert digests(tmp_path / "again") == digests(rendered)
    assert seen[-1] == (41 * 5, 41 * 5)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_relative_folder_is_that_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(SPEC, train_ids=1, test_ids=1, distractors=0, junk=0, frames=1)
    for place in ("here", "there"):  # the second time the processes are known already
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        render_mars(Path("world"), small, workers=2)
        assert len(list((tmp_path / place / "world").rglob("*.jpg"))) == 8


def test_another_seed_gives_other_people() -> None:
    first, again, other = (render_walk(seed, 1, 1, frames=2, height=64, width=32) for seed in (3, 3, 4))
    assert np.array_equal(first.crops, again.crops)
    assert np.abs(first.crops.astype(int) - other.crops).mean() > 5


def test_layout_is_that_of_mars(rendered: Path) -> None:
    names = (rendered / "info" / "test_name.txt").read_text().split()
    rows = scipy.io.loadmat(rendered / "info" / "tracks_test_info.mat")["track_test_info"]
    queries = scipy.io.loadmat(rendered / "info" / "query_IDX.mat")["query_IDX"].ravel()
    assert rows.shape == (2 + 3 + 5 * 2 * 2, 4)
    assert rows[0, 0] == 1 and rows[-1, 1] == len(names)
    assert np.array_equal(rows[1:, 0], rows[:-1, 1] + 1)
    for start, end, pid, camera in rows:
        label = "00-1" if pid == -1 else f"{pid:04d}"
        for number, name in enumerate(names[start - 1 : end], start=1):
            assert name.startswith(f"{label}C{camera}T") and name.endswith(f"F{number:03d}.jpg")
            assert (rendered / "bbox_test" / label / name).is_file()
    assert sorted(set(rows[:, 2])) == [-1, 0, 5, 6, 7, 8, 9]
    asked = [(int(rows[index - 1, 2]), int(rows[index - 1, 3])) for index in queries]
    assert asked == [(pid, camera) for pid in range(5, 10) for camera in (1, 2)]
    train = scipy.io.loadmat(rendered / "info" / "tracks_train_info.mat")["track_train_info"]
    assert train.shape == (4 * 2 * 2, 4) and set(train[:, 2]) == {1, 2, 3, 4}
    picture = cv2.imread(str(rendered / "bbox_train" / "0001" / "0001C1T0001F001.jpg"))
    assert picture.shape == (64, 32, 3)


def test_truth_pairs_with_the_files_and_projects_onto_itself(rendered: Path) -> None:
    truths = list(load_truth(rendered))
    assert len(truths) == 41 and truths[0].name == "train/0001C1T0001"
    for truth in truths:
        assert all((rendered / frame).is_file() for frame in truth.frames)
        rays = truth.joints3d @ np.transpose(truth.intrinsics, (0, 2, 1))
        np.testing.assert_allclose(rays[..., :2] / rays[..., 2:], truth.h36m, atol=2e-3)
        if "00-1" not in truth.name:
            inside = (truth.h36m > -0.5) & (truth.h36m < [31.5, 63.5])
            assert inside.mean() > 0.97
    cut = [truth for truth in truths if "00-1" in truth.name]
    assert len(cut) == 2
    assert all(((truth.h36m < 0) | (truth.h36m > [31, 63])).any(axis=-1).mean() > 0.1 for truth in cut)


def test_people_walk_upright_on_rigid_bones() -> None:
    for key in range(1, 6):
        person = make_identity(0, key)
        joints = walk(person.body, person.gait, np.linspace(0, 2, 40)).stack(H36M_NAMES)
        for first, second in BONES:
            length = np.linalg.norm(joints[:, first] - joints[:, second], axis=-1)
            assert np.ptp(length) < 1e-9, (first, second)
        assert np.all(joints[:, 10, 2] > joints[:, 8, 2]) and np.all(joints[:, 8, 2] > joints[:, 0, 2])
        assert joints[..., 2].min() > 0  # nobody sinks into the ground
        assert np.all(joints[:, 11, 1] > joints[:, 14, 1])  # the left shoulder is on the left
        # Ankles cross twice a cycle, and arms swing against the legs.
        ahead = joints[:, 3, 0] - joints[:, 6, 0]
        assert np.count_nonzero(np.diff(np.sign(ahead))) == 4
        swing = joints[:, 16, 0] - joints[:, 13, 0]
        assert np.corrcoef(ahead, swing)[0, 1] < 0


def test_camera_axes_are_right_down_forward() -> None:
    camera = make_camera(0, 1)
    ahead = camera.position + camera.rotation.T @ np.array([0.2, 0.5, 4.0])
    np.testing.assert_allclose(camera.to_camera(ahead), [0.2, 0.5, 4.0], atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1.0)
    low, high = camera.project(camera.to_camera(np.array([[0.0, camera.distance, 0.0], [0.0, camera.distance, 2.0]])))
    assert low[1] > high[1]


def test_lookalikes_share_clothing_and_nothing_else(rendered: Path) -> None:
    spec = replace(SPEC, train_ids=11, test_ids=20)
    groups = lookalikes(spec)
    assert len([group for group in groups if group[-1] <= 11]) == 2
    assert len([group for group in groups if group[0] > 11]) == 5
    alone = set(range(1, 32)) - {pid for group in groups for pid in group}
    for first, second in groups:
        one, two = identity(spec, first), identity(spec, second)
        assert one.clothing == two.clothing
        assert one.body != two.body and one.gait != two.gait
        assert all(identity(spec, pid).clothing != one.clothing for pid in alone)
    assert json.loads((rendered / "lookalikes.json").read_text()) == lookalikes(SPEC)
    stored = json.loads((rendered / "identities.json").read_text())["identities"]
    for first, second in lookalikes(SPEC):
        assert stored[str(first)]["clothing"] == stored[str(second)]["clothing"]
    assert len(lookalikes(replace(spec, twin_share=1.0))) == 15 and lookalikes(replace(spec, twin_share=0.0)) == []


def test_bodies_differ_enough_to_be_seen() -> None:
    bodies = [make_identity(0, key).body for key in range(200)]
    for value in (
        [body.shoulder / body.height for body in bodies],
        [body.trunk_girth for body in bodies],
        [(body.thigh + body.shin) / body.torso for body in bodies],
        [body.head / body.height for body in bodies],
    ):
        assert np.std(value) / np.mean(value) > 0.05


def test_joints_lie_on_the_person() -> None:
    """Where a limb's joint is, the picture differs from the empty scene; beside the person it does not."""
    on, off = [], []
    for key in range(1, 7):
        camera = make_camera(5, key)
        seen = render_walk(5, key, key, frames=4, height=128, width=64, occlusion=0.0)
        for crop, joints, box in zip(seen.crops, seen.h36m, seen.boxes, strict=True):
            change = np.abs(crop.astype(int) - cut_background(camera, box, 64, 128)).max(axis=-1)
            change = cv2.medianBlur(change.astype(np.uint8), 3)
            x, y = np.clip(np.round(joints).astype(int), 0, [63, 127]).T
            on.append(change[y, x])
            off.append(change[:8, [0, 1, 2, 61, 62, 63]])
    assert np.median(np.concatenate(on)) > 30
    assert (np.concatenate(on) > 15).mean() > 0.85
    assert np.median(np.concatenate(off)) < 12


def test_arrays_come_in_the_order_asked_for() -> None:
    walks = [
        render_walk(9, key, camera, number, frames=2, height=32, width=16)
        for key in (4, 2) for camera in (3, 1) for number in (0, 1)
    ]  # fmt: skip
    assert [(tracklet.key, tracklet.camera) for tracklet in walks] == [(k, c) for k in (4, 2) for c in (3, 3, 1, 1)]
    assert np.array_equal(walks[3].crops, render_walk(9, 4, 1, 1, frames=2, height=32, width=16).crops)
    assert walks[0].crops.shape == (2, 32, 16, 3) and walks[0].joints3d.shape == (2, 17, 3)
    unpainted = render_walk(9, 4, 1, 1, frames=2, height=32, width=16, paint=False)
    assert len(unpainted.crops) == 0 and np.array_equal(unpainted.coco, walks[3].coco)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(CsipError, match="mine"):
        render_mars(tmp_path / "mine", SPEC)
    with pytest.raises(CsipError, match="truth"):
        next(load_truth(tmp_path / "mine"))
    render_mars(tmp_path / "mine", replace(SPEC, train_ids=1, test_ids=1, frames=1), replace=True)
    assert not (tmp_path / "mine" / "thesis.txt").exists() and list(load_truth(tmp_path / "mine"))
    with pytest.raises(CsipError, match="cameras"):
        SyntheticSpec(cameras=1)


def test_a_killed_render_leaves_no_data_set(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    small = replace(SPEC, train_ids=1, test_ids=1, distractors=0, junk=0, frames=1)
    with pytest.raises(KeyboardInterrupt):
        render_mars(tmp_path / "world", small, monitor=Told(stop))
    assert not (tmp_path / "world").exists()
    render_mars(tmp_path / "world", small)
    assert len(list((tmp_path / "world").rglob("*.jpg"))) == 8
