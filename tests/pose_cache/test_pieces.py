"""Pieces of work in other processes."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import pytest

from pose_cache import pieces
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import run_pieces


def where(piece: str) -> str:
    return os.path.realpath(piece)


def test_relative_paths_mean_the_same_in_workers_that_started_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    joblib.Parallel(2)(joblib.delayed(where)(str(number)) for number in range(4))
    monkeypatch.chdir(tmp_path / "second")
    assert list(run_pieces(where, ["video.mp4"], 2, "loky")) == [str((tmp_path / "second/video.mp4").resolve())]


def test_threads_with_work_of_two_folders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's worker has several threads, and a process has one working directory."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    inside = threading.Barrier(2)

    def look(piece: str) -> str:
        inside.wait(10)  # both threads that have work of one folder are inside
        return os.path.realpath(piece)

    folders = [tmp_path / name for name in ("first", "second", "first", "second")]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda folder: pieces._elsewhere(folder, None, look, "x"), folders)
        assert list(found) == [str(folder.resolve() / "x") for folder in folders]


def test_a_folder_that_a_worker_does_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoseCacheError, match=r"gone: expected the folder that the work was started in.* same folders"):
        pieces._elsewhere(tmp_path / "gone", None, where, "x")


def test_a_worker_whose_parent_was_gone_before_its_first_piece_ends() -> None:
    script = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from pose_cache.pieces import _elsewhere\n"
        "_elsewhere(Path.cwd(), os.getppid() + 1, time.sleep, 60)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == 1


def test_a_single_worker_outlives_whoever_started_it(tmp_path: Path) -> None:
    """Its work is done in the process itself, which may go on in the background after a terminal is closed."""
    script = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from pose_cache.pieces import run_pieces\n"
        "def outlive(folder):\n"
        "    parent = os.getppid()\n"
        "    (folder / 'started').touch()\n"
        "    while os.getppid() == parent:\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(1.5)\n"
        "    (folder / 'done').touch()\n"
        f"list(run_pieces(outlive, [Path({str(tmp_path)!r})], 1, 'loky'))\n"
    )
    starter = (
        "import subprocess, sys, time\n"
        "from pathlib import Path\n"
        f"process = subprocess.Popen([sys.executable, '-c', {script!r}])\n"
        f"while not Path({str(tmp_path / 'started')!r}).exists() and process.poll() is None:\n"
        "    time.sleep(0.01)\n"
    )
    subprocess.run([sys.executable, "-c", starter], check=True, timeout=60)
    for _ in range(600):
        if (tmp_path / "done").exists():
            return
        time.sleep(0.05)
    pytest.fail("it ended with the process that had started it")


def test_a_worker_makes_what_it_keeps_once() -> None:
    made = []

    @pieces.kept_by_worker
    def make(name: str) -> str:
        made.append(name)
        time.sleep(0.01)
        return name

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, ["a"] * 4)) == ["a"] * 4
    assert made == ["a"] and make("b") == "b" and make("a") == "a"
