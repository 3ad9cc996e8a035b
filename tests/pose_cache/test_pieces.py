"""Pieces of work in other processes."""

import os
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
        found = pool.map(lambda folder: pieces._elsewhere(folder, False, look, "x"), folders)
        assert list(found) == [str(folder.resolve() / "x") for folder in folders]


def test_a_folder_that_a_worker_does_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoseCacheError, match=r"gone: expected the folder that the work was started in.* same folders"):
        pieces._elsewhere(tmp_path / "gone", False, where, "x")


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
