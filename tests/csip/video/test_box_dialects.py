"""Boxes as trackers and benchmarks write them: the same tracks from every dialect, or an error that names the choice."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csip.errors import CsipError
from csip.video.box_raw import BoxesOptions
from csip.video.boxes import GivenBoxes, Shown, find_boxes, read_boxes
from csip.video.find import find_videos
from csip.video.geometry import Geometry

WIDTH, HEIGHT, FRAMES = 640, 360, 40
VIDEO = Shown(Geometry((WIDTH, HEIGHT)), 1, FRAMES, name="hall.mp4")
Row = tuple[int, int, int, int, int, int]  # frame from 1, track, left, top, width, height


def rows_of(given: GivenBoxes, digits: int = 6) -> list[tuple[float, ...]]:
    boxes = np.concatenate([given.boxes[:, :2], given.boxes[:, 2:] - given.boxes[:, :2]], axis=1).round(digits)
    return [
        (frame, track, *box)
        for frame, track, box in zip(given.frames.tolist(), given.tracks.tolist(), boxes.tolist(), strict=True)
    ]


def read(path: Path, text: str | bytes, options: BoxesOptions | None = None, video: Shown | None = VIDEO) -> GivenBoxes:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_boxes(path, options, video)


# ---- every dialect gives the same tracks -----------------------------------------------------------------------------

OTHERS = {"mot-gt": "3", "tracker": "2", "visdrone": "4"}


def mot(rows: list[Row]) -> str:
    return "".join(f"{f},{t},{x},{y},{w},{h},0.9,-1,-1,-1\n" for f, t, x, y, w, h in rows)


def truth(rows: list[Row]) -> str:
    lines = "".join(f"{f},{t},{x},{y},{w},{h},1,1,0.85\n" for f, t, x, y, w, h in rows)
    return lines + "1,900,5,5,50,50,1,3,1\n1,901,300,5,50,50,0,1,0.5\n"  # a car, and somebody to be ignored


def tracker(rows: list[Row]) -> str:
    lines = "".join(f"{f},{t},{x},{y},{w},{h},0.91,0,-1\n" for f, t, x, y, w, h in rows)
    return lines + "1,900,300,5,50,50,0.4,1,-1\n"


def tracker_of_ten(rows: list[Row]) -> str:
    lines = "".join(f"{f} {t} {x} {y} {w} {h} 0.91 0 -1 -1 \n" for f, t, x, y, w, h in rows)
    return lines + "1 900 300 5 50 50 0.4 2 -1 -1 \n"


def visdrone(rows: list[Row]) -> str:
    lines = "".join(f"{f},{t},{x},{y},{w},{h},1,{1 + t % 2},0,{f % 3}\n" for f, t, x, y, w, h in rows)
    return lines + "1,0,300,5,50,50,0,0,0,0\n1,900,300,5,50,50,1,4,0,2\n"


def yolo_in_one(rows: list[Row]) -> str:
    lines = [
        f"{f} 0 {(x + w / 2) / WIDTH:.9f} {(y + h / 2) / HEIGHT:.9f} {w / WIDTH:.9f} {h / HEIGHT:.9f} 0.9 {t}\n"
        for f, t, x, y, w, h in rows
    ]
    return "".join(lines) + "1 2 0.5 0.5 0.1 0.1 0.4 900\n1 2 0.6 0.5 0.1 0.1 0.4 901\n"


def with_header(rows: list[Row]) -> str:
    return (
        "track_id;class;xmin;ymin;xmax;ymax;frame\r\n"
        + "".join(f"{t};person;{x},0;{y};{x + w};{y + h};{f}\r\n" for f, t, x, y, w, h in rows)
        + "900;dog;300;5;350;55;1\r\n"
    )


def corners(rows: list[Row]) -> str:
    return "".join(f"{f}\t{t}\t{x}\t{y}\t{x + w}\t{y + h}\t0.9\n" for f, t, x, y, w, h in rows)


DIALECTS: dict[str, tuple[Callable[[list[Row]], str], BoxesOptions]] = {
    "mot": (mot, BoxesOptions()),
    "truth": (truth, BoxesOptions()),
    "tracker": (tracker, BoxesOptions()),
    "tracker of ten columns": (tracker_of_ten, BoxesOptions()),
    "visdrone": (visdrone, BoxesOptions(format="visdrone")),
    "yolo": (yolo_in_one, BoxesOptions()),
    "header": (with_header, BoxesOptions()),
    "corners": (corners, BoxesOptions(coordinates="xyxy")),
}


@st.composite
def tracks(draw: st.DrawFn) -> list[Row]:
    """People in some frames of a video, each somewhere inside its picture; no frame 0."""
    numbers = draw(st.lists(st.integers(1, 500), min_size=1, max_size=4, unique=True))
    found = []
    for number in numbers:
        for frame in draw(st.lists(st.integers(1, FRAMES), min_size=1, max_size=6, unique=True)):
            w, h = draw(st.integers(2, 60)), draw(st.integers(2, 120))
            found.append((frame, number, draw(st.integers(61, WIDTH - w)), draw(st.integers(0, HEIGHT - h)), w, h))
    return sorted(found)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tracks(), line=st.sampled_from(["\n", "\r\n"]), mark=st.sampled_from([b"", b"\xef\xbb\xbf"]))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_tracks_from_every_dialect(
    tmp_path: Path, dialect: str, rows: list[Row], line: str, mark: bytes
) -> None:
    write, options = DIALECTS[dialect]
    text = write(rows).replace("\r\n", "\n").replace("\n", line)
    given_boxes = read(tmp_path / "a.txt", mark + text.encode(), options)
    assert rows_of(given_boxes, 3) == [tuple(map(float, row)) for row in rows]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tracks(), separator=st.sampled_from([",", ";", "\t", " ", ", "]), first=st.sampled_from([0, 1]))
def test_separators_and_frames_from_zero(tmp_path: Path, rows: list[Row], separator: str, first: int) -> None:
    rows = [(1, 600, 100, 100, 20, 40), *rows]  # somebody is in the first frame, which proves a 0
    lines = [separator.join(map(str, (row[0] - 1 + first, *row[1:], 0.5))) for row in rows]
    assert rows_of(read(tmp_path / "a.txt", "\n".join(lines))) == [tuple(map(float, row)) for row in sorted(rows)]


def test_yolo_one_file_a_frame(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/hall.mp4").touch()
    video = find_videos(tmp_path / "v")[0]
    labels = tmp_path / "labels"
    labels.mkdir()
    for frame in (1, 2, 10):
        (labels / f"hall_{frame}.txt").write_text(
            f"0 0.5 0.5 0.1 0.2 0.88 7\n1 0.2 0.2 0.1 0.1 0.5 8\n0 0.{frame} 0.5 0.1 0.2 0.8\n"
        )
    (labels / "hall_other_3.txt").write_text("0 0.5 0.5 0.1 0.2 0.88 7\n")
    assert find_boxes(video, labels) == find_boxes(video, tmp_path) == labels
    found = read_boxes(labels, None, VIDEO)
    assert rows_of(found) == [(frame, 7, 288, 144, 64, 72) for frame in (1, 2, 10)]
    assert found.dropped == {"boxes: class 1": 3, "boxes: without a track": 3}
    (labels / "classes.txt").write_text("car\nperson\n")
    assert read_boxes(labels, None, VIDEO).dropped["boxes: class 0"] == 3
    assert "YOLO" in found.reading
    own = tmp_path / "v/hall"
    own.mkdir()
    for frame in range(3):
        (own / f"frame_{frame:06d}.txt").write_text("" if frame == 0 else "0 0.5 0.5 0.1 0.2\n")
    assert find_boxes(video, None) == own
    shifted = read_boxes(own, None, VIDEO)
    assert shifted.frames.tolist() == [2, 3], "an empty file of frame 0 proves that frames count from 0"
    assert shifted.length == 3
    (own / "frame_000001.txt").write_text("3 0.5 0.5 0.1 0.2\n")
    (own / "frame_000002.txt").unlink()
    with pytest.raises(CsipError, match=r"which of its classes \(3\) are people.*give those that are people$"):
        read_boxes(own, None, VIDEO)
    assert len(read_boxes(own, BoxesOptions(classes=("3",)), VIDEO).frames) == 1
    (own / "obj.names").write_text("car\nbus\ntree\nworker\n")
    with pytest.raises(
        CsipError, match=r"which of its classes \(3\) are people\? None of car, bus, tree, worker is called person"
    ):
        read_boxes(own, None, VIDEO)
    assert len(read_boxes(own, BoxesOptions(classes=("worker",)), VIDEO).frames) == 1
    with pytest.raises(CsipError, match=r"which of its classes \(1, 2\) are people"):
        read(tmp_path / "a.txt", "1 2 0.5 0.5 0.1 0.2\n1 2 0.4 0.5 0.1 0.2\n1 1 0.4 0.5 0.1 0.2\n")


def coco(first: int = 1) -> dict[str, object]:
    images = [
        {"id": 10 * v + f, "video_id": v, "frame_id": f + first, "file_name": f"{name}/{f + first:06d}.jpg",
         "width": 1280, "height": 720}
        for v, name in ((1, "hall"), (2, "door")) for f in range(3)
    ]  # fmt: skip
    annotations = [
        {"id": 1, "image_id": 11, "category_id": 5, "track_id": 3, "bbox": [200, 100, 40, 80]},
        {"id": 2, "image_id": 12, "category_id": 5, "track_id": 3, "bbox": [210, 100, 40, 80]},
        {"id": 3, "image_id": 12, "category_id": 6, "track_id": 4, "bbox": [0, 0, 10, 10]},
        {"id": 4, "image_id": 12, "category_id": 5, "track_id": 5, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        {"id": 5, "image_id": 21, "category_id": 5, "track_id": 9, "bbox": [0, 0, 10, 10]},
    ]  # fmt: skip
    videos = [{"id": 1, "name": "hall"}, {"id": 2, "name": "door"}]
    return {"videos": videos, "images": images, "annotations": annotations,
            "categories": [{"id": 5, "name": "Person"}, {"id": 6, "name": "dog"}]}  # fmt: skip


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("videos", [True, False])
def test_coco_for_videos(tmp_path: Path, first: int, videos: bool) -> None:
    tree = coco(first)
    if not videos:
        del tree["videos"]
    found = read(tmp_path / "all.json", json.dumps(tree))
    assert rows_of(found) == [(2, 3, 100, 50, 20, 40), (3, 3, 105, 50, 20, 40)], (
        "in the pixels of a picture half as large"
    )
    assert found.dropped == {"boxes: a crowd, or marked to be ignored": 1, "boxes: class dog": 1}
    assert found.length == 3
    (tmp_path / "v").mkdir()
    (tmp_path / "v/hall.mp4").touch()
    assert find_boxes(find_videos(tmp_path / "v")[0], tmp_path) == tmp_path / "all.json"


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"images": 3, "annotations": []}',
                                  '{"images": [{"id": 1}], "annotations": 5}',
                                  '{"images": [], "annotations": []}', "[" * 5000])  # fmt: skip
def test_json_of_something_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(CsipError, match=r"a\.json"):
        read(tmp_path / "a.json", text)


@pytest.mark.parametrize(("disk", "file"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_boxes_of_a_video_whose_name_is_in_another_form(tmp_path: Path, disk: str, file: str) -> None:
    on_disk, in_file = (unicodedata.normalize(form, "tür") for form in (disk, file))
    (tmp_path / f"{on_disk}.mp4").touch()
    (video,) = find_videos(tmp_path)
    images = [
        {"id": 1, "frame_id": 1, "file_name": f"{in_file}/1.jpg"},
        {"id": 2, "frame_id": 1, "file_name": "b/1.jpg"},
    ]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "track_id": n, "bbox": [9, 9, 20, 60]} for n in (1, 2)]
    tree = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "all.json").write_text(json.dumps(tree))
    assert find_boxes(video, tmp_path) == tmp_path / "all.json"
    assert read_boxes(tmp_path / "all.json", None, Shown(Geometry((640, 360)), name=video.name)).tracks.tolist() == [1]
    (tmp_path / f"{in_file}.txt").write_text("1,1,9,9,20,60,1\n")
    assert find_boxes(video, None).name == f"{in_file}.txt"


# ---- proofs, counts and questions ------------------------------------------------------------------------------------


def test_classes_from_zero_are_proved_by_a_zero(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "1,3,300,93,48,99,1,0,0.93\n1,9,20,20,40,40,1,1,0.9\n2,9,22,20,40,40,1,1,0.9\n")
    assert found.tracks.tolist() == [3]
    assert found.dropped == {"boxes: class 1": 2}
    assert "class 0" in found.reading


@pytest.mark.parametrize("text", [
    "1,3,300,93,48,99,0.8,1,-1\n1,9,200,20,40,40,0.7,3,-1\n",  # from 1, or no person in it
    "1,3,300,93,48,99,0.8,2,-1,-1\n",
    "1,3,300,93,48,99,1,4,0,0\n1,4,300,93,48,99,1,1,0,0\n",  # VisDrone, or classes from 0
    "1,3,300,93,48,99,0.8,-1,-1,3\n",
    "1,3,300,93,48,99,0.8,0,1\n1,4,300,93,48,99,0.8,1,1\n2,3,300,93,48,99,0.8,-1,-1,-1\n",  # two files, one after the other
    "1,3,0.5,0.5,0.1,0.2,0.8\n",  # a track or a class
])  # fmt: skip
def test_what_cannot_be_told_is_asked_for(tmp_path: Path, text: str) -> None:
    with pytest.raises(CsipError, match=r"a\.txt: .*line 1 is 1,3,.*Give the format\. [\w-]+: ") as asked:
        read(tmp_path / "a.txt", text)
    assert asked.value.parameter == "reading.format"


def test_a_format_that_is_given_decides(tmp_path: Path) -> None:
    text = "1,3,300,93,48,99,0.8,1,-1\n1,9,200,20,40,40,0.7,3,-1\n1,8,100,20,40,40,0.7,2,-1\n"
    for form, people in (("mot-gt", [3]), ("visdrone", [3, 8]), ("tracker", []), ("mot", [3, 8, 9])):
        assert read(tmp_path / "a.txt", text, BoxesOptions(form)).tracks.tolist() == people  # type: ignore[arg-type]
    assert read(tmp_path / "a.txt", text, BoxesOptions("tracker", classes=("3",))).tracks.tolist() == [9]


def test_confidence_zero(tmp_path: Path) -> None:
    truth_like = read(tmp_path / "a.txt", "1,3,300,93,48,99,1,1,1\n1,9,200,20,40,40,0,1,1\n")
    assert truth_like.tracks.tolist() == [3]
    assert truth_like.dropped == {"boxes: marked to be ignored (confidence 0)": 1}
    zeros = read(tmp_path / "a.txt", "1,3,300,93,48,99,0,-1,-1,-1\n1,9,200,20,40,40,0,-1,-1,-1\n")
    assert zeros.tracks.tolist() == [3, 9]
    assert "all confidences are 0" in zeros.reading
    sure = read(tmp_path / "a.txt", "1,3,300,93,48,99,0.00,-1,-1,-1\n1,9,200,20,40,40,0.31,-1,-1,-1\n")
    assert sure.tracks.tolist() == [3, 9]
    assert not sure.dropped


def test_negative_numbers_are_tracks(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "1,-4,300,93,48,99,1\n1,-2,200,20,40,40,1\n").tracked
    with pytest.raises(CsipError, match="has no track"):
        read(tmp_path / "a.txt", "1,-4,300,93,48,99,1\n1,-1,200,20,40,40,1\n")


def test_cvat_names_its_classes(tmp_path: Path) -> None:
    folder = tmp_path / "gt"
    folder.mkdir()
    (folder / "labels.txt").write_text("car\nperson\n")
    found = read(folder / "gt.txt", "1,1,300,93,48,99,1,2,1\n1,2,200,20,40,40,1,1,1\n1,3,100,20,40,40,0,2,1\n")
    assert found.tracks.tolist() == [1]
    assert sum(found.dropped.values()) == 2
    (folder / "labels.txt").write_text("car\nworker\n")
    with pytest.raises(CsipError, match=r"labels\.txt: none of its labels is called person.*e\.g\. car") as asked:
        read(folder / "gt.txt", "1,1,300,93,48,99,1,2,1\n")
    assert asked.value.parameter == "reading.classes"
    assert read(folder / "gt.txt", "1,1,300,93,48,99,1,2,1\n", BoxesOptions(classes=("worker",))).tracks.tolist() == [1]


def test_corners_are_proved_by_the_picture(tmp_path: Path) -> None:
    rows = [(f, 1, 150 + 9 * f, 120, 40, 110) for f in range(1, 25)]
    found = read(tmp_path / "a.txt", corners(rows))
    assert rows_of(found) == rows
    assert "left, top, right, bottom" in found.reading
    with pytest.raises(CsipError, match=r"would leave the picture of 640 x 360.*the coordinates, xywh or xyxy"):
        read(tmp_path / "a.txt", "1\t1\t400\t100\t500\t200\t1\n2\t1\t10\t100\t50\t200\t1\n")
    wide = read(tmp_path / "a.txt", "1,1,10,20,30,60,1\n")
    assert rows_of(wide) == [(1, 1, 10, 20, 30, 60)]


def test_shares_of_the_picture(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "frame,id,cx,cy,w,h\n1,4,0.5,0.5,0.1,0.2\n")
    assert rows_of(found) == [(1, 4, 288, 144, 64, 72)]
    with pytest.raises(CsipError, match=r"shares of the picture that may be .* or .*; say which") as asked:
        read(tmp_path / "a.txt", "1,4,0.3,0.3,0.1,0.2,1\n", BoxesOptions("mot"))
    assert asked.value.parameter == "reading.coordinates"
    assert rows_of(read(tmp_path / "a.txt", "1,4,0.5,0.5,0.1,0.2,1\n", BoxesOptions("mot", "xywh"))) == [
        (1, 4, 320, 180, 64, 72)
    ]
    assert rows_of(read(tmp_path / "a.txt", "1,4,0.95,0.5,0.1,0.2,1\n", BoxesOptions("mot"))) == [
        (1, 4, 576, 144, 64, 72)
    ]


def test_shares_of_the_picture_have_classes_too(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "1,4,0.95,0.5,0.1,0.2,0.9,0,-1\n1,5,0.9,0.5,0.1,0.2,0.9,2,-1\n")
    assert rows_of(found) == [(1, 4, 576, 144, 64, 72)]
    assert found.dropped == {"boxes: class 2": 1}


def test_classes_by_name(tmp_path: Path) -> None:
    lines = ["1,4,300,20,30,60,0.9,Person\n", "1,5,200,20,30,60,0.9,car\n", "1,6,100,20,30,60,0.9,pedestrian\n"]
    for text in ("".join(lines), "frame,id,x,y,w,h,score,label\n" + "".join(lines)):
        found = read(tmp_path / "a.txt", text)
        assert found.tracks.tolist() == [4, 6]
        assert found.dropped == {"boxes: class car": 1}
        assert "people are class Person, pedestrian" in found.reading
        assert read(tmp_path / "a.txt", text, BoxesOptions(classes=("Car",))).tracks.tolist() == [5]
        with pytest.raises(CsipError, match=r"which of its classes \(car, worker\) are people.*e\.g\. 1"):
            read(tmp_path / "a.txt", text.replace("Person", "worker").replace("pedestrian", "worker"))


@pytest.mark.parametrize(("head", "line"), [
    ("frame,id,bb_left,bb_top,bb_width,bb_height,conf,x,y,z", "1,4,288,144,64,72,1,-1,-1,-1"),  # places in the world
    ("id,frame,track_id,x,y,w,h", "77,1,4,288,144,64,72"),  # numbers of lines
    ("frame,id,x,y,w,h,class_id,class_name", "1,4,288,144,64,72,5,person"),
    ("frame,id,width,height,class,xmin,ymin,xmax,ymax", "1,4,640,360,person,288,144,352,216"),  # of the picture
    ("frame,id,width,height,class,xmin,ymin,xmax,ymax", "1,4,1280,720,person,576,288,704,432"),  # of a larger one
    ("frame,id,x1,y1,x2,y2,w,h", "1,4,288,144,352,216,64,72"),
    ("frame,id,bbox_x1,bbox_y1,bbox_x2,bbox_y2", "1,4,288,144,352,216"),
])  # fmt: skip
def test_heads_with_several_names_of_one_column(tmp_path: Path, head: str, line: str) -> None:
    assert rows_of(read(tmp_path / "a.csv", f"{head}\n{line}\n")) == [(1, 4, 288, 144, 64, 72)]


def test_corners_and_sizes_that_do_not_agree_are_asked_for(tmp_path: Path) -> None:
    text = "frame,id,x1,y1,x2,y2,w,h\n1,4,288,144,352,216,30,40\n2,4,288,144,352,216,31,40\n"
    with pytest.raises(CsipError, match="two corners, a width and a height, which do not agree") as asked:
        read(tmp_path / "a.csv", text)
    assert asked.value.parameter == "reading.coordinates"
    for coordinates, size in (("xywh", (30, 40)), ("xyxy", (64, 72))):
        found = read(tmp_path / "a.csv", text, BoxesOptions(coordinates=coordinates))  # type: ignore[arg-type]
        assert rows_of(found)[0] == (1, 4, 288, 144, *size)


def test_per_cent_are_no_pixels(tmp_path: Path) -> None:
    lines = "".join(f"{f},1,{30 + 2 * f},40,6,{30 + f}\n" for f in range(1, 25))
    for text in (lines, "frame,id,x,y,w,h\n" + lines):
        with pytest.raises(
            CsipError, match=r"upper left 84 x 94 pixels of a picture of 640 x 360: are they per cent\?"
        ):
            read(tmp_path / "a.txt", text)
        assert len(read(tmp_path / "a.txt", text, BoxesOptions(picture="display")).frames) == 24
    small = Shown(Geometry((120, 100)), 1, FRAMES)
    assert len(read(tmp_path / "a.txt", lines, None, small).frames) == 24


@pytest.mark.parametrize(("bbox", "says"), [
    ([448, 216, 512, 288], "left, top, right, bottom"), ([0.7, 0.6, 0.1, 0.2], "shares"), ([0.7, 0.6, 0.8, 0.8], "left"),
])  # fmt: skip
def test_coco_whose_boxes_are_corners_or_shares(tmp_path: Path, bbox: list[float], says: str) -> None:
    images = [{"id": f, "frame_id": f, "file_name": f"hall/{f}.jpg", "width": 640, "height": 360} for f in range(1, 31)]
    boxes = [{"id": f, "image_id": f, "category_id": 1, "track_id": 4, "bbox": bbox} for f in range(1, 31)]
    tree = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}
    found = read(tmp_path / "a.json", json.dumps(tree))
    assert rows_of(found)[0] == (1, 4, 448, 216, 64, 72) and says in found.reading


def test_lines_that_are_there_twice(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "1,4,20,20,30,60,1\n1,4,20,20,30,60,1\n1,5,20,20,30,60,1\n")
    assert found.tracks.tolist() == [4, 5]
    assert found.dropped == {"boxes: the same line again": 1}


def test_frames_of_folders_of_pictures(tmp_path: Path) -> None:
    def numbered(first: int, last: int, text: str, **options: int) -> list[int]:
        video = Shown(Geometry((WIDTH, HEIGHT)), first, last, named=True)
        return read(tmp_path / "a.txt", text, BoxesOptions(**options), video).frames.tolist()  # type: ignore[arg-type]

    text = "0,1,300,93,48,99,1\n9,1,300,93,48,99,1\n"
    assert numbered(1, 10, text) == [1, 10]
    assert numbered(0, 9, text) == [0, 9]
    later = "1,1,300,93,48,99,1\n10,1,300,93,48,99,1\n"
    assert numbered(1, 10, later) == [1, 10]
    assert numbered(0, 9, later) == [0, 9], "frame 10 is not there, so 1 is the first"
    assert numbered(500, 509, later) == [500, 509]
    assert numbered(0, 20, later) == [1, 10], "the pictures' names"
    assert numbered(0, 20, later, first_frame=1) == [0, 9]
    assert numbered(1, 20, later, first_frame=0) == [2, 11]


def test_length_of_another_video(tmp_path: Path) -> None:
    found = read(tmp_path / "a.txt", "1,1,300,93,48,99,1\n20,1,300,93,48,99,1\n")
    assert found.mismatch(1, 20) == found.mismatch(1, 22) == ""
    assert found.mismatch(1, 10) == "goes to frame 20, the video to 10"
    assert found.mismatch(1, 40) == "ends at frame 20, the video at 40"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "", "x", "--"])
@pytest.mark.parametrize("column", range(7))
def test_values_that_are_none(tmp_path: Path, column: int, value: str) -> None:
    cells = ["1", "2", "300", "20", "30", "60", "0.5"]
    cells[column] = value
    text = "1,3,10,20,30,60,0.5\n" + ",".join(cells) + "\n"
    if value == "" and column in (1, 6):
        return  # no track, and no confidence, are allowed
    with pytest.raises(CsipError, match=r"a\.txt: line 2: \w+ is "):
        read(tmp_path / "a.txt", text)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.text("0123456789,.;- \t\n#\"nax{}[]:", max_size=300).map(str.encode)),
       name=st.sampled_from(["a.txt", "a.csv", "a.json"]))  # fmt: skip
def test_any_bytes_are_boxes_or_a_clear_error(tmp_path: Path, data: bytes, name: str) -> None:
    try:
        found = read(tmp_path / name, data)
    except CsipError as error:
        assert name in str(error)
    else:
        assert np.isfinite(found.boxes).all()


# ---- the picture that boxes were measured on -------------------------------------------------------------------------

WIDE = Shown(Geometry((320, 240), Fraction(2)), 1, 20)


def test_boxes_of_a_video_whose_pixels_are_not_square(tmp_path: Path) -> None:
    shown = "1,1,500,93,48,99,1\n2,1,30,93,48,99,1\n"
    found = read(tmp_path / "a.txt", shown, None, WIDE)
    assert rows_of(found) == [(1, 1, 500, 93, 48, 99), (2, 1, 30, 93, 48, 99)], "beyond what is stored: as shown"
    both = "1,1,200,93,24,99,1\n"
    with pytest.raises(CsipError, match=r"stored in 320 x 240 and shown in 640 x 240.*measured on, 320x240 or 640x240"):
        read(tmp_path / "a.txt", both, None, WIDE)
    for picture, box in (("display", (200, 24)), ("640x240", (200, 24)), ("320x240", (400, 48)), ("coded", (400, 48)),
                         ("1280x480", (100, 12))):  # fmt: skip
        expected = (1, 1, box[0], 46.5, box[1], 49.5) if picture == "1280x480" else (1, 1, box[0], 93, box[1], 99)
        assert rows_of(read(tmp_path / "a.txt", both, BoxesOptions(picture=picture), WIDE)) == [expected]
    narrow = Shown(Geometry((320, 240), Fraction(1, 2)), 1, 20)
    assert rows_of(read(tmp_path / "a.txt", "1,1,300,93,16,99,1\n", None, narrow)) == [(1, 1, 150, 93, 8, 99)]
    assert rows_of(read(tmp_path / "a.txt", "1,1,100,93,16,99,1\n", None, narrow)) == [(1, 1, 100, 93, 16, 99)]


def test_boxes_of_the_stored_picture_are_turned_with_it(tmp_path: Path) -> None:
    turned = Shown(Geometry((320, 240), matrix=(0, 1, -1, 0)), 1, 20)  # a quarter to the right
    text = "1,1,10,20,30,60,1\n"
    assert rows_of(read(tmp_path / "a.txt", text, None, turned)) == [(1, 1, 10, 20, 30, 60)]
    assert rows_of(read(tmp_path / "a.txt", text, BoxesOptions(picture="320x240"), turned)) == [(1, 1, 160, 10, 60, 30)]
    assert rows_of(read(tmp_path / "a.txt", "1,1,260,20,40,60,1\n", None, turned)) == [(1, 1, 160, 260, 60, 40)], (
        "beyond the picture that is shown, inside the one that is stored"
    )
    mirrored = Shown(Geometry((320, 240), matrix=(-1, 0, 0, 1)), 1, 20)
    assert rows_of(read(tmp_path / "a.txt", text, BoxesOptions(picture="coded"), mirrored)) == [(1, 1, 280, 20, 30, 60)]


def test_boxes_of_a_larger_picture_are_asked_for(tmp_path: Path) -> None:
    text = "".join(f"{f},1,{60 * f},{30 * f},60,90,1\n" for f in range(1, 20))  # on 1280 x 720
    with pytest.raises(
        CsipError, match=r"\d\d% of its boxes lie outside the picture of 640 x 360.*give WIDTHxHEIGHT, else display"
    ):
        read(tmp_path / "a.txt", text)
    found = read(tmp_path / "a.txt", text, BoxesOptions(picture="1280x720"))
    assert rows_of(found)[3] == (4, 1, 120, 60, 30, 45)
    assert len(read(tmp_path / "a.txt", text, BoxesOptions(picture="display")).frames) == 19


@pytest.mark.parametrize("picture", ["wide", "0x5", "640", "640x", "640x480x3", "300x900"])
def test_pictures_that_cannot_be(tmp_path: Path, picture: str) -> None:
    with pytest.raises(CsipError, match=r"picture.* display(,| or) coded") as refused:
        read(tmp_path / "a.txt", "1,1,10,20,30,60,1\n", BoxesOptions(picture=picture))
    assert refused.value.parameter == "reading.picture"


# ---- columns exchanged, numbers that are two, images of several sizes ------------------------------------------------


def walks(swapped: bool) -> str:
    rows = [(f, t, 40 + 150 * t + 2 * f, 100 + 3 * t, 40, 90) for t in range(1, 4) for f in range(1, FRAMES)]
    return "".join(",".join(map(str, (r[1], r[0], *r[2:]) if swapped else r)) + ",0.9\n" for r in rows)


def test_columns_of_frames_and_tracks_that_are_exchanged(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.txt", walks(swapped=False)).by_track()) == 3
    with pytest.raises(CsipError, match=r"seem to be id,frame, expected frame,id") as asked:
        read(tmp_path / "a.txt", walks(swapped=True))
    assert asked.value.parameter == "reading.format"
    assert read(tmp_path / "a.txt", walks(swapped=True), BoxesOptions("mot")).frames.max() == 3


def test_a_track_of_a_camera_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match="line 2: track is '1_3'"):
        read(tmp_path / "a.txt", "1,13,300,93,48,99,1\n1,1_3,200,20,40,40,1\n")


def test_commas_of_fractions_and_of_thousands(tmp_path: Path) -> None:
    head = "frame;id;left;top;width;height\n"
    assert read(tmp_path / "a.csv", f"{head}1;1;10,5;20;30;60\n").boxes[0, 0] == 10.5
    assert read(tmp_path / "a.csv", f"{head}1;1;10,500;20;30;60\n2;1;12,250;20;30;60\n").boxes[1, 0] == 12.25
    with pytest.raises(CsipError, match=r"line 3: is 1,234 a number with a fraction, or are its thousands apart"):
        read(tmp_path / "a.csv", f"{head}1;1;987;20;30;60\n2;1;1,234;20;30;60\n", video=None)


def coco_of(images: list[dict[str, object]], boxes: list[dict[str, object]]) -> str:
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]})


def test_coco_whose_images_have_several_sizes(tmp_path: Path) -> None:
    images: list[dict[str, object]] = [
        {"id": n, "frame_id": n, "file_name": "a/1.jpg", "width": WIDTH // n, "height": HEIGHT // n} for n in (1, 2)
    ]
    boxes: list[dict[str, object]] = [
        {"id": n, "image_id": n, "category_id": 1, "track_id": 1, "bbox": [100 / n, 50 / n, 40 / n, 80 / n]}
        for n in (1, 2)
    ]
    found = read(tmp_path / "hall.json", coco_of(images, boxes))
    assert np.allclose(found.boxes, [[100, 50, 140, 130]] * 2)
    del images[1]["width"]
    images.append({"id": 3, "frame_id": 3, "file_name": "a/1.jpg", "width": 5, "height": 5})
    with pytest.raises(CsipError, match="expected a width and a height of each"):
        read(tmp_path / "hall.json", coco_of(images, boxes))


def test_coco_whose_annotations_are_of_no_image(tmp_path: Path) -> None:
    images: list[dict[str, object]] = [{"id": 1, "frame_id": 1, "file_name": "a/1.jpg"}]
    box: dict[str, object] = {"category_id": 1, "track_id": 1, "bbox": [100, 50, 40, 80]}
    found = read(tmp_path / "hall.json", coco_of(images, [box | {"image_id": 1}, box | {"image_id": 7}]))
    assert len(found.boxes) == 1 and found.dropped == {"boxes: of an image that is not listed": 1}
    with pytest.raises(
        CsipError, match="none of its annotations is of an image that it lists: the first image_id is '1'"
    ):
        read(tmp_path / "hall.json", coco_of(images, [box | {"image_id": "1"}]))
    with pytest.raises(CsipError, match="its bbox has 5 numbers"):
        read(tmp_path / "hall.json", coco_of(images, [box | {"image_id": 1, "bbox": [1, 2, 3, 4, 5]}] * 4))


@pytest.mark.parametrize("frame", [0.04, True, 10**30, float("inf"), [1]])
def test_coco_whose_frames_are_no_whole_numbers(tmp_path: Path, frame: object) -> None:
    images: list[dict[str, object]] = [{"id": 1, "frame_id": frame, "file_name": "a/1.jpg"}]
    box: dict[str, object] = {"image_id": 1, "category_id": 1, "track_id": 1, "bbox": [100, 50, 40, 80]}
    with pytest.raises(CsipError, match="expected a whole number, found"):
        read(tmp_path / "hall.json", coco_of(images, [box]))


def test_coco_whose_images_are_one_frame_twice(tmp_path: Path) -> None:
    images: list[dict[str, object]] = [{"id": n, "file_name": f"cam{n}_000001.jpg"} for n in (1, 2)]
    boxes: list[dict[str, object]] = [{"image_id": n, "category_id": 1, "bbox": [9, 9, 20, 60]} for n in (1, 2)]
    with pytest.raises(CsipError, match="its images 1 and 2 are both frame 1; expected a frame_id"):
        read(tmp_path / "hall.json", coco_of(images, boxes))


def test_two_files_of_boxes_of_one_video_are_asked_about(tmp_path: Path) -> None:
    (tmp_path / "hall.mp4").touch()
    (video,) = find_videos(tmp_path)
    (tmp_path / "hall.txt").write_text("1,1,9,9,20,60,1\n")
    assert find_boxes(video, None) == tmp_path / "hall.txt"
    (tmp_path / "hall.csv").write_text("1,1,9,9,20,60,1\n")
    with pytest.raises(CsipError, match=r"hall\.csv beside it may be the boxes of hall\.mp4, too"):
        find_boxes(video, None)
