"""Boxes that are given: MOTChallenge's text, tables, and what cannot be used."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monitors import Heard

from csip.errors import CsipError
from csip.video.boxes import find_boxes, read_boxes
from csip.video.find import VideoFile, find_videos


def test_truth_of_motchallenge(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text(
        "3,7,10.5,20,30,60.25,1,1,0.8\n1,7,10,20,30,60,1,1,1\n1,2,100,20,30,60,1,1,1\n"
        "1,9,100,20,30,60,0,1,1\n1,11,100,20,30,60,1,7,1\n"
    )
    given = read_boxes(path)
    assert given.tracked
    tracks = given.by_track()
    assert sorted(tracks) == [2, 7]  # 9 is to be ignored, and 11 is no pedestrian
    assert tracks[7].frames.tolist() == [1, 3]
    assert tracks[7].boxes.tolist() == [[10, 20, 40, 80], [10.5, 20, 40.5, 80.25]]


def test_detections_of_motchallenge(tmp_path: Path) -> None:
    path = tmp_path / "det.txt"
    path.write_text("1,-1,10,20,30,60,-4,-1,-1,-1\n1,-1,50,20,30,60,16,-1,-1,-1\n2,-1,50,20,30,60,6,-1,-1,-1\n")
    given = read_boxes(path)
    assert not given.tracked
    assert given.of_frame(1).scores.tolist() == pytest.approx([0.1, 1.0])
    assert given.of_frame(2).boxes.tolist() == [[50, 20, 80, 80]]
    assert given.of_frame(2).scores.tolist() == pytest.approx([0.55])
    assert given.of_frame(3).boxes.shape == (0, 4)


def test_table_with_a_head(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("conf,x,y,w,h,frame\n0.25,1,2,3,4,5\n0.75,1,2,3,4,6\n")
    given = read_boxes(path)
    assert not given.tracked
    assert given.frames.tolist() == [5, 6]
    assert given.boxes[0].tolist() == [1, 2, 4, 6]
    assert given.of_frame(5).scores.tolist() == [0.25]  # already shares
    path.write_text("frame,track,x,y,width,height,extra\n5,3,1,2,3,4,yes\n")
    assert read_boxes(path).by_track()[3].boxes.tolist() == [[1, 2, 4, 6]]


def test_empty_file_is_a_video_without_people(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    given = read_boxes(tmp_path / "a.txt")
    assert not given.tracked
    assert len(given.of_frame(1).scores) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,0,0,5,5,1\n1,x,0,0,5,5,1\n", "line 2: track is 'x'"),
        ("1,1,0,0,5\n", "line 1: height is ''"),
        ("1,1,0,0,nan,5,1\n", "line 1: width is 'nan'"),
        ("1.5,1,0,0,5,5,1\n", "line 1: frame is 1.5"),
        ("1,1,0,0,0,5,1\n", "line 1: the box is 0 x 5"),
        ("1,4,0,0,5,5,1\n\n1,4,9,9,5,5,1\n", "lines 1 and 3 both have track 4 in frame 1"),
        ("1,4,0,0,5,5,1\n2,-1,9,9,5,5,1\n", "line 2 has no track"),
        ("frame,x,y,width\n1,2,3,4\n", "no column height"),
        ("\x00\xff\n", "not a text file|no column"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CsipError, match=message):
        read_boxes(path)


def test_where_boxes_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "v/hall").mkdir(parents=True)
    (tmp_path / "v/hall/a.mp4").touch()
    (tmp_path / "v/M1/img1").mkdir(parents=True)
    (tmp_path / "v/M1/img1/000001.jpg").touch()
    sequence, video = find_videos(tmp_path / "v")
    assert (sequence.name, video.name) == ("M1", "hall/a.mp4")
    with pytest.raises(CsipError, match=r"no boxes; looked for .*hall/a\.txt"):
        find_boxes(video, None)
    for name, of in (("v/M1/det/det.txt", sequence), ("v/M1/gt/gt.txt", sequence), ("v/M1.txt", sequence),
                     ("v/hall/a.txt", video)):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert find_boxes(of, None) == tmp_path / name
    (tmp_path / "b/hall").mkdir(parents=True)
    for name, of in (("b/a.csv", video), ("b/hall/a.txt", video), ("b/M1.txt", sequence)):
        (tmp_path / name).touch()
        assert find_boxes(of, tmp_path / "b") == tmp_path / name


def names(videos: list[VideoFile]) -> list[tuple[str, str, str]]:
    return [(video.name, video.camera, video.stem) for video in videos]


def test_videos_and_their_cameras(tmp_path: Path) -> None:
    for name in ("door.mp4", "hall/Mon day.AVI", "hall/mon.mkv", "hall/mon.mp4", "site/hall/x.mov", ".hidden/a.mp4",
                 "notes.txt", "pics/1.jpg", "hall/thumbs/poster.mp4.part"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(find_videos(tmp_path)) == [
        ("door.mp4", "door", "door"),
        ("hall/Mon day.AVI", "hall", "Mon_day"),
        ("hall/mon.mkv", "hall", "mon"),
        ("hall/mon.mp4", "hall", "mon~2"),
        ("pics", "pics", "pics"),
        ("site/hall/x.mov", "site-hall", "x"),
    ]
    assert names(find_videos(tmp_path / "hall/mon.mp4")) == [("mon.mp4", "mon", "mon")]
    with pytest.raises(CsipError, match="no videos in it"):
        find_videos(tmp_path / "hall/thumbs")
    with pytest.raises(CsipError, match="no such folder"):
        find_videos(tmp_path / "none")


def test_camera_by_pattern(tmp_path: Path) -> None:
    for name in ("c1_s1.mp4", "c2_s1.mp4", "s2/c1_s1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [("c1_s1.mp4", "c1", "c1_s1"), ("c2_s1.mp4", "c2", "c2_s1"), ("s2/c1_s1.mp4", "c1", "s2-c1_s1")]
    assert names(find_videos(tmp_path, r"c\d")) == expected
    assert [camera for _, camera, _ in names(find_videos(tmp_path, r"c(\d)_"))] == ["1", "2", "1"]
    assert [camera for _, camera, _ in names(find_videos(tmp_path, r"(c)(?P<camera>\d)"))] == ["1", "2", "1"]
    for pattern, message in (
        ("x(", "no regular expression"),
        ("c2", "does not match c1_s1.mp4"),
        ("c()", "empty name"),
    ):
        with pytest.raises(CsipError, match=message):
            find_videos(tmp_path, pattern)


def test_pictures_beside_a_video_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.jpg").touch()
    assert [video.name for video in find_videos(tmp_path)] == ["a.mp4"]


def test_a_sequence_by_itself(tmp_path: Path) -> None:
    (tmp_path / "M1/img1").mkdir(parents=True)
    np.save(tmp_path / "M1/x.npy", np.zeros(1))
    (tmp_path / "M1/img1/000001.jpg").touch()
    for root in (tmp_path / "M1", tmp_path / "M1/img1"):
        assert names(find_videos(root)) == [("M1", "M1", "M1")]
        assert find_videos(root)[0].path == tmp_path / "M1/img1"


def test_links_in_a_circle_list_a_video_once(tmp_path: Path) -> None:
    root = tmp_path / "v"
    (root / "b/deep").mkdir(parents=True)
    (root / "b/deep/one.mp4").touch()
    (root / "b/deep/up").symlink_to(root)
    (root / "b/self").symlink_to(root / "b/self")
    (root / "a").symlink_to(root / "b")
    (root / "a.mp4").symlink_to(root / "b/deep/one.mp4")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/two.mp4").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    heard = Heard()
    assert names(find_videos(root, monitor=heard)) == [
        ("b/deep/one.mp4", "b-deep", "one"),
        ("linked/two.mp4", "linked", "two"),
    ]
    assert heard.said == [f"{root}: 3 links lead to folders or videos that are listed already, and are not followed"]


def test_cameras_that_are_alike_are_told_apart(tmp_path: Path) -> None:
    for name in (
        "a/b/x.mp4",
        "a-b/x.mp4",
        "cam 1/x.mp4",
        "cam#1/x.mp4",
        "cam_1/x.mp4",
        "caf\u00e9/x.mp4",
        "cafe\u0301/y.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    heard = Heard()
    cameras = {video.name: video.camera for video in find_videos(tmp_path, monitor=heard)}
    assert cameras == {
        "a-b/x.mp4": "a-b", "a/b/x.mp4": "a-b~2", "cam_1/x.mp4": "cam_1", "cam 1/x.mp4": "cam_1~2", "cam#1/x.mp4": "cam_1~3",
        "caf\u00e9/x.mp4": "caf\u00e9", "cafe\u0301/y.mp4": "caf\u00e9",
    }  # fmt: skip
    assert heard.said == [
        "cameras whose names are alike: a-b is a-b, a/b is a-b~2",
        "cameras whose names are alike: cam_1 is cam_1, cam 1 is cam_1~2, cam#1 is cam_1~3",
    ]
    found = find_videos(tmp_path, "[^/]+")
    assert len({video.camera for video in found}) == 6, (
        "an expression's cameras, too: a, a-b, three of cam, one of caf\u00e9"
    )


def test_names_that_are_no_text_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")).touch()
    for video in find_videos(tmp_path):
        assert video.name.encode()
        assert video.camera.encode()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    folders=st.lists(
        st.text("ab-_ #.~1\u00e9", min_size=1, max_size=4).filter(lambda name: name[0] != "."), min_size=1, max_size=5
    )
)
def test_a_camera_a_folder(tmp_path_factory: pytest.TempPathFactory, folders: list[str]) -> None:
    root = tmp_path_factory.mktemp("v")
    for folder in folders:
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "x.mp4").touch()
    found = find_videos(root)
    visible = set(folders)
    assert {video.path.parent.name for video in found} == visible
    assert len({video.camera for video in found}) == len(visible)
    assert all(re.fullmatch(r"[\w.~-]+", video.camera) for video in found)
