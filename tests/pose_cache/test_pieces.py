"""Pieces of work in other processes."""

import os
from pathlib import Path

import joblib
import pytest

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
