"""From a folder of videos to a data set: given tracks, kills, broken files, RTMDet, and a real video."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import csip.video.one_video
import csip.video.rtmdet
import csip.video.state
import pipelines.cli
from csip.data import folder
from csip.errors import CsipError
from csip.monitor import Silent
from csip.video.ingest import DetectorOptions, ingest
from csip.video.one_video import IngestOptions
from csip.video.tracklets import TrackletRules
from pipelines.advice import advice
from pipelines.ingest_videos import run
from pose_cache.errors import PoseCacheError
from pose_cache.weights import Weights

pytestmark = pytest.mark.slow

BOXES = DetectorOptions("boxes")
REAL = Path(__file__).parents[3] / "shared/data/video/one-by-one-person-detection.mp4"


def write_video(path: Path, images: list[np.ndarray], rate: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 3_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))


def walk(number: int, frame: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of a rectangle that walks; 1 goes right, 2 left, and they cross."""
    return (5 + 6 * frame, 20, 24, 60) if number == 1 else (165 - 6 * frame, 30, 24, 60)


COLOURS = {1: (40, 40, 220), 2: (220, 60, 40)}
FRAMES = 24


def make_scene(path: Path, ids: bool = True, seed: int = 0) -> None:
    """A video of two rectangles that walk past each other, and the file of their boxes beside it."""
    background = np.random.default_rng(seed).integers(90, 140, (100, 200, 3), np.uint8)
    images, lines = [], []
    for frame in range(FRAMES):
        image = background.copy()
        for number, colour in COLOURS.items():
            left, top, width, height = walk(number, frame)
            image[top : top + height, left : left + width] = colour
            lines.append(f"{frame + 1},{number if ids else -1},{left},{top},{width},{height},1,-1,-1,-1")
        images.append(image)
    write_video(path, images)
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "tracklets.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(out: Path) -> dict[str, bytes]:
    """What has to be equal: the table and the crops, and nothing that was left half done."""
    files = [out / "tracklets.csv", *out.glob("crops/**/*"), *(out / ".ingest/work").glob("**/*")]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_scene(root / "door.mp4")
    make_scene(root / "hall/one.mp4", seed=1)
    make_scene(root / "hall/two.mp4", seed=2)
    return root


# ---- given tracks ----------------------------------------------------------------------------------------------------


def test_tracklets_are_the_given_tracks(videos: Path, tmp_path: Path) -> None:
    summary = run(videos, tmp_path / "out", BOXES)
    table = rows(tmp_path / "out")
    assert list(table[0]) == [
        "tracklet", "person", "camera", "frame", "video", "track", "number", "time", "x", "y", "width", "height", "score",
    ]  # fmt: skip
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in table:
        box = tuple(float(row[key]) for key in ("number", "time", "x", "y", "width", "height"))
        found.setdefault((row["video"], row["track"]), []).append(box)
    assert found == {
        (video, str(number)): [(frame + 1, round(frame / 10, 3), *walk(number, frame)) for frame in range(FRAMES)]
        for video in ("door.mp4", "hall/one.mp4", "hall/two.mp4")
        for number in (1, 2)
    }
    assert {(row["tracklet"], row["camera"], row["person"]) for row in table if row["video"] == "hall/two.mp4"} == {
        ("hall/two-0001", "hall", ""), ("hall/two-0002", "hall", ""),
    }  # fmt: skip
    assert table[0]["frame"] == "crops/door/door-0001/000001.jpg"
    for row in table[::7]:
        image = cv2.imread(str(tmp_path / "out" / row["frame"]))
        assert image.shape == (60, 24, 3)
    lone = cv2.imread(str(tmp_path / "out/crops/hall/one-0002/000002.jpg"))
    assert np.abs(lone[4:-4, 4:-4].mean((0, 1)) - COLOURS[2]).max() < 12
    assert len(list((tmp_path / "out/crops").glob("*/*/*.jpg"))) == len(table) == summary.crops == 6 * FRAMES
    assert summary.tracklets == 6
    assert list(summary.cameras) == ["door", "hall"]
    assert json.loads((tmp_path / "out/ingest.json").read_text())["frames"] == 3 * FRAMES


def test_names_in_the_table_are_no_formulas(tmp_path: Path) -> None:
    make_scene(tmp_path / "videos/=1+1.mp4")
    make_scene(tmp_path / "videos/-hall/one.mp4")
    run(tmp_path / "videos", tmp_path / "out", BOXES)
    assert {(row["video"], row["camera"]) for row in rows(tmp_path / "out")} == {
        ("'=1+1.mp4", "_1_1"), ("'-hall/one.mp4", "'-hall")
    }  # fmt: skip
    tracklets = folder.load(tmp_path / "out").gallery
    assert {Path(tracklet.frames[0]).parts[1] for tracklet in tracklets} == {"_1_1", "-hall"}
    assert {tracklet.name.split("/")[0] for tracklet in tracklets} == {"_1_1", "-hall"}


def test_given_tracks_are_neither_split_nor_shortened_nor_joined(tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4")
    lines = [
        (1, 7, 10, 20, 9, 9),
        (2, 7, 90, 30, 9, 9),
        (24, 7, 10, 20, 9, 9),
        (5, 3, 50, 20, 20, 60),
        (6, 8, 50, 20, 20, 60),
    ]
    text = "".join(f"{','.join(map(str, line))},1,1,1\n" for line in lines)
    (tmp_path / "v/a.txt").write_text(text + "3,9,500,20,20,60,1,1,1\n99,9,5,20,20,60,1,1,1\n")
    summary = run(tmp_path / "v", tmp_path / "out", BOXES)
    table = [
        tuple(int(row[key]) for key in ("number", "track", "x", "y", "width", "height"))
        for row in rows(tmp_path / "out")
    ]
    assert sorted(table) == sorted(lines)
    assert summary.dropped == {"crops: outside the video or its picture": 2}
    assert not (tmp_path / "out/crops/a/a-0009").exists()


def test_boxes_without_tracks_are_tracked(tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4", ids=False)
    run(
        tmp_path / "v",
        tmp_path / "out",
        BOXES,
        IngestOptions(rules=TrackletRules(min_frames=5, max_overlap=1, smooth=0)),
    )
    table = rows(tmp_path / "out")
    ways = {key: [float(row["x"]) for row in group] for key, group in groupby(table, lambda row: row["tracklet"])}
    assert len(ways) == 2
    for way in ways.values():
        assert set(np.diff(way)) in ({6.0}, {-6.0})


def test_furniture_is_no_tracklet(tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4", ids=False)
    with (tmp_path / "v/a.txt").open("a") as file:
        file.writelines(f"{frame + 1},-1,175,1,20,18,1\n" for frame in range(FRAMES))
    rules = {"min_frames": 5, "min_height": 10, "max_overlap": 1}
    summary = run(tmp_path / "v", tmp_path / "out", BOXES, IngestOptions(rules=TrackletRules(**rules)))
    assert summary.tracklets == 2
    assert summary.dropped == {"tracks: nothing moves": 1}
    summary = run(tmp_path / "v", tmp_path / "all", BOXES, IngestOptions(rules=TrackletRules(**rules, min_change=0)))
    assert summary.tracklets == 3


def test_boxes_of_other_frames_are_refused_with_the_reason(tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4")
    (tmp_path / "v/a.txt").write_text("501,1,5,20,20,60,1\n502,1,5,20,20,60,1\n")
    with pytest.raises(CsipError, match="frames are 501 to 502, the video has 24"):
        run(tmp_path / "v", tmp_path / "out", BOXES)


def test_sequence_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "v/M1/img1").mkdir(parents=True)
    (tmp_path / "v/M1/gt").mkdir()
    for number in (1, 2, 3):
        cv2.imwrite(str(tmp_path / f"v/M1/img1/{number:06d}.jpg"), np.full((80, 80, 3), 50 * number, np.uint8))
    (tmp_path / "v/M1/gt/gt.txt").write_text("2,5,-10,10,30,60,1,1,1\n3,5,10,10,30,60,1,1,1\n")
    run(tmp_path / "v", tmp_path / "out", BOXES)
    assert [(row["tracklet"], row["number"], row["x"], row["time"]) for row in rows(tmp_path / "out")] == [
        ("M1/M1-0005", "2", "-10", "0.04"), ("M1/M1-0005", "3", "10", "0.08"),
    ]  # fmt: skip
    clipped = cv2.imread(str(tmp_path / "out/crops/M1/M1-0005/000002.jpg"))
    assert clipped.shape == (60, 20, 3)
    assert abs(clipped.mean() - 100) < 3


# ---- resuming --------------------------------------------------------------------------------------------------------


def killed_at(job: Callable[[], object], module: Any, name: str, call: int) -> bool:
    """Run a job in a process that kills itself at a call of a function; tells whether it came to that."""
    pid = os.fork()
    if pid == 0:
        calls, original = 0, getattr(module, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(module, name, count)
        try:
            job()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


# While crops are cut, before and while folders are moved into place, before a table and a record are, before the last table.
KILLS = [
    (csip.video.one_video.cv2, "imencode", 10),
    (csip.video.one_video.cv2, "imencode", 2 * FRAMES + 10),
    (csip.video.state.os, "sync", 2),
    (Path, "rename", 2),
    (Path, "rename", 5),
    (Path, "replace", 2),
    (Path, "replace", 3),
    (Path, "replace", 6),
    (Path, "replace", 8),
    (csip.video.state, "write_json", 4),
]


def test_what_was_killed_goes_on_to_the_same_result(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "whole", BOXES)
    expected = content(tmp_path / "whole")
    assert len(expected) == 6 * FRAMES + 1
    kills = [killed_at(lambda: run(videos, tmp_path / "one", BOXES), *kill) for kill in KILLS[:1]]
    assert all(kills)
    for number, kill in enumerate(KILLS):
        out = tmp_path / f"out{number}"
        assert killed_at(lambda out=out: run(videos, out, BOXES), *kill), kill  # type: ignore[misc]
        run(videos, out, BOXES)
        assert content(out) == expected, kill


def test_killed_again_and_again(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "whole", BOXES)
    out = tmp_path / "out"
    for module, name, call in [*KILLS[:4], *KILLS[:2]]:
        killed_at(lambda: run(videos, out, BOXES), module, name, call)
    run(videos, out, BOXES)
    assert content(out) == content(tmp_path / "whole")


def test_command_killed_from_outside(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "whole", BOXES)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines", "ingest", str(videos), "--out", str(out), "--detector", "boxes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob(".ingest/work/*/*/*.jpg")):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert content(out) == content(tmp_path / "whole")


def test_what_is_done_is_not_done_again(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    first = run(videos, out, BOXES)
    before = content(out)
    monkeypatch.setattr("csip.video.ingest.ingest_video", lambda *_: pytest.fail("done before"))
    assert run(videos, out, BOXES).elapsed == first.elapsed
    assert content(out) == before


def test_changed_and_added_videos_are_ingested_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, root = tmp_path / "out", tmp_path / "v"
    make_scene(root / "hall/a.mp4")
    make_scene(root / "hall/b.mp4")
    run(root, out, BOXES)
    make_scene(root / "hall/c.mp4")
    (root / "hall/b.txt").write_text("1,4,5,20,24,60,1\n")
    done = []
    original = csip.video.one_video.ingest_video
    monkeypatch.setattr(
        "csip.video.ingest.ingest_video", lambda video, *rest: (done.append(video.name), original(video, *rest))[1]
    )
    run(root, out, BOXES)
    assert done == ["hall/b.mp4", "hall/c.mp4"]
    assert sorted(path.name for path in (out / "crops/hall").iterdir()) == [
        "a-0001",
        "a-0002",
        "b-0004",
        "c-0001",
        "c-0002",
    ]
    (root / "hall/a.mp4").unlink()
    run(root, out, BOXES)
    assert {row["tracklet"] for row in rows(out)} == {"hall/b-0004", "hall/c-0001", "hall/c-0002"}


def test_labels_of_a_video_that_changed_are_taken_out(tmp_path: Path) -> None:
    out, root, said = tmp_path / "out", tmp_path / "v", Listener()
    for name in "ab":
        make_scene(root / f"{name}.mp4")
    ingest(root, out, BOXES, monitor=said)
    labels = "tracklet,person,note\na/a-0001,ANN,\nb/b-0002,BEA,tall\n"
    (out / "labels.csv").write_text(labels)
    (root / "a.mp4").touch()
    ingest(root, out, BOXES, monitor=said)
    assert (out / "labels.csv").read_text() == labels, "read again, to the same tracklets"
    before = (out / "tracklets.csv").stat().st_mtime_ns
    ingest(root, out, BOXES, monitor=said)
    assert (out / "tracklets.csv").stat().st_mtime_ns == before, "nothing has changed"
    make_scene(root / "a.mp4", seed=5)
    ingest(root, out, BOXES, monitor=said)
    assert (out / "labels.csv").read_text() == "tracklet,person,note\nb/b-0002,BEA,tall\n"
    assert (out / "labels.csv.old").read_text() == labels
    assert any("the video of 1 labelled tracklets has changed" in line for line in said.lines)


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_other_options_are_refused_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_scene(tmp_path / "v/a.mp4")
    run(tmp_path / "v", out, BOXES)
    (out / "labels.csv").write_text("tracklet,person\na/a-0001,ANNE\n")
    before = content(out)
    with pytest.raises(CsipError, match=r"margin 0\.0 -> 0\.1.*force it") as refused:
        run(tmp_path / "v", out, BOXES, IngestOptions(margin=0.1))
    assert advice(refused.value.parameter) == " (--force)"
    with pytest.raises(CsipError, match="camera none -> a"):
        run(tmp_path / "v", out, BOXES, camera="a")
    assert content(out) == before
    run(tmp_path / "v", out, BOXES, IngestOptions(margin=0.1), force=True)
    assert cv2.imread(str(out / "crops/a/a-0001/000010.jpg")).shape == (72, 28, 3)
    assert not (out / "labels.csv").exists()
    assert "ANNE" in (out / "labels.csv.old").read_text()


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(CsipError, match="holds something else"):
            run(tmp_path / "v", tmp_path / "out", BOXES, force=force)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


# ---- broken videos and the command line ------------------------------------------------------------------------------


def test_broken_videos_are_passed_over_and_counted(tmp_path: Path) -> None:
    make_scene(tmp_path / "v/good.mp4")
    (tmp_path / "v/empty.mp4").touch()
    (tmp_path / "v/text.avi").write_text("no video")
    for name in ("empty", "text"):
        (tmp_path / f"v/{name}.txt").touch()
    make_scene(tmp_path / "v/without.mp4")
    (tmp_path / "v/without.txt").unlink()
    arguments = ["ingest", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--detector", "boxes"]
    result = CliRunner().invoke(pipelines.cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 of 4, 3 passed over" in result.output
    summary = json.loads((tmp_path / "out/ingest.json").read_text())
    reasons = {entry["video"]: entry["reason"] for entry in summary["skipped"]}
    assert sorted(reasons) == ["empty.mp4", "text.avi", "without.mp4"]
    assert "empty" in reasons["empty.mp4"]
    assert "no boxes" in reasons["without.mp4"]
    assert {row["video"] for row in rows(tmp_path / "out")} == {"good.mp4"}
    (tmp_path / "v/good.mp4").unlink()
    result = CliRunner().invoke(pipelines.cli.app, arguments)
    assert isinstance(result.exception, CsipError)
    assert "none of 3 videos could be read" in str(result.exception)
    assert {row["video"] for row in rows(tmp_path / "out")} == {"good.mp4"}, "what was there stays"


def test_a_question_about_boxes_names_the_option_that_answers_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_scene(tmp_path / f"v/{name}.mp4")
    (tmp_path / "v/b.txt").write_text("1,3,30,20,24,60,0.8,2,-1,-1\n")
    arguments = ["ingest", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--detector", "boxes"]
    result = CliRunner().invoke(pipelines.cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 of 2, 1 passed over (--boxes-format)" in result.output
    (tmp_path / "v/a.mp4").unlink()
    result = CliRunner().invoke(pipelines.cli.app, arguments)
    assert isinstance(result.exception, CsipError)
    assert advice(result.exception.parameter) == " (--boxes-format)"


def test_data_set_can_be_read(videos: Path, tmp_path: Path) -> None:
    from csip.data import folder

    run(videos, tmp_path / "out", BOXES)
    dataset = folder.load(tmp_path / "out")
    assert len(dataset.gallery) == 6
    assert len({tracklet.camera for tracklet in dataset.gallery}) == 2
    for tracklet in dataset.gallery:
        assert all((dataset.root / frame).is_file() for frame in tracklet.frames)


# ---- RTMDet ----------------------------------------------------------------------------------------------------------

SMALL = """
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
    bbox_head=dict(in_channels=32, feat_channels=32, num_classes=1),
    test_cfg=dict(nms_pre=300, max_per_img=20))
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='Pad', size=(160, 160), pad_val=dict(img=(114, 114, 114))),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
"""


@pytest.fixture(scope="module")
def small_rtmdet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small RTMDet with random weights that is sure of what it sees, as config and checkpoint."""
    from pose_cache.compat import guard_torchvision

    guard_torchvision()
    folder = tmp_path_factory.mktemp("rtmdet")
    (folder / "small.py").write_text(SMALL)
    model, _ = csip.video.rtmdet._build(folder / "small.py", torch.device("cpu"))
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4:
            # Scores that differ: builds of torch sort equal ones differently, and then other boxes are left.
            torch.nn.init.normal_(parameter, std=5.0 if "rtm_cls" in name else 0.1)
        if "rtm_" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 2.0)  # scores near .9, and boxes of four strides
    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, folder / "small.pth")
    return folder / "small.py", folder / "small.pth"


def test_rtmdet_detects_in_batches_what_mmdet_does_one_by_one(small_rtmdet: tuple[Path, Path]) -> None:
    from mmdet.apis import inference_detector, init_detector

    images = list(np.random.default_rng(0).integers(0, 255, (5, 90, 140, 3), np.uint8))
    images.append(np.zeros((120, 60, 3), np.uint8))
    detector = csip.video.rtmdet.RTMDetDetector(*small_rtmdet, device="cpu", batch=4)
    found = detector.detect(images)
    model = init_detector(str(small_rtmdet[0]), str(small_rtmdet[1]), device="cpu", palette="coco")
    assert len(found) == len(images)
    for image, detections in zip(images, found, strict=True):
        instances = inference_detector(model, image).pred_instances
        sure = instances.scores >= 0.05
        assert sure.any()
        assert np.allclose(detections.boxes, instances.bboxes[sure].numpy(), atol=1e-3)
        assert np.allclose(detections.scores, instances.scores[sure].numpy(), atol=1e-5)


def test_rtmdet_from_video_to_tracklets(small_rtmdet: tuple[Path, Path], tmp_path: Path) -> None:
    make_scene(tmp_path / "v/a.mp4")
    config, checkpoint = small_rtmdet
    arguments = ["ingest", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--checkpoint", str(checkpoint),
                 "--detector-config", str(config), "--device", "cpu", "--min-height", "4", "--min-width", "4",
                 "--min-change", "0", "--max-overlap", "1", "--min-frames", "3"]  # fmt: skip
    result = CliRunner().invoke(pipelines.cli.app, arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    summary = json.loads((tmp_path / "out/ingest.json").read_text())
    assert summary["detector"] == "rtmdet"
    assert summary["crops"] == len(rows(tmp_path / "out")) > 0


def test_rtmdet_without_a_network_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_scene(tmp_path / "v/a.mp4")
    monkeypatch.setenv("CSIP_CACHE", str(tmp_path / "cache"))
    address = "http://127.0.0.1:9/rtmdet.pth"
    monkeypatch.setattr(csip.video.rtmdet, "WEIGHTS", Weights(address, "235e8209"))
    with pytest.raises(PoseCacheError, match=rf"cannot download {address}.*put it at {tmp_path}/cache/rtmdet\.pth"):
        run(tmp_path / "v", tmp_path / "out", DetectorOptions("rtmdet"))
    # Nothing is done yet, so that another detector may be tried.
    assert run(tmp_path / "v", tmp_path / "out", BOXES).tracklets == 2
    (tmp_path / "cache/rtmdet.pth").write_bytes(b"another file")
    with pytest.raises(PoseCacheError, match=r"not the file that is meant.*expected 235e8209"):
        run(tmp_path / "v", tmp_path / "other", DetectorOptions("rtmdet"))


def test_without_weights_the_detector_is_hog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_scene(tmp_path / "v/a.mp4")
    monkeypatch.setenv("CSIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(csip.video.rtmdet, "WEIGHTS", Weights("http://127.0.0.1:9/rtmdet.pth", "235e8209"))
    assert run(tmp_path / "v", tmp_path / "out").detector == "hog"
    assert "detector hog: RTMDet's weights are not here" in capsys.readouterr().out
    # What was begun goes on as it was begun, whatever can be downloaded by then.
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/rtmdet.pth").touch()
    assert run(tmp_path / "v", tmp_path / "out").detector == "hog"


# ---- a real video ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.exists(), reason="needs the real video beside the project")
def test_hog_keeps_two_real_people_apart(tmp_path: Path) -> None:
    """A stretch in which one person leaves (by frame 197 of the whole) and the next one comes (from frame 228 on)."""
    first, images = 100, []
    with av.open(str(REAL)) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            if number >= first + 200:
                break
            if number >= first:
                images.append(frame.to_ndarray(format="bgr24"))
    write_video(tmp_path / "v/real.mp4", images)
    summary = run(tmp_path / "v", tmp_path / "out", DetectorOptions("hog"))
    lengths = {"before": 0, "after": 0}
    for _, group in groupby(rows(tmp_path / "out"), lambda row: row["tracklet"]):
        numbers = [int(row["number"]) + first - 1 for row in group]
        assert numbers[-1] <= 197 or numbers[0] >= 228, "a tracklet of two people"
        side = "before" if numbers[-1] <= 197 else "after"
        lengths[side] = max(lengths[side], len(numbers))
    assert min(lengths.values()) >= 15
    assert summary.frames == 200
