"""Ingesting as a function: typed results, dialects and displays end to end, kills, interrupts, and what is left out."""

from __future__ import annotations

import csv
import glob
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest
from ingested import content, rows
from monitors import Heard

import csip.video.ingest
import csip.video.state
from csip.errors import CsipError
from csip.video.box_raw import BoxesOptions
from csip.video.ingest import DetectorOptions, IngestResult, ingest
from csip.video.one_video import IngestOptions
from csip.video.tracklets import TrackletRules
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import Share, Spread

GIVEN = DetectorOptions("boxes")
SHARED = Path(__file__).parents[4] / "shared/cases"
FRAMES, WIDTH, HEIGHT = 20, 192, 96
COLOUR = (40, 40, 220)


def at(frame: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of the red rectangle in a frame from 0."""
    return 8 + 8 * frame, 16, 16, 48


def write_video(
    path: Path, aspect: Fraction | None = None, matrix: tuple[int, ...] | None = None, count: int = FRAMES
) -> None:
    """A red rectangle walks from left to right over the picture that a player shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width = WIDTH if aspect is None else round(WIDTH / aspect)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, HEIGHT, "yuv420p", {"crf": "12"}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            a, b, c, d = matrix
            stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        for frame in range(count):
            image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
            left, top, w, h = at(frame)
            image[top : top + h, left : left + w] = COLOUR
            if matrix is not None:  # only those that are their own inverse
                image = image[:: matrix[3], :: matrix[0]]
            image = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")))
        container.mux(stream.encode(None))


def boxes(count: int = FRAMES, first: int = 1, number: int = 3) -> str:
    return "".join(f"{f + first},{number},{','.join(map(str, at(f)))},1,-1,-1,-1\n" for f in range(count))


def is_red(out: Path) -> bool:
    """Whether each crop shows the rectangle from edge to edge."""
    crops = [cv2.imread(str(out / row["frame"])) for row in rows(out)]
    return all(np.abs(crop[6:-6, 4:-4].mean((0, 1)) - COLOUR).max() < 25 for crop in crops) and len(crops) > 0


@pytest.mark.parametrize("matrix", [None, (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)])
@pytest.mark.parametrize("aspect", [None, Fraction(2), Fraction(1, 2)])
def test_what_a_player_shows_is_cropped(
    tmp_path: Path, aspect: Fraction | None, matrix: tuple[int, ...] | None
) -> None:
    write_video(tmp_path / "v/a.mp4", aspect, matrix)
    (tmp_path / "v/a.txt").write_text(boxes())
    result = ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    assert (result.tracklets, result.crops, result.dropped) == (1, FRAMES, {})
    assert is_red(tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out" / rows(tmp_path / "out")[5]["frame"])).shape == (48, 16, 3)


def test_the_result_is_typed_and_saved(tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4")
    (tmp_path / "v/a.txt").write_text(boxes(first=0) + "0,9,5,5,20,20,1,-1,-1,-1\n40,3,5,5,20,20,1,-1,-1,-1\n")
    (tmp_path / "v/broken.mp4").write_text("no video")
    (tmp_path / "v/broken.txt").touch()
    heard = Heard()
    result = ingest(tmp_path / "v", tmp_path / "out", GIVEN, monitor=heard)
    assert isinstance(result, IngestResult)
    assert [(one.video, "cannot be opened" in one.reason) for one in result.skipped] == [("broken.mp4", True)]
    assert list(result.boxes.values()) == [1]
    assert "frames count from 0" in next(iter(result.boxes))
    assert result.problems == {"a.mp4": "a.txt goes to frame 41, the video to 20"}
    assert result.dropped == {"crops: outside the video or its picture": 1}
    saved = json.loads((tmp_path / "out/ingest.json").read_text())
    assert saved["skipped"][0]["video"] == "broken.mp4"
    said = ("videos", "ingested", "frames", "tracklets", "crops", "dropped", "boxes", "problems")
    assert {key: saved[key] for key in said} == {
        "videos": 2, "ingested": 1, "frames": FRAMES, "tracklets": 2, "crops": FRAMES + 1, "dropped": result.dropped,
        "boxes": result.boxes, "problems": result.problems,
    }  # fmt: skip
    assert any("boxes read as a.txt: MOTChallenge" in text for text in heard.said)


def test_lines_that_are_left_out_are_counted_over_all_videos(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"v/{name}.mp4")
        lines = [f"{f + 1},3,{','.join(map(str, at(f)))},0.9,0,-1\n{f + 1},4,9,9,9,9,0.8,2,-1\n" for f in range(FRAMES)]
        (tmp_path / f"v/{name}.txt").write_text("".join(lines))
    result = ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    assert result.dropped == {"boxes: class 2": 2 * FRAMES}
    assert (result.tracklets, sum(result.boxes.values())) == (2, 2)


def test_a_question_passes_over_one_video_and_its_answer_redoes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v/a.mp4")
    write_video(tmp_path / "v/b.mp4")
    (tmp_path / "v/a.txt").write_text(boxes())
    (tmp_path / "v/b.txt").write_text(boxes().replace("-1,-1,-1", "2,-1,-1"))
    result = ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    assert [one.video for one in result.skipped] == ["b.mp4"]
    assert "Give the format" in result.skipped[0].reason and result.skipped[0].parameter == "reading.format"
    answered = ingest(tmp_path / "v", tmp_path / "out", DetectorOptions("boxes", reading=BoxesOptions("mot")))
    assert (answered.ingested, answered.tracklets) == (2, 2)


def test_negative_tracks_are_ingested_again_and_again(tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4")
    for text, names in ((boxes(number=-4), ["a-neg0004"]), (boxes(number=-2), ["a-neg0002"]), (boxes(), ["a-0003"]),
                        (boxes(number=-12345), ["a-neg12345"])):  # fmt: skip
        (tmp_path / "v/a.txt").write_text(text)
        ingest(tmp_path / "v", tmp_path / "out", GIVEN)
        assert [path.name for path in (tmp_path / "out/crops/a").iterdir()] == names
    assert rows(tmp_path / "out")[0]["track"] == "-12345"


def test_cameras_alike_are_two_in_the_table(tmp_path: Path) -> None:
    for name in ("a/b/x", "a-b/x"):
        write_video(tmp_path / f"v/{name}.mp4")
        (tmp_path / f"v/{name}.txt").write_text(boxes())
    ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    table = {row["video"]: (row["camera"], row["tracklet"]) for row in rows(tmp_path / "out")}
    assert table == {"a-b/x.mp4": ("a-b", "a-b/x-0003"), "a/b/x.mp4": ("a-b~2", "a-b~2/x-0003")}
    assert is_red(tmp_path / "out")


def test_changed_boxes_of_the_same_length_and_time_are_read_anew(tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4")
    file = tmp_path / "v/a.txt"
    file.write_text(boxes(number=3))
    times = file.stat()
    ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    file.write_text(boxes(number=4))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    assert {row["track"] for row in rows(tmp_path / "out")} == {"4"}


# ---- kills -----------------------------------------------------------------------------------------------------------

COMMAND = """
import sys
from pathlib import Path
from csip.video.ingest import DetectorOptions, ingest
ingest(Path(sys.argv[1]), Path(sys.argv[2]), DetectorOptions("boxes"))
"""


def started(root: Path, out: Path) -> subprocess.Popen[bytes]:
    # A shell that runs the tests in the background has Ctrl-C ignored.
    program = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{COMMAND}"
    command = [sys.executable, "-c", program, str(root), str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def several(root: Path) -> None:
    for name in ("a", "hall/b", "hall/c"):
        write_video(root / f"{name}.mp4")
        (root / f"{name}.txt").write_text(boxes())


def crops(out: Path) -> list[str]:
    """List the crops so far; folders may go meanwhile, over which Path.glob of Python 3.11 trips."""
    return glob.glob(f"{out}/.ingest/work/*/*/*.jpg")  # noqa: PTH207


def begun(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until the first crop is written."""
    while process.poll() is None and not crops(out):
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same(tmp_path: Path) -> None:
    several(tmp_path / "v")
    ingest(tmp_path / "v", tmp_path / "whole", GIVEN)
    generator = random.Random(5)
    out = tmp_path / "out"
    killed = 0
    for _ in range(6):
        process = started(tmp_path / "v", out)
        begun(process, out)
        time.sleep(generator.uniform(0, 0.15))
        process.kill()
        process.wait()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 1
    ingest(tmp_path / "v", out, GIVEN)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_it_resumes(tmp_path: Path) -> None:
    several(tmp_path / "v")
    ingest(tmp_path / "v", tmp_path / "whole", GIVEN)
    out = tmp_path / "out"
    process = started(tmp_path / "v", out)
    begun(process, out)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert not (out / "tracklets.csv").exists()
    ingest(tmp_path / "v", out, GIVEN)
    assert content(out) == content(tmp_path / "whole")


def test_a_record_is_written_when_all_it_speaks_of_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a video is done only if its crops, their folder and its table are there."""
    write_video(tmp_path / "v/a.mp4")
    (tmp_path / "v/a.txt").write_text(boxes())
    events: list[str] = []
    state = csip.video.state
    real_flush, real_json, real_sync = state.flush, state.write_json, os.sync
    monkeypatch.setattr(state, "flush", lambda path: (events.append(f"flush {path.name}"), real_flush(path))[1])
    monkeypatch.setattr(state, "write_json", lambda path, tree: (events.append("record"), real_json(path, tree))[1])
    monkeypatch.setattr(state.os, "sync", lambda: (events.append("sync"), real_sync())[1])
    ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    begun_at, done_at = (index for index, event in enumerate(events) if event == "record")
    assert events[begun_at + 1 : done_at] == ["flush videos", "sync", "flush a", "flush crops", "flush out"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"video": 1}', "\x00"])
def test_damaged_records_and_options_are_named(tmp_path: Path, text: str) -> None:
    write_video(tmp_path / "v/a.mp4")
    (tmp_path / "v/a.txt").write_text(boxes())
    ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    whole = content(tmp_path / "out")
    [record] = (tmp_path / "out/.ingest/videos").glob("*.json")
    before = record.read_text()
    record.write_text(text)
    try:
        ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    except CsipError as error:
        assert record.name in str(error)
        record.write_text(before)
    assert content(tmp_path / "out") == whole
    (tmp_path / "out/.ingest/options.json").write_text(text)
    with pytest.raises(CsipError, match=r"options\.json: is damaged|was ingested with other options"):
        ingest(tmp_path / "v", tmp_path / "out", GIVEN)


# ---- many workers ----------------------------------------------------------------------------------------------------


def same(one: IngestResult, other: IngestResult) -> bool:
    return replace(one, created="", elapsed=0) == replace(other, created="", elapsed=0)


@pytest.mark.parametrize("spread", [pytest.param(Spread(2), marks=pytest.mark.slow), Spread(2, "threading")])
def test_workers_make_the_same_data_set(tmp_path: Path, spread: Spread) -> None:
    several(tmp_path / "v")
    (tmp_path / "v/none.mp4").write_text("no video")
    (tmp_path / "v/none.txt").touch()
    expected = ingest(tmp_path / "v", tmp_path / "whole", GIVEN)
    assert same(ingest(tmp_path / "v", tmp_path / "out", GIVEN, spread=spread), expected)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert len(expected.skipped) == 1


@pytest.mark.slow
def test_detectors_of_workers_find_the_same(tmp_path: Path) -> None:
    several(tmp_path / "v")
    found = DetectorOptions("hog", threads=1)
    options = IngestOptions(rate=2, rules=TrackletRules(min_frames=1, min_height=4, min_width=4, min_change=0))
    expected = ingest(tmp_path / "v", tmp_path / "whole", found, options)
    assert same(ingest(tmp_path / "v", tmp_path / "out", found, options, spread=Spread(2)), expected)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_shares_are_joined_by_the_command_without_one(tmp_path: Path) -> None:
    several(tmp_path / "v")
    expected = ingest(tmp_path / "v", tmp_path / "whole", GIVEN)
    out = tmp_path / "out"
    counts = [ingest(tmp_path / "v", out, GIVEN, spread=Spread(share=Share(job, 2))).ingested for job in (2, 1)]
    assert counts == [1, 2]
    assert not (out / "tracklets.csv").exists()
    with pytest.raises(CsipError, match="was ingested with other options"):
        ingest(tmp_path / "v", out, GIVEN, camera="a|hall", spread=Spread(share=Share(1, 2)))
    with pytest.raises(CsipError, match="a share cannot be made anew"):
        ingest(tmp_path / "v", out, GIVEN, force=True, spread=Spread(share=Share(1, 2)))
    assert same(ingest(tmp_path / "v", out, GIVEN), expected)
    assert content(out) == content(tmp_path / "whole")


def test_merging_does_no_share_of_the_work(tmp_path: Path) -> None:
    several(tmp_path / "v")
    (tmp_path / "v/none.mp4").write_text("no video")
    (tmp_path / "v/none.txt").touch()
    expected = ingest(tmp_path / "v", tmp_path / "whole", GIVEN)
    out = tmp_path / "out"
    for job in (1, 3):
        with pytest.raises(
            PoseCacheError, match=r"out: videos are not ingested; run the (rest without shares|shares 2/3, 3/3)"
        ):
            ingest(tmp_path / "v", out, GIVEN, spread=Spread(merge=True))
        ingest(tmp_path / "v", out, GIVEN, spread=Spread(share=Share(job, 3)))
    with pytest.raises(PoseCacheError, match=r"out: videos are not ingested; run the shares 2/3$") as raised:
        ingest(tmp_path / "v", out, GIVEN, spread=Spread(merge=True))
    assert raised.value.parameter == "shard"
    ingest(tmp_path / "v", out, GIVEN, spread=Spread(share=Share(2, 3)))
    assert same(ingest(tmp_path / "v", out, GIVEN, spread=Spread(merge=True)), expected)
    assert content(out) == content(tmp_path / "whole")
    assert not list(out.glob(".ingest/job-*"))


def test_shares_run_at_once_and_the_whole_waits_for_none(tmp_path: Path) -> None:
    several(tmp_path / "v")
    out = tmp_path / "out"
    state = csip.video.state.IngestState(out)
    with state.jobs.held(Share(2, 2)):
        assert ingest(tmp_path / "v", out, GIVEN, spread=Spread(share=Share(1, 2))).ingested == 2
        with pytest.raises(PoseCacheError, match=r"is being written by"):
            ingest(tmp_path / "v", out, GIVEN, spread=Spread(share=Share(2, 2)))
        with pytest.raises(PoseCacheError, match="is being written by"):
            ingest(tmp_path / "v", out, GIVEN)


@pytest.mark.slow
def test_a_killed_worker_is_named_and_what_is_done_is_kept(tmp_path: Path) -> None:
    several(tmp_path / "v")
    expected = ingest(tmp_path / "v", tmp_path / "whole", GIVEN)
    out = tmp_path / "out"
    mine = os.getpid()

    def kill() -> None:
        while not crops(out):
            time.sleep(0.002)
        for process in psutil.Process(mine).children(recursive=True):
            with suppress(psutil.Error):  # it may end while it is looked at
                command = " ".join(process.cmdline())
                if "loky" in command and "tracker" not in command:
                    process.kill()
                    return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(PoseCacheError, match="a worker process was killed"):
        ingest(tmp_path / "v", out, GIVEN, spread=Spread(2))
    killer.join(10)
    assert same(ingest(tmp_path / "v", out, GIVEN, spread=Spread(2)), expected)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the cases beside the project")
@pytest.mark.parametrize("name", ["plain", "nine_columns_bicycle", "from_zero", "negative_ids"])
def test_cases_beside_the_project(tmp_path: Path, name: str) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/cam1.mp4").symlink_to(SHARED / "videos/cam1.mp4")
    (tmp_path / "v/cam1.txt").write_bytes((SHARED / f"boxes/{name}.txt").read_bytes())
    for _ in range(2):
        result = ingest(tmp_path / "v", tmp_path / "out", GIVEN)
    assert result.tracklets == 3
    assert result.crops == (179 if name == "negative_ids" else 180)
    assert result.dropped == ({"boxes: class 1": 39} if name == "nine_columns_bicycle" else {})
    truth = {(r[0], r[1]): r[2:6] for r in csv.reader((SHARED / "boxes/plain.txt").open())}
    for row in rows(tmp_path / "out"):
        track = int(row["track"])
        expected = truth[row["number"], str(track if track > 0 else -1 - track)]
        assert abs(float(row["x"]) - float(expected[0])) <= 1
        assert abs(float(row["height"]) - float(expected[3])) <= 1


def test_a_copy_of_a_video_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/a.mp4", count=4)
    (tmp_path / "videos/a (1).mp4").write_bytes((tmp_path / "videos/a.mp4").read_bytes())
    for name in ("a", "a (1)"):
        (tmp_path / f"videos/{name}.txt").write_text(boxes(4))
    heard = Heard()
    ingest(tmp_path / "videos", tmp_path / "out", GIVEN, monitor=heard)
    assert sum("seems to be a copy of" in said for said in heard.said) == 1
