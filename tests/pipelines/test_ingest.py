"""From a folder of videos to a data set: given tracks, kills, broken files."""

from __future__ import annotations

import glob
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

import cv2
import numpy as np
import pytest
from ingest_scenes import COLOURS, FRAMES, make_scene, walk
from ingested import content, rows
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

pytestmark = pytest.mark.slow

BOXES = DetectorOptions("boxes")


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


def crops(out: Path) -> list[str]:
    """List the crops so far; folders may go meanwhile, over which Path.glob of Python 3.11 trips."""
    return glob.glob(f"{out}/.ingest/work/*/*/*.jpg")  # noqa: PTH207


def test_command_killed_from_outside(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "whole", BOXES)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines", "ingest", str(videos), "--out", str(out), "--detector", "boxes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not crops(out):
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
