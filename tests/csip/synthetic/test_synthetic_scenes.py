"""Rendered videos: the truth beside them is what their pictures show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from csip.errors import CsipError
from csip.synthetic.videos import SceneFrame, SceneSpec, detect_fallibly, render_scene, render_videos

SPEC = SceneSpec(seed=3, people=3, cameras=2, seconds=5, fps=8, height=144)


@pytest.fixture(scope="module")
def scene() -> list[SceneFrame]:
    return list(render_scene(SPEC, 1))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "videos"
    render_videos(root, SPEC)
    return root


def table(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def test_boxes_are_where_something_moves(scene: list[SceneFrame]) -> None:
    """The median over time is the empty picture; what differs from it is inside the boxes, and fills them."""
    empty = np.median([frame.picture for frame in scene], axis=0)
    inside, outside, touched = [], [], []
    for frame in scene:
        moved = np.abs(frame.picture - empty).max(axis=-1) > 40
        mask = np.zeros(moved.shape, bool)
        for box, visibility in zip(frame.boxes, frame.visibility, strict=True):
            x0, y0, x1, y1 = np.round([*box[:2], *(box[:2] + box[2:])]).astype(int)
            mask[y0:y1, x0:x1] = True
            if visibility > 0.95:
                rows, columns = np.nonzero(moved[y0:y1, x0:x1])
                touched.append((np.ptp(rows) + 1) / (y1 - y0))
                assert np.ptp(columns) + 1 <= x1 - x0
        inside.append(moved[mask].sum())
        outside.append(moved[~mask].sum())
    # Shadows lie outside the boxes.
    assert np.sum(outside) < 0.1 * np.sum(inside)
    assert np.median(touched) > 0.9


def test_everybody_comes_and_goes_before_every_camera(scene: list[SceneFrame]) -> None:
    width, height = SPEC.size
    assert scene[0].picture.shape == (height, width, 3)
    other = list(render_scene(SPEC, 2))
    for frames in (scene, other):
        assert len(frames) == SPEC.frames
        assert {int(person) for frame in frames for person in frame.people} == {1, 2, 3}
    assert [frame.people.tolist() for frame in scene] != [frame.people.tolist() for frame in other]
    sizes = np.concatenate([frame.boxes[frame.visibility > 0.95, 3] for frame in scene])
    assert 0.6 * SPEC.person * height < np.median(sizes) < 1.5 * SPEC.person * height
    for frame in scene:
        assert (frame.boxes[:, :2] >= 0).all() and (frame.boxes[:, :2] + frame.boxes[:, 2:] <= [width, height]).all()


def test_who_is_behind_is_seen_less() -> None:
    frames = list(render_scene(SceneSpec(seed=1, people=6, cameras=1, seconds=4, fps=8, height=144), 1))
    shares = np.concatenate([frame.visibility for frame in frames])
    assert shares.min() < 0.5 and (shares > 0.99).mean() > 0.3 and shares.max() <= 1
    hidden = 0
    for frame in frames:
        # A visibility well below 1 in the middle of the picture has somebody else's box over it.
        for row in np.flatnonzero(frame.visibility < 0.7):
            x, _, w, _ = frame.boxes[row]
            if x < 3 or x + w > 253:
                continue
            others = np.delete(frame.boxes, row, axis=0)
            assert ((others[:, 0] < x + w) & (others[:, 0] + others[:, 2] > x)).any()
            hidden += 1
    assert hidden


def test_files_are_the_scene(videos: Path, scene: list[SceneFrame]) -> None:
    assert sorted(path.name for path in (videos / "videos").iterdir()) == ["cam1.mp4", "cam2.mp4"]
    assert json.loads((videos / "scenes.json").read_text())["people"] == 3
    with av.open(str(videos / "videos/cam1.mp4")) as container:
        assert container.streams.video[0].average_rate == SPEC.fps
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == len(scene)
    differences = [np.abs(one.astype(int) - frame.picture).mean() for one, frame in zip(decoded, scene, strict=True)]
    assert max(differences) < 6
    truth = table(videos / "gt/cam1.txt")
    assert truth.shape[1] == 9 and truth[:, 0].min() >= 1 and truth[:, 0].max() <= len(scene)
    for number, frame in enumerate(scene, start=1):
        rows = truth[truth[:, 0] == number]
        assert rows[:, 1].tolist() == frame.people.tolist()
        np.testing.assert_allclose(rows[:, 2:6], frame.boxes, atol=0.011)
        np.testing.assert_allclose(rows[:, 8], frame.visibility, atol=0.0011)
    assert (table(videos / "det/cam1.txt")[:, 1] == -1).all()


def test_a_fallible_detector(scene: list[SceneFrame]) -> None:
    perfect = SceneSpec(jitter=0, missed=0, false=0)
    rng = np.random.default_rng(0)
    for frame in scene:
        boxes, scores = detect_fallibly(frame, perfect, rng)
        np.testing.assert_array_equal(boxes, frame.boxes[frame.visibility > 0.3])
        assert ((scores >= 0.3) & (scores <= 1)).all()
    seen = sum((frame.visibility > 0.3).sum() for frame in scene)
    half = sum(len(detect_fallibly(frame, SceneSpec(missed=0.5, false=0), rng)[0]) for frame in scene)
    assert 0.3 * seen < half < 0.7 * seen
    strays = sum(len(detect_fallibly(frame, SceneSpec(missed=1, false=2), rng)[0]) for frame in scene)
    assert 1.4 * len(scene) < strays < 2.6 * len(scene)


def test_same_spec_same_pictures(scene: list[SceneFrame]) -> None:
    for frame, again in zip(scene, render_scene(SPEC, 1), strict=True):
        np.testing.assert_array_equal(frame.picture, again.picture)
    other = next(render_scene(SceneSpec(**{**SPEC.__dict__, "seed": 4}), 1))
    assert np.abs(other.picture.astype(int) - scene[0].picture).mean() > 10


def test_nothing_is_overwritten(videos: Path) -> None:
    with pytest.raises(CsipError, match="expected a new or an empty folder"):
        render_videos(videos, SPEC)
    with pytest.raises(CsipError, match="people: expected 1 to 999, got 0"):
        SceneSpec(people=0)


def test_workers_of_another_working_directory_write_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        render_videos(Path("scenes"), replace(SPEC, people=1, seconds=1, height=72), workers=2)
        assert len(list((tmp_path / place / "scenes/videos").iterdir())) == SPEC.cameras
